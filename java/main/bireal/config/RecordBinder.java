package bireal.config;

import bireal.config.YamlNode.Entry;
import bireal.config.YamlNode.Mapping;
import bireal.config.YamlNode.Scalar;
import bireal.config.YamlNode.Sequence;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.RecordComponent;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * Builds records from YAML nodes. A key is a component's name in snake_case; every component must
 * have a key and every key a component. Types are exact: nothing is converted but an integer where
 * a real number is wanted. An {@link IllegalArgumentException} of a record's constructor is
 * reported at the key that its message starts with.
 */
final class RecordBinder {
  /** How a config spells an absent section. */
  static final String NONE = "none";

  private final Class<? extends Record> root;

  private RecordBinder(Class<? extends Record> root) {
    this.root = root;
  }

  /**
   * The record that {@code mapping} describes; {@code whole} is the place to blame for what stands
   * in no line.
   */
  static <T extends Record> T bind(Class<T> type, Mapping mapping, Place whole) {
    return bind(type, mapping, "", whole);
  }

  /** As above, for a part of a config that stands at {@code path}. */
  static <T extends Record> T bind(Class<T> type, Mapping mapping, String path, Place whole) {
    return type.cast(new RecordBinder(type).record(type, mapping, path, whole));
  }

  /** {@code section} is the nearest place in the user's own words. */
  private Object record(Class<?> type, Mapping mapping, String path, Place section) {
    RecordComponent[] components = type.getRecordComponents();
    refuseUnknown(type, components, mapping, path, section);
    refuseMissing(components, mapping, path, section);
    Object[] values = new Object[components.length];
    Class<?>[] types = new Class<?>[components.length];
    for (int i = 0; i < components.length; i++) {
      String key = Values.key(components[i]);
      types[i] = components[i].getType();
      Entry entry = mapping.entries().get(key);
      values[i] = value(components[i].getGenericType(), entry, join(path, key), section);
    }
    try {
      var constructor = type.getDeclaredConstructor(types);
      constructor.setAccessible(true);
      return constructor.newInstance(values);
    } catch (InvocationTargetException e) {
      if (e.getCause() instanceof IllegalArgumentException refused) {
        throw refused(refused.getMessage(), mapping, path, section);
      }
      throw new IllegalStateException("constructor of " + type.getName() + " failed", e.getCause());
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException("cannot construct " + type.getName(), e);
    }
  }

  private Object value(Type type, Entry entry, String path, Place section) {
    YamlNode node = entry.value();
    if (type instanceof Class<?> record && record.isRecord()) {
      if (node instanceof Mapping mapping) {
        return record(record, mapping, path, visible(entry.keyPlace(), section));
      }
      throw wrong(node, path, section, "must be a section: keys and values, indented under it");
    }
    if (type instanceof ParameterizedType optional && optional.getRawType() == Optional.class) {
      return plain(node).equals(NONE)
          ? Optional.empty()
          : Optional.of(value(optional.getActualTypeArguments()[0], entry, path, section));
    }
    if (isListOf(String.class, type)) {
      if (!(node instanceof Sequence sequence)) {
        throw wrong(node, path, section, "must be a list of names such as [\"fc.*\"]");
      }
      List<String> texts = new ArrayList<>();
      for (YamlNode item : sequence.items()) {
        texts.add(text(item, path + "[" + texts.size() + "]", section));
      }
      return texts;
    }
    if (isListOf(Double.class, type)) {
      if (!(node instanceof Sequence sequence)) {
        throw wrong(node, path, section, "must be a list of numbers such as [0.5, 0.5]");
      }
      List<Double> numbers = new ArrayList<>();
      for (YamlNode item : sequence.items()) {
        numbers.add(number(item, path + "[" + numbers.size() + "]", section));
      }
      return numbers;
    }
    if (type == int.class) {
      return (int) integer(node, path, section, Integer.MIN_VALUE, Integer.MAX_VALUE);
    } else if (type == long.class) {
      return integer(node, path, section, Long.MIN_VALUE, Long.MAX_VALUE);
    } else if (type == double.class) {
      return number(node, path, section);
    } else if (type == boolean.class) {
      String text = plain(node);
      if (!text.equals("true") && !text.equals("false")) {
        throw wrong(node, path, section, "must be true or false");
      }
      return text.equals("true");
    } else if (type == String.class) {
      return text(node, path, section);
    } else if (type instanceof Class<?> choice && choice.isEnum()) {
      return choice(choice, node, path, section);
    }
    throw new IllegalStateException("config component " + path + " has unsupported type " + type);
  }

  private static boolean isListOf(Class<?> item, Type type) {
    return type instanceof ParameterizedType list
        && list.getRawType() == List.class
        && list.getActualTypeArguments()[0] == item;
  }

  private static long integer(YamlNode node, String path, Place section, long min, long max) {
    String text = plain(node);
    if (Values.isInteger(text)) {
      try {
        long value = Long.parseLong(text);
        if (value >= min && value <= max) {
          return value;
        }
      } catch (NumberFormatException e) {
        // More digits than a long has: the same error as a value out of range.
      }
      throw wrong(node, path, section, "must be an integer in " + min + ".." + max);
    }
    throw wrong(node, path, section, "must be an integer");
  }

  private static double number(YamlNode node, String path, Place section) {
    String text = plain(node);
    if (!Values.isNumber(text) || Double.isInfinite(Double.parseDouble(text))) {
      throw wrong(node, path, section, "must be a number");
    }
    return Double.parseDouble(text);
  }

