package bireal.config;

import bireal.config.YamlNode.Entry;
import bireal.config.YamlNode.Mapping;
import bireal.config.YamlNode.Scalar;
import bireal.config.YamlNode.Sequence;
import java.io.IOException;
import java.io.InputStream;
import java.io.StringReader;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.yaml.snakeyaml.LoaderOptions;
import org.yaml.snakeyaml.Yaml;
import org.yaml.snakeyaml.error.Mark;
import org.yaml.snakeyaml.error.MarkedYAMLException;
import org.yaml.snakeyaml.error.YAMLException;
import org.yaml.snakeyaml.events.AliasEvent;
import org.yaml.snakeyaml.events.CollectionStartEvent;
import org.yaml.snakeyaml.events.DocumentStartEvent;
import org.yaml.snakeyaml.events.Event;
import org.yaml.snakeyaml.events.Event.ID;
import org.yaml.snakeyaml.events.NodeEvent;
import org.yaml.snakeyaml.events.ScalarEvent;
import org.yaml.snakeyaml.events.SequenceStartEvent;

/**
 * Reads the part of YAML that a config needs: one document of mappings, lists and scalars. Anchors,
 * aliases and tags are refused, so nothing can expand or be constructed; so are duplicate keys,
 * deep nesting and large files.
 */
final class YamlReader {
  /**
   * Our configs have 2 KB. The parser copies what it has read of a long text once for each further
   * kilobyte: 20 MB in all for 100 KB, 2 GB for 1 MB.
   */
  static final int MAX_BYTES = 100_000;

  static final int MAX_DEPTH = 16;
  private static final int LONGEST_PROBLEM = 300;

  private final Place whole;
  private final boolean lines;
  private final Iterator<Event> events;

  private YamlReader(String text, Place whole, boolean lines) {
    this.whole = whole;
    this.lines = lines;
    this.events = new Yaml(new LoaderOptions()).parse(new StringReader(text)).iterator();
  }

  /** The mapping in {@code file}; {@code blame} is where a file that cannot be read was named. */
  static Mapping file(Path file, Place blame) {
    byte[] bytes;
    try (InputStream in = Files.newInputStream(file)) {
      bytes = in.readNBytes(MAX_BYTES + 1);
    } catch (NoSuchFileException e) {
      throw new ConfigException(
          blame, "", "the config file " + file.toAbsolutePath() + " does not exist");
    } catch (IOException e) {
      throw new ConfigException(
          blame,
          "",
          Files.isDirectory(file)
              ? file + " is a folder; name a config file"
              : "cannot read the config file " + file + ": " + e);
    }
    Place whole = Place.of(file.toString());
    if (bytes.length > MAX_BYTES) {
      throw new ConfigException(
          whole, "", "larger than " + MAX_BYTES + " bytes, so hardly a config file");
    }
    try {
      String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
      return mapping(text, whole);
    } catch (CharacterCodingException e) {
      throw new ConfigException(whole, "", "not UTF-8 text; save the file as UTF-8");
    }
  }

  /** The mapping that {@code text} holds. */
  static Mapping mapping(String text, Place whole) {
    YamlNode node = new YamlReader(text, whole, true).document();
    if (node instanceof Mapping mapping) {
      return mapping;
    }
    if (node instanceof Scalar scalar && scalar.isNull()) {
      throw new ConfigException(whole, "", "empty; a config needs at least the required keys");
    }
    throw new ConfigException(node.place(), "", "a config is a mapping of 'key: value' lines");
  }

  /** The value that {@code text} holds, with {@code place} as the place of all of it. */
  static YamlNode value(String text, Place place) {
    return new YamlReader(text, place, false).document();
  }

  private YamlNode document() {
    try {
      next(); // start of the stream
      Event event = next();
      if (!(event instanceof DocumentStartEvent)) {
        return new Scalar(whole, "", true);
      }
      YamlNode node = node(next(), 0);
      next(); // end of the document
      event = next();
      if (event.is(ID.DocumentStart)) {
        throw new ConfigException(
            place(event), "", "a second YAML document; a config is one document without '---'");
      }
      return node;
    } catch (MarkedYAMLException e) {
      Mark mark = e.getProblemMark();
      String context = e.getContext() == null ? "" : e.getContext() + ": ";
      throw notYaml(mark == null ? whole : place(mark), context + e.getProblem());
    } catch (YAMLException e) {
      throw notYaml(whole, e.getMessage());
    }
  }

  /** {@code problem} quotes the file, of which anything may be a part. */
  private static ConfigException notYaml(Place place, String problem) {
    String line = problem.replace('\n', ' ');
    return new ConfigException(
        place, "", "not valid YAML: " + Values.printable(line, LONGEST_PROBLEM));
  }

  private Event next() {
    return events.next();
  }

  private YamlNode node(Event event, int depth) {
    Place place = place(event);
    refuseFeatures(event, place);
    if (depth > MAX_DEPTH) {
      throw new ConfigException(place, "", "nested deeper than " + MAX_DEPTH + " levels");
    }
    if (event instanceof ScalarEvent scalar) {
      return new Scalar(place, scalar.getValue(), scalar.isPlain());
    }
    if (event instanceof SequenceStartEvent) {
      List<YamlNode> items = new ArrayList<>();
      for (Event item = next(); !item.is(ID.SequenceEnd); item = next()) {
        items.add(node(item, depth + 1));
      }
      return new Sequence(place, List.copyOf(items));
    }
    Map<String, Entry> entries = new LinkedHashMap<>();
    for (Event key = next(); !key.is(ID.MappingEnd); key = next()) {
      Place keyPlace = place(key);
      if (!(node(key, depth + 1) instanceof Scalar name)) {
        throw new ConfigException(keyPlace, "", "a key must be a word, not a list or a section");
      }
      Entry entry = new Entry(keyPlace, node(next(), depth + 1));
      Entry first = entries.putIfAbsent(name.text(), entry);
      if (first != null) {
        throw new ConfigException(
            keyPlace,
            Values.quote(name.text()),
            "stands here a second time (first: " + first.keyPlace() + "); remove one of the two");
      }
    }
    return new Mapping(place, entries);
  }

  private static void refuseFeatures(Event event, Place place) {
    String feature = null;
    if (event instanceof AliasEvent) {
      feature = "an alias (*name)";
    } else if (event instanceof NodeEvent node && node.getAnchor() != null) {
      feature = "an anchor (&name)";
    } else if ((event instanceof ScalarEvent scalar && scalar.getTag() != null)
        || (event instanceof CollectionStartEvent collection && collection.getTag() != null)) {
      feature = "a tag (!name)";
    }
    if (feature != null) {
      throw new ConfigException(
          place,
          "",
          feature + " is not allowed in a config; write the value out, or use 'extends: FILE'");
    }
  }

  private Place place(Event event) {
    return place(event.getStartMark());
  }

  private Place place(Mark mark) {
    return lines
        ? new Place(whole.source(), mark.getLine() + 1, mark.getColumn() + 1, whole.builtIn())
        : whole;
  }
}
