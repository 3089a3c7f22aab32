package bireal.config;

import bireal.config.YamlNode.Entry;
import bireal.config.YamlNode.Mapping;
import bireal.config.YamlNode.Scalar;
import bireal.config.YamlNode.Sequence;
import bireal.train.StartConfig;
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
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;
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
 * under the overrides of the command line. Stages, where there are any, are laid over the rest of
 * the config. Everything is checked here, before any other work, and every {@link ConfigException}
 * names the key, where it was written, and the fix. No state; safe from any thread.
 *
 * <p>Layers are merged as trees that keep the line of every value, and the records are built from
 * that tree. A data-binding library would lose the lines when layers are merged, so SnakeYAML's
 * parser is used alone.
 */
public final class ConfigLoader {
  private static final String DEFAULTS = "defaults.yaml";
  private static final String EXTENDS = "extends";
  private static final String STAGES = "stages";
  private static final Pattern STAGE_NAME = Pattern.compile("[A-Za-z0-9_-]{1,40}");

  /** Keys that no stage may have for itself. */
  private static final Set<String> OF_THE_RUN =
      Set.of("name", "seed", "backend", "device", "cuda_graphs", "threads", "runs_folder");

  private ConfigLoader() {}

  /**
   * Reads {@code file}, with overrides such as {@code train.batch=64} laid on top in order: the
   * last one counts.
   */
  public static Recipe load(Path file, List<String> overrides) {
    Place whole = Place.of(file.toString());
    Mapping merged = withBases(file, whole, new HashSet<>()).over(defaults());
    for (String override : overrides) {
      merged = override(override).over(merged);
    }
    Entry stages = merged.entries().get(STAGES);
    if (stages == null) {
      RunConfig only = RecordBinder.bind(RunConfig.class, withTeacherModel(merged), whole);
      refusePrevious(only, whole, "");
      return new Recipe(Map.of("", only));
    }
    return staged(merged.without(STAGES), stages, whole);
  }

  /** Each stage laid over the rest of the config. */
  private static Recipe staged(Mapping top, Entry stages, Place whole) {
    if (!(stages.value() instanceof Mapping byName) || byName.entries().isEmpty()) {
      throw new ConfigException(
          stages.value().place(),
          STAGES,
          "must be sections, one for each stage under its name, in the order of training");
    }
    Map<String, RunConfig> configs = new LinkedHashMap<>();
    for (Map.Entry<String, Entry> stage : byName.entries().entrySet()) {
      String name = stage.getKey();
      Place place = stage.getValue().keyPlace();
      if (!STAGE_NAME.matcher(name).matches()) {
        throw new ConfigException(
            place,
            STAGES,
            "a stage's name is 1 to 40 letters, digits, '_' or '-'; got " + Values.quote(name));
      }
      String path = STAGES + "." + name;
      YamlNode value = stage.getValue().value();
      boolean empty = value instanceof Scalar scalar && scalar.isNull();
      if (!(value instanceof Mapping) && !empty) {
        throw new ConfigException(
            value.place(), path, "must be a section: the keys in which this stage is its own");
      }
      Mapping own = empty ? new Mapping(place, Map.of()) : (Mapping) value;
      for (Map.Entry<String, Entry> entry : own.entries().entrySet()) {
        if (OF_THE_RUN.contains(entry.getKey())) {
          throw new ConfigException(
              entry.getValue().keyPlace(),
              path + "." + entry.getKey(),
              "belongs to the run, not to a stage; write it at the top of the file");
        }
      }
      RunConfig config =
          RecordBinder.bind(RunConfig.class, withTeacherModel(own.over(top)), path, whole);
      if (configs.isEmpty()) {
        refusePrevious(config, place, path + ".");
      }
      configs.put(name, config);
    }
    return new Recipe(configs);
  }

  private static void refusePrevious(RunConfig first, Place place, String prefix) {
    if (first.start().from().equals(StartConfig.PREVIOUS)) {
      throw new ConfigException(
          place,
          prefix + "start.from",
          "is previous, but there is no stage before this one; name a file, or write nothing");
    }
  }

  /** Keys of {@code teacher.model} that are not given are those of the student's model. */
  private static Mapping withTeacherModel(Mapping config) {
    Entry teacher = config.entries().get("teacher");
    Entry model = config.entries().get("model");
    if (model == null
        || !(model.value() instanceof Mapping student)
        || teacher == null
        || !(teacher.value() instanceof Mapping section)
        || section.entries().get("model") == null
        || !(section.entries().get("model").value() instanceof Mapping own)) {
      return config;
    }
    Map<String, Entry> filled = new LinkedHashMap<>(section.entries());
    filled.put("model", new Entry(section.entries().get("model").keyPlace(), own.over(student)));
    Map<String, Entry> all = new LinkedHashMap<>(config.entries());
    all.put("teacher", new Entry(teacher.keyPlace(), new Mapping(section.place(), filled)));
    return new Mapping(config.place(), all);
  }

  /** All keys and values as YAML, defaults included; loads again to an equal recipe. */
  public static String resolvedYaml(Recipe recipe) {
    DumperOptions options = new DumperOptions();
    options.setDefaultFlowStyle(FlowStyle.BLOCK);
    options.setAllowUnicode(true);
    options.setWidth(Integer.MAX_VALUE);
    options.setSplitLines(false);
    StringWriter out = new StringWriter();
    new Yaml(options).serialize(recipe.staged() ? node(recipe) : node((Object) recipe.last()), out);
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

  /**
   * {@code file} over the file that it extends, and so on; of several files the later lie over the
   * earlier.
   */
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
    List<YamlNode> names =
        base.value() instanceof Sequence list ? list.items() : List.of(base.value());
    Mapping below = new Mapping(base.value().place(), Map.of());
    for (YamlNode node : names) {
      if (!(node instanceof Scalar name) || name.isNull() || !Values.isPrintable(name.text())) {
        throw new ConfigException(
            node.place(), EXTENDS, "must be the name of a file, or a list of such names");
      }
      Path next = file.resolveSibling(name.text()).normalize();
      below = withBases(next, name.place(), new HashSet<>(above)).over(below);
    }
    return own.without(EXTENDS).over(below);
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

  /** What is the same in all stages, then the rest of each under its name. */
  private static Node node(Recipe recipe) {
    List<NodeTuple> run = new ArrayList<>();
    List<NodeTuple> stages = new ArrayList<>();
    recipe
        .stages()
        .forEach(
            (name, config) -> {
              List<NodeTuple> own = new ArrayList<>();
              for (NodeTuple tuple : ((MappingNode) node((Object) config)).getValue()) {
                boolean ofTheRun =
                    OF_THE_RUN.contains(((ScalarNode) tuple.getKeyNode()).getValue());
                if (ofTheRun && stages.isEmpty()) {
                  run.add(tuple);
                } else if (!ofTheRun) {
                  own.add(tuple);
                }
              }
              stages.add(
                  new NodeTuple(
                      new ScalarNode(Tag.STR, name, null, null, ScalarStyle.DOUBLE_QUOTED),
                      new MappingNode(Tag.MAP, own, FlowStyle.BLOCK)));
            });
    run.add(
        new NodeTuple(scalar(Tag.STR, STAGES), new MappingNode(Tag.MAP, stages, FlowStyle.BLOCK)));
    return new MappingNode(Tag.MAP, run, FlowStyle.BLOCK);
  }

  private static Node node(Object value) {
    if (value instanceof Optional<?> optional) {
      return optional.isPresent() ? node(optional.get()) : scalar(Tag.STR, RecordBinder.NONE);
    }
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