  private static String text(YamlNode node, String path, Place section) {
    if (!(node instanceof Scalar scalar)
        || scalar.isNull()
        || (scalar.plain() && !Values.isText(scalar.text()))) {
      throw wrong(node, path, section, "must be text; put it in quotes");
    }
    if (!Values.isPrintable(scalar.text())) {
      throw wrong(node, path, section, "must be text without control characters");
    }
    return scalar.text();
  }

  private static Object choice(Class<?> type, YamlNode node, String path, Place section) {
    if (node instanceof Scalar scalar && !scalar.isNull()) {
      for (Object constant : type.getEnumConstants()) {
        if (Values.spelling((Enum<?>) constant).equals(scalar.text())) {
          return constant;
        }
      }
    }
    throw wrong(node, path, section, "must be one of: " + Values.spellings(type));
  }

  /** Text of an unquoted scalar; what is not one can be no number or boolean. */
  private static String plain(YamlNode node) {
    return node instanceof Scalar scalar && scalar.plain() ? scalar.text() : "";
  }

  private static ConfigException wrong(YamlNode node, String path, Place section, String rule) {
    String got;
    if (node instanceof Mapping) {
      got = "a section";
    } else if (node instanceof Sequence) {
      got = "a list";
    } else {
      Scalar scalar = (Scalar) node;
      got =
          scalar.isNull()
              ? "no value"
              : Values.quote(scalar.text()) + (scalar.plain() ? "" : " in quotes, which is text");
    }
    return new ConfigException(visible(node.place(), section), path, rule + "; got " + got);
  }

  private void refuseUnknown(
      Class<?> type, RecordComponent[] components, Mapping mapping, String path, Place section) {
    List<String> known = Arrays.stream(components).map(Values::key).toList();
    for (var entry : mapping.entries().entrySet()) {
      String key = entry.getKey();
      if (!known.contains(key)) {
        throw new ConfigException(
            visible(entry.getValue().keyPlace(), section),
            join(path, Values.isPrintable(key) ? key : Values.quote(key)),
            "is not a known key; "
                + suggestion(key, path, type == root ? withStages(known) : known));
      }
    }
  }

  /** At the top, the loader knows one key more than the record. */
  private static List<String> withStages(List<String> known) {
    List<String> all = new ArrayList<>(known);
    all.add("stages");
    return all;
  }

  private String suggestion(String key, String path, List<String> known) {
    if (key.equals("extends")) {
      return "'extends: FILE' stands at the top of a file, not in a section or an override";
    }
    Set<String> homes = new LinkedHashSet<>();
    findHomes(root, "", key, homes);
    if (!homes.isEmpty()) {
      return "did you mean " + String.join(" or ", homes) + "?";
    }
    return Values.nearest(key, known)
        .map(nearest -> "did you mean " + join(path, nearest) + "?")
        .orElse("known here: " + String.join(", ", known));
  }

  /**
   * Collects the paths of keys that are called {@code key}, or are {@code key} written as a path.
   */
  private static void findHomes(Class<?> type, String path, String key, Set<String> homes) {
    for (RecordComponent component : type.getRecordComponents()) {
      String full = join(path, Values.key(component));
      if (Values.key(component).equals(key)) {
        homes.add(full);
      } else if (full.equals(key)) {
        homes.add("'" + Values.key(component) + "' indented under '" + path + ":'");
      }
      if (component.getType().isRecord()) {
        findHomes(component.getType(), full, key, homes);
      }
    }
  }

  private static void refuseMissing(
      RecordComponent[] components, Mapping mapping, String path, Place section) {
    List<RecordComponent> missing =
        Arrays.stream(components)
            .filter(component -> !mapping.entries().containsKey(Values.key(component)))
            .toList();
    if (missing.isEmpty()) {
      return;
    }
    RecordComponent first = missing.get(0);
    List<String> others = missing.stream().skip(1).map(Values::key).toList();
    throw new ConfigException(
        section,
        join(path, Values.key(first)),
        "is missing; it has no default, so write '"
            + Values.key(first)
            + ": "
            + expected(first.getGenericType())
            + "'"
            + (path.isEmpty() ? "" : " under '" + path + ":'")
            + (others.isEmpty() ? "" : " (missing likewise: " + String.join(", ", others) + ")"));
  }

  private static String expected(Type type) {
    if (type == int.class || type == long.class) {
      return "INTEGER";
    } else if (type == double.class) {
      return "NUMBER";
    } else if (type == boolean.class) {
      return "true or false";
    } else if (type == String.class) {
      return "TEXT";
    } else if (type instanceof Class<?> choice && choice.isEnum()) {
      return "one of " + Values.spellings(choice);
    }
    return type instanceof Class<?> ? "" : "[NUMBER, ...]";
  }

  /** {@code message} starts with the key, or the path below this section, that it is about. */
  private static ConfigException refused(
      String message, Mapping mapping, String path, Place section) {
    int space = message.indexOf(' ');
    String subject = space < 0 ? message : message.substring(0, space);
    Place place = section;
    YamlNode node = mapping;
    for (String key : subject.split("\\.", -1)) {
      Entry entry = node instanceof Mapping inner ? inner.entries().get(key) : null;
      if (entry == null) {
        return new ConfigException(section, path, message);
      }
      node = entry.value();
      place =
          node instanceof Mapping ? visible(entry.keyPlace(), place) : visible(node.place(), place);
    }
    return new ConfigException(place, join(path, subject), message.substring(space + 1));
  }

  private static Place visible(Place own, Place section) {
    return own.builtIn() ? section : own;
  }

  private static String join(String path, String key) {
    return path.isEmpty() ? key : path + "." + key;
  }
}
