package bireal.train;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.util.DefaultIndenter;
import com.fasterxml.jackson.core.util.DefaultPrettyPrinter;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;

/**
 * JSON as the files of a run use it: UTF-8, one object, no duplicate keys, nothing after it,
 * bounded nesting. Written text depends on nothing but the node.
 */
final class StrictJson {
  /**
   * Names are not put into Jackson's symbol table: a hostile file can fill it, and each file is
   * read once.
   */
  static final JsonFactory FACTORY =
      JsonFactory.builder()
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
          .streamReadConstraints(
              StreamReadConstraints.builder().maxNestingDepth(64).maxNumberLength(64).build())
          .build();

  private static final ObjectMapper MAPPER =
      new ObjectMapper(FACTORY).enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  private StrictJson() {}

  static ObjectNode newObject() {
    return JsonNodeFactory.instance.objectNode();
  }

  /** Throws IOException saying what is wrong and where, in one line. */
  static ObjectNode parseObject(byte[] utf8) throws IOException {
    try {
      JsonNode node = MAPPER.readTree(decode(utf8));
      if (node instanceof ObjectNode object) {
        return object;
      }
      throw new IOException("not a JSON object");
    } catch (JsonProcessingException e) {
      throw new IOException(explain(e), e);
    }
  }

  /** Jackson guesses the encoding from the first bytes; JSON in files is UTF-8. */
  static String decode(byte[] utf8) throws IOException {
    try {
      return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(utf8)).toString();
    } catch (CharacterCodingException e) {
      throw new IOException("bytes that are not UTF-8", e);
    }
  }

  /** Parser message and place without the source snippet. */
  static String explain(JsonProcessingException e) {
    String message = CheckpointException.quote(e.getOriginalMessage());
    return e.getLocation() == null
        ? message
        : message
            + " at line "
            + e.getLocation().getLineNr()
            + ", column "
            + e.getLocation().getColumnNr();
  }

  /** For files that people read: indented, LF on every system, ends with LF. */
  static byte[] pretty(ObjectNode node) throws IOException {
    DefaultIndenter indenter = new DefaultIndenter("  ", "\n");
    DefaultPrettyPrinter printer =
        new DefaultPrettyPrinter().withObjectIndenter(indenter).withArrayIndenter(indenter);
    return (MAPPER.writer(printer).writeValueAsString(node) + "\n")
        .getBytes(StandardCharsets.UTF_8);
  }

  /** One line, ends with LF. */
  static byte[] line(ObjectNode node) throws IOException {
    return (MAPPER.writeValueAsString(node) + "\n").getBytes(StandardCharsets.UTF_8);
  }
}
