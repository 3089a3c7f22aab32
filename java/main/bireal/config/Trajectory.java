package bireal.config;

import bireal.config.YamlNode.Entry;
import bireal.config.YamlNode.Mapping;
import bireal.config.YamlNode.Scalar;
import bireal.config.YamlNode.Sequence;
import java.lang.reflect.RecordComponent;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/**
 * The settings that the numbers of a run depend on. A checkpoint keeps them; resuming it with
 * others would silently train something else, so it is refused. What is left out may change between
 * two parts of a run.
 */
public final class Trajectory {
  private static final String SEED = "seed";
  private static final String AUTO = "auto";
  private static final Set<String> FREE =
      Set.of(
          "name",
          "backend",
          "device",
          "cuda_graphs",
          "threads",
          "runs_folder",
          "data.path",
          "data.loader_threads",
          "data.batches_ahead",
          "data.stall_limit_seconds",
          "train.evaluate_every_epochs",
          "train.checkpoint_every_steps",
          "train.keep_checkpoints",
          "train.log_every_steps",
          "train.on_checkpoint_failure");

  private Trajectory() {}

  /** Values by key path, as configs spell them: as in the file, below its stage if it has one. */
  public static Map<String, String> of(Recipe recipe) {
    Map<String, String> values = new TreeMap<>();
    recipe
        .stages()
        .forEach(
            (name, config) -> {
              Map<String, String> own = new TreeMap<>();
              collect("", config, own);
              own.keySet().removeAll(FREE);
              String seed = own.remove(SEED);
              values.put(SEED, seed);
              own.forEach(
                  (key, value) ->
                      values.put(recipe.staged() ? "stages." + name + "." + key : key, value));
            });
    return values;
  }

  /**
   * Whether a key of {@link #of} has its default value, which is what it means in a checkpoint that
   * was written before there was such a key. What is auto by default is what the network had.
   */
  public static boolean isDefault(String key, String value) {
    String inStage = key.startsWith("stages.") ? key.split("\\.", 3)[2] : key;
    YamlNode node = ConfigLoader.defaults();
    for (String part : inStage.split("\\.")) {
      Entry entry = node instanceof Mapping mapping ? mapping.entries().get(part) : null;
      if (entry == null) {
        return false;
      }
      node = entry.value();
    }
    if (node instanceof Sequence sequence) {
      return sequence.items().isEmpty() && value.equals(List.of().toString());
    }
    if (!(node instanceof Scalar scalar)) {
      return false;
    }
    String text = scalar.text();
    boolean number = scalar.plain() && Values.isNumber(text) && Values.isNumber(value);
    return text.equals(AUTO)
        || text.equals(value)
        || (number && Double.parseDouble(text) == Double.parseDouble(value));
  }

  private static void collect(String prefix, Object value, Map<String, String> values) {
    if (value instanceof Optional<?> optional) {
      collect(prefix, optional.isPresent() ? optional.get() : RecordBinder.NONE, values);
      return;
    }
    if (!(value instanceof Record)) {
      values.put(
          prefix,
          value instanceof Enum<?> choice ? Values.spelling(choice) : String.valueOf(value));
      return;
    }
    for (RecordComponent component : value.getClass().getRecordComponents()) {
      String key = Values.key(component);
      try {
        collect(
            prefix.isEmpty() ? key : prefix + "." + key,
            component.getAccessor().invoke(value),
            values);
      } catch (ReflectiveOperationException e) {
        throw new IllegalStateException("cannot read " + component, e);
      }
    }
  }
}
