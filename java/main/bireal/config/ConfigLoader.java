package bireal.config;

import bireal.config.YamlNode.Entry;
import bireal.config.YamlNode.Mapping;
import bireal.config.YamlNode.Scalar;
import java.io.IOException;
import java.io.InputStream;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.lang.reflect.RecordComponent;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.yaml.snakeyaml.DumperOptions;
import org.yaml.snakeyaml.DumperOptions.FlowStyle;
import org.yaml.snakeyaml.DumperOptions.ScalarStyle;
import org.yaml.snakeyaml.Yaml;
import org.yaml.snakeyaml.nodes.MappingNode;
import org.yaml.snakeyaml.nodes.Node;
import org.yaml.snakeyaml.nodes.NodeTuple;
import org.yaml.snakeyaml.nodes.ScalarNode;
import org.yaml.snakeyaml.nodes.SequenceNode;
import org.yaml.snakeyaml.nodes.Tag;

/**
 * Reads a config: the built-in defaults, under the files that it extends, under the file itself,
 * under the overrides of the command line. Everything is checked here, before any other work, and
 * every {@link ConfigException} names the key, where it was written, and the fix. No state; safe
 * from any thread.
 *
 * <p>Layers are merged as trees that keep the line of every value, and the records are built from
 * that tree. A data-binding library would lose the lines when layers are merged, so SnakeYAML's
 * parser is used alone.
 */
public final class ConfigLoader {
  private static final String DEFAULTS = "defaults.yaml";
  private static final String EXTENDS = "extends";

  private ConfigLoader() {}

  /**
   * Reads {@code file}, with overrides such as {@code train.batch=64} laid on top in order: the
   * last one counts.
   */
  public static RunConfig load(Path file, List<String> overrides) {
    Place whole = Place.of(file.toString());
    Mapping merged = withBases(file, whole, new HashSet<>()).over(defaults());
    for (String override : overrides) {
      merged = override(override).over(merged);
    }
    return RecordBinder.bind(RunConfig.class, merged, whole);
  }

  /** All keys and values as YAML, defaults included; loads again to an equal record. */
  public static String resolvedYaml(RunConfig config) {
    DumperOptions options = new DumperOptions();
    options.setDefaultFlowStyle(FlowStyle.BLOCK);
    options.setAllowUnicode(true);
    options.setWidth(Integer.MAX_VALUE);
    options.setSplitLines(false);
    StringWriter out = new StringWriter();
    new Yaml(options).serialize(node(config), out);
    return out.toString();
  }

  /** How configs spell a value: {@code FASHION_MNIST} is {@code fashion_mnist}. */
  public static String spelling(Enum<?> value) {
    return Values.spelling(value);
  }

  /** The built-in defaults. */
  static Mapping defaults() {
    try (InputStream in = ConfigLoader.class.getResourceAsStream(DEFAULTS)) {
      if (in == null) {
        throw new IllegalStateException(
            "the class path lacks bireal/config/" + DEFAULTS + "; build with 'mvn package'");
      }
      String text = new String(in.readAllBytes(), StandardCharsets.UTF_8);
      return YamlReader.mapping(text, new Place("built-in " + DEFAULTS, 0, 0, true));
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read the built-in " + DEFAULTS, e);
    }
  }

  /** {@code file} over the file that it extends, and so on. */
  private static Mapping withBases(Path file, Place blame, Set<Path> above) {
    Mapping own = YamlReader.file(file, blame);
    Entry base = own.entries().get(EXTENDS);
    if (!above.add(realPath(file))) {
      throw new ConfigException(
          blame, EXTENDS, "leads back to " + file + ", so it never ends; remove one 'extends'");
    }
    if (base == null) {
      return own;
    }
    Place place = base.value().place();
    if (!(base.value() instanceof Scalar name)
        || name.isNull()
        || !Values.isPrintable(name.text())) {
      throw new ConfigException(place, EXTENDS, "must be the name of one file");
    }
    Path next = file.resolveSibling(name.text()).normalize();
    return own.without(EXTENDS).over(withBases(next, place, above));
  }

  private static Path realPath(Path file) {
    try {
      return file.toRealPath();
    } catch (IOException e) {
      throw new UncheckedIOException("config file " + file + " vanished while it was read", e);
    }
  }

  /** {@code a.b=c} as the mapping {@code {a: {b: c}}}. */
  private static Mapping override(String text) {
    Place place = Place.of("--set " + (Values.isPrintable(text) ? text : Values.quote(text)));
    int equals = text.indexOf('=');
    List<String> keys =
        equals < 0 ? List.of() : List.of(text.substring(0, equals).strip().split("\\.", -1));
    if (keys.isEmpty() || keys.contains("")) {
      throw new ConfigException(place, "", "must be KEY=VALUE, such as train.batch=64");
    }
    YamlNode value = YamlReader.value(text.substring(equals + 1), place);
    for (int i = keys.size() - 1; i >= 0; i--) {
      Map<String, Entry> entries = new LinkedHashMap<>();
      entries.put(keys.get(i), new Entry(place, value));
      value = new Mapping(place, entries);
    }
    return (Mapping) value;
  }

  private static Node node(Object value) {
    if (value instanceof Record record) {
      List<NodeTuple> tuples = new ArrayList<>();
      for (RecordComponent component : record.getClass().getRecordComponents()) {
        tuples.add(
            new NodeTuple(scalar(Tag.STR, Values.key(component)), node(read(component, record))));
      }
      return new MappingNode(Tag.MAP, tuples, FlowStyle.BLOCK);
    } else if (value instanceof List<?> list) {
      List<Node> items = list.stream().map(ConfigLoader::node).toList();
      return new SequenceNode(Tag.SEQ, items, FlowStyle.FLOW);
    } else if (value instanceof String text) {
      return new ScalarNode(Tag.STR, text, null, null, ScalarStyle.DOUBLE_QUOTED);
    } else if (value instanceof Enum<?> constant) {
      return scalar(Tag.STR, Values.spelling(constant));
    } else if (value instanceof Boolean) {
      return scalar(Tag.BOOL, value.toString());
    }
    return scalar(value instanceof Double ? Tag.FLOAT : Tag.INT, value.toString());
  }

  private static Node scalar(Tag tag, String text) {
    return new ScalarNode(tag, text, null, null, ScalarStyle.PLAIN);
  }

  private static Object read(RecordComponent component, Record record) {
    try {
      return component.getAccessor().invoke(record);
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException("cannot read " + component, e);
    }
  }
}
