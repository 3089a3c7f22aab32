package bireal.config;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A YAML value that remembers where it was written. Immutable. */
sealed interface YamlNode {
  Place place();

  /**
   * Text, number, boolean or null: which one, the wanted type decides.
   *
   * @param plain false if the text was quoted or a block of text, and so can only be text
   */
  record Scalar(Place place, String text, boolean plain) implements YamlNode {
    boolean isNull() {
      return plain
          && switch (text) {
            case "", "~", "null", "Null", "NULL" -> true;
            default -> false;
          };
    }
  }

  /** A list. */
  record Sequence(Place place, List<YamlNode> items) implements YamlNode {}

  /** A value and the place of its key. */
  record Entry(Place keyPlace, YamlNode value) {}

  /** Keys in the order written. */
  record Mapping(Place place, Map<String, Entry> entries) implements YamlNode {
    /** This one laid over {@code base}: sections are merged, everything else is replaced. */
    Mapping over(Mapping base) {
      Map<String, Entry> merged = new LinkedHashMap<>(base.entries);
      entries.forEach(
          (key, top) -> {
            Entry below = base.entries.get(key);
            boolean sections =
                below != null && below.value() instanceof Mapping && top.value() instanceof Mapping;
            merged.put(
                key,
                sections
                    ? new Entry(
                        top.keyPlace(), ((Mapping) top.value()).over((Mapping) below.value()))
                    : top);
          });
      return new Mapping(place, merged);
    }

    /** This one less {@code key}. */
    Mapping without(String key) {
      Map<String, Entry> rest = new LinkedHashMap<>(entries);
      rest.remove(key);
      return new Mapping(place, rest);
    }
  }
}
