package bireal.tools;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ContainerNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.util.RawValue;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;

/** Random damage for {@link Fuzz}: of bytes, and of JSON with its structure known. */
public final class Mutation {
  /** What JSON, and half of YAML, is made of. */
  static final byte[] JSON_BYTES =
      "{}[]\",:0123456789-.eE \\u\0\n".getBytes(StandardCharsets.US_ASCII);

  private static final ObjectMapper MAPPER = new ObjectMapper();
  private static final Pattern KEY = Pattern.compile("\"[^\"\\\\]*\"\\s*:");

  /** Values at the edges of what a field may hold, as JSON text. */
  private static final List<String> VALUES =
      List.of(
          "null",
          "true",
          "-1",
          "0",
          "1",
          "-0.0",
          "0.5",
          "1e308",
          "1e999",
          "2147483647",
          "2147483648",
          "4294967314",
          "9223372036854775807",
          "9223372036854775808",
          "18446744073709551615",
          "1" + "0".repeat(60),
          "1" + "0".repeat(2000),
          "\"\"",
          "\"\\u0000\\u001b[31m\\n\"",
          "\"\\ud800\"",
          "\"../../etc/passwd\"",
          "\"" + "x".repeat(5000) + "\"",
          "[]",
          "{}",
          "[[[]]]",
          "NaN",
          "0x10",
          "01",
          "[1,2,3]",
          "{\"step\":1}");

  private Mutation() {}

  /** Flipped bits, other bytes, cuts, insertions and pieces twice, up to three of them. */
  static byte[] bytes(byte[] content, byte[] telling, Random random) {
    byte[] out = content.clone();
    int changes = 1 + random.nextInt(3);
    for (int i = 0; i < changes && out.length > 0; i++) {
      int at = random.nextInt(out.length);
      switch (random.nextInt(7)) {
        case 0 -> out[at] ^= (byte) (1 << random.nextInt(8));
        case 1 -> out[at] = (byte) random.nextInt(256);
        case 2, 3 -> out[at] = telling[random.nextInt(telling.length)];
        case 4 -> out = Arrays.copyOf(out, at);
        case 5 -> out = splice(out, at, new byte[] {telling[random.nextInt(telling.length)]});
        default ->
            out =
                splice(out, at, Arrays.copyOfRange(out, at, at + random.nextInt(out.length - at)));
      }
    }
    return out;
  }

  /**
   * Of a JSON object: a value becomes another, a field goes, comes twice or gets another name, what
   * is nested is nested very deeply, an array or object becomes very long.
   */
  static String json(JsonNode valid, Random random) {
    JsonNode root = valid.deepCopy();
    int changes = 1 + random.nextInt(2);
    for (int i = 0; i < changes; i++) {
      List<ContainerNode<?>> containers = new ArrayList<>();
      collect(root, containers);
      ContainerNode<?> at = containers.get(random.nextInt(containers.size()));
      if (at instanceof ArrayNode array) {
        change(array, random);
      } else {
        change((ObjectNode) at, random);
      }
    }
    String text;
    try {
      text = MAPPER.writeValueAsString(root);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return random.nextInt(20) == 0 ? duplicateKey(text, random) : text;
  }

  private static void collect(JsonNode node, List<ContainerNode<?>> found) {
    if (node instanceof ContainerNode<?> container) {
      found.add(container);
      node.forEach(child -> collect(child, found));
    }
  }

  private static void change(ArrayNode array, Random random) {
    int at = array.isEmpty() ? 0 : random.nextInt(array.size());
    switch (array.isEmpty() ? 0 : random.nextInt(4)) {
      case 0 -> array.insert(at, value(random));
      case 1 -> array.remove(at);
      default -> array.set(at, value(random));
    }
  }

  private static void change(ObjectNode object, Random random) {
    List<String> keys = new ArrayList<>();
    object.fieldNames().forEachRemaining(keys::add);
    if (keys.isEmpty()) {
      object.set("new", value(random));
      return;
    }
    String key = keys.get(random.nextInt(keys.size()));
    switch (random.nextInt(7)) {
      case 0 -> object.remove(key);
      case 1 -> object.set(name(random), object.remove(key));
      case 2 -> object.set(name(random), value(random));
      default -> object.set(key, value(random));
    }
  }

  private static String name(Random random) {
    return switch (random.nextInt(6)) {
      case 0 -> "";
      case 1 -> "\u001b[2J\n";
      case 2 -> "x".repeat(random.nextInt(3000));
      case 3 -> "__metadata__";
      case 4 -> "../x";
      default -> "k" + random.nextInt(10);
    };
  }

  private static JsonNode value(Random random) {
    String text =
        switch (random.nextInt(30)) {
          case 0 -> nested("[", "]", random.nextInt(20_000));
          case 1 -> nested("{\"a\":", "}", random.nextInt(20_000));
          case 2 -> "[" + "1,".repeat(random.nextInt(20_000)) + "1]";
          case 3 -> Long.toString(random.nextLong());
          case 4 -> Integer.toString(random.nextInt(1000));
          default -> VALUES.get(random.nextInt(VALUES.size()));
        };
    return JsonNodeFactory.instance.rawValueNode(new RawValue(text));
  }

  private static String nested(String open, String close, int depth) {
    return open.repeat(depth) + "1" + close.repeat(depth);
  }

  private static String duplicateKey(String text, Random random) {
    List<MatchResult> keys = new ArrayList<>(KEY.matcher(text).results().toList());
    if (keys.size() < 2) {
      return text;
    }
    Collections.shuffle(keys, random);
    return text.substring(0, keys.get(0).start())
        + keys.get(1).group()
        + text.substring(keys.get(0).end());
  }

  /** Rewrites a file in place: truncating it first costs ext4 a flush, 2 ms each time. */
  public static void rewrite(Path file, byte[] content) throws IOException {
    try (RandomAccessFile out = new RandomAccessFile(file.toFile(), "rw")) {
      out.write(content);
      out.setLength(content.length);
    }
  }

  static byte[] splice(byte[] content, int at, byte[] piece) {
    byte[] out = Arrays.copyOf(content, content.length + piece.length);
    System.arraycopy(piece, 0, out, at, piece.length);
    System.arraycopy(content, at, out, at + piece.length, content.length - at);
    return out;
  }
}
