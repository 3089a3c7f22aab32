package bireal.train;

import static bireal.train.CheckpointException.quote;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.exc.InputCoercionException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * A safetensors file, open for reading: the header is checked in full on opening, tensors are read
 * by name when asked for. Owned and closed by whoever opened it; one thread at a time.
 *
 * <p>Format (github.com/huggingface/safetensors, README "Format"): 8 bytes little-endian header
 * length; the header, a JSON object name -> {dtype, shape, data_offsets [begin, end)} with an
 * optional "__metadata__" of strings; the tensors' bytes without gaps, offsets counted from the end
 * of the header.
 */
public final class Safetensors implements AutoCloseable {
  /** The reference implementation's cap; a header of 10,000 tensors has about 1 MB. */
  public static final long MAX_HEADER_BYTES = 100_000_000;

  /** Bytes of an element of each dtype. 16-bit and smaller floats are handed out as raw bytes. */
  static final Map<String, Integer> ELEMENT_BYTES = elementBytes();

  private static final String METADATA = "__metadata__";
  private static final int LENGTH_BYTES = 8;
  private static final int HEADER_ALIGNMENT = 8;
  private static final int MAX_RANK = 32;

  /**
   * Heap buffers are read and written in pieces of this size: the JDK copies each piece through a
   * direct buffer of its size, which it then keeps for the life of the thread.
   */
  private static final int PIECE_BYTES = 1 << 20;

  private static final String DAMAGED = "the file is damaged or not safetensors: get it again";

  private final Path file;
  private final FileChannel channel;
  private final Header header;

  /** What a file as written holds. */
  public record Written(long bytes, String sha256) {}

  /** One tensor of the header; offsets as in the file. */
  private static final class Entry {
    final String dtype;
    final long[] shape;
    final long begin;
    final long end;

    Entry(String dtype, long[] shape, long begin, long end) {
      this.dtype = dtype;
      this.shape = shape;
      this.begin = begin;
      this.end = end;
    }

    long bytes() {
      return end - begin;
    }
  }

  private record Header(long dataStart, Map<String, Entry> entries, Map<String, String> metadata) {}

  private Safetensors(Path file, FileChannel channel, Header header) {
    this.file = file;
    this.channel = channel;
    this.header = header;
  }

  private static Map<String, Integer> elementBytes() {
    Map<String, Integer> bytes = new LinkedHashMap<>();
    for (String dtype : List.of("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2")) {
      bytes.put(dtype, 1);
    }
    for (String dtype : List.of("I16", "U16", "F16", "BF16")) {
      bytes.put(dtype, 2);
    }
    for (String dtype : List.of("I32", "U32", "F32")) {
      bytes.put(dtype, 4);
    }
    for (String dtype : List.of("I64", "U64", "F64")) {
      bytes.put(dtype, 8);
    }
    return Collections.unmodifiableMap(bytes);
  }

  /** Opens and checks a file; throws CheckpointException naming file, tensor and what is wrong. */
  public static Safetensors open(Path file) {
    try {
      if (Files.exists(file) && !Files.isRegularFile(file)) { // a pipe would block
        throw CheckpointException.at(
            file, "file", "something else", "a regular file", "name a safetensors file");
      }
      FileChannel channel = FileChannel.open(file, StandardOpenOption.READ);
      try {
        return new Safetensors(file, channel, readHeader(file, channel));
      } catch (IOException | RuntimeException e) {
        channel.close();
        throw e;
      }
    } catch (NoSuchFileException e) {
      throw new CheckpointException(file + ": no such file; correct the path", e);
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  /** As it was given to {@link #open}. */
  public Path path() {
    return file;
  }

  /** In the order of their bytes in the file. */
  public Set<String> names() {
    return Collections.unmodifiableSet(header.entries.keySet());
  }

  /** The strings of "__metadata__", empty if there are none. */
  public Map<String, String> metadata() {
    return Collections.unmodifiableMap(header.metadata);
  }

  public String dtype(String name) {
    return entry(name).dtype;
  }

  public long[] shape(String name) {
    return entry(name).shape.clone();
  }

  public long bytes(String name) {
    return entry(name).bytes();
  }

  /** Reads a tensor into the heap; throws CheckpointException if it is absent or beyond 2 GB. */
  public NamedTensor read(String name) {
    Entry entry = entry(name);
    if (entry.bytes() > Integer.MAX_VALUE) {
      throw CheckpointException.at(
          file,
          "tensor " + quote(name),
          entry.bytes() + " bytes",
          "at most " + Integer.MAX_VALUE + " in one tensor",
          "split the tensor");
    }
    ByteBuffer data = ByteBuffer.allocate((int) entry.bytes()).order(ByteOrder.LITTLE_ENDIAN);
    read(name, data);
    return new NamedTensor(name, entry.dtype, entry.shape, data.flip());
  }

  /**
   * Fills {@code into}, direct or not, from position to limit, which must be the tensor's bytes
   * (else IllegalArgumentException); its position is then its limit.
   */
  public void read(String name, ByteBuffer into) {
    Entry entry = entry(name);
    if (into.remaining() != entry.bytes()) {
      throw new IllegalArgumentException(
          "tensor "
              + quote(name)
              + " has "
              + entry.bytes()
              + " bytes, the buffer "
              + into.remaining());
    }
    try {
      readFully(channel, into, header.dataStart + entry.begin);
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  @Override
  public void close() {
    try {
      channel.close();
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  /**
   * Writes a new file and makes its content durable; fails with FileAlreadyExistsException if there
   * is one. The bytes depend on the arguments only. Throws IllegalArgumentException if a name
   * occurs twice or is reserved.
   */
  public static Written write(Path file, List<NamedTensor> tensors, Map<String, String> metadata)
      throws IOException {
    byte[] header = header(tensors, metadata);
    MessageDigest sha256 = sha256();
    long bytes = 0;
    try (FileChannel out =
        FileChannel.open(file, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
      ByteBuffer length = ByteBuffer.allocate(LENGTH_BYTES).order(ByteOrder.LITTLE_ENDIAN);
      bytes += append(out, sha256, length.putLong(0, header.length));
      bytes += append(out, sha256, ByteBuffer.wrap(header));
      for (NamedTensor tensor : tensors) {
        bytes += append(out, sha256, tensor.data());
      }
      out.force(true);
    }
    return new Written(bytes, HexFormat.of().formatHex(sha256.digest()));
  }

  private static long append(FileChannel out, MessageDigest sha256, ByteBuffer data)
      throws IOException {
    long bytes = data.remaining();
    while (data.hasRemaining()) {
      ByteBuffer piece = nextPiece(data);
      sha256.update(piece.duplicate());
      while (piece.hasRemaining()) {
        out.write(piece);
      }
      data.position(data.position() + piece.position());
    }
    return bytes;
  }

  private static byte[] header(List<NamedTensor> tensors, Map<String, String> metadata)
      throws IOException {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    Set<String> names = new HashSet<>();
    long offset = 0;
    try (JsonGenerator json = StrictJson.FACTORY.createGenerator(out)) {
      json.writeStartObject();
      if (!metadata.isEmpty()) {
        json.writeObjectFieldStart(METADATA);
        for (Map.Entry<String, String> entry : new TreeMap<>(metadata).entrySet()) {
          json.writeStringField(entry.getKey(), entry.getValue());
        }
        json.writeEndObject();
      }
      for (NamedTensor tensor : tensors) {
        String name = tensor.name();
        if (name.equals(METADATA) || !names.add(name)) {
          throw new IllegalArgumentException(
              "tensor name " + quote(name) + (names.contains(name) ? " twice" : " is reserved"));
        }
        json.writeObjectFieldStart(name);
        json.writeStringField("dtype", tensor.dtype());
        json.writeFieldName("shape");
        long[] shape = tensor.shape();
        json.writeArray(shape, 0, shape.length);
        long end = Math.addExact(offset, tensor.data().remaining());
        json.writeFieldName("data_offsets");
        json.writeArray(new long[] {offset, end}, 0, 2);
        json.writeEndObject();
        offset = end;
      }
      json.writeEndObject();
    }
    while (out.size() % HEADER_ALIGNMENT != 0) {
      out.write(' ');
    }
    if (out.size() > MAX_HEADER_BYTES) {
      throw new IllegalArgumentException(
          "header must have at most " + MAX_HEADER_BYTES + " bytes, got " + out.size());
    }
    return out.toByteArray();
  }

  /** Nothing is allocated for the header before its length is known to lie inside the file. */
  private static Header readHeader(Path file, FileChannel channel) throws IOException {
    long fileBytes = channel.size();
    if (fileBytes < LENGTH_BYTES) {
      throw CheckpointException.at(
          file, "file", fileBytes + " bytes", "at least " + LENGTH_BYTES, DAMAGED);
    }
    ByteBuffer prefix = ByteBuffer.allocate(LENGTH_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    readFully(channel, prefix, 0);
    long headerBytes = prefix.getLong(0);
    if (headerBytes < 0 || headerBytes > MAX_HEADER_BYTES) { // negative: 2^63 and more
      throw CheckpointException.at(
          file,
          "header length",
          Long.toUnsignedString(headerBytes),
          "at most " + MAX_HEADER_BYTES,
          DAMAGED);
    }
    long dataBytes = fileBytes - LENGTH_BYTES - headerBytes;
    if (dataBytes < 0) {
      throw CheckpointException.at(
          file,
          "header length",
          Long.toString(headerBytes),
          "at most the " + (fileBytes - LENGTH_BYTES) + " bytes that follow it",
          DAMAGED);
    }
    byte[] text = new byte[(int) headerBytes];
    readFully(channel, ByteBuffer.wrap(text), LENGTH_BYTES);
    if (text.length == 0 || text[0] != '{') {
      throw CheckpointException.at(
          file,
          "header",
          text.length == 0 ? "nothing" : "first byte 0x" + Integer.toHexString(text[0] & 0xff),
          "'{'",
          DAMAGED);
    }
    HeaderParser parser = new HeaderParser(file);
    parser.parse(text);
    return new Header(LENGTH_BYTES + headerBytes, parser.inFileOrder(dataBytes), parser.metadata);
  }

  /** One pass over the header's tokens; {@code place} is where it is, for messages. */
  private static final class HeaderParser {
    private final Path file;
    private final Map<String, Entry> entries = new LinkedHashMap<>();
    private final Map<String, String> metadata = new LinkedHashMap<>();
    private String place = "header";

    HeaderParser(Path file) {
      this.file = file;
    }

    void parse(byte[] text) throws IOException {
      String decoded;
      try {
        decoded = StrictJson.decode(text);
      } catch (IOException e) {
        throw bad(e.getMessage(), "UTF-8");
      }
      try (JsonParser json = StrictJson.FACTORY.createParser(decoded)) {
        expect(json.nextToken(), JsonToken.START_OBJECT, "an object");
        while (json.nextToken() == JsonToken.FIELD_NAME) {
          String name = json.currentName();
          if (name.equals(METADATA)) {
            parseMetadata(json);
          } else {
            place = "tensor " + quote(name);
            entries.put(name, parseEntry(json));
          }
          place = "header";
        }
        if (json.nextToken() != null) {
          throw bad("further JSON after the object", "only spaces");
        }
      } catch (JsonProcessingException e) {
        throw bad(StrictJson.explain(e), "valid JSON without duplicate keys");
      }
    }

    private void parseMetadata(JsonParser json) throws IOException {
      place = METADATA;
      expect(json.nextToken(), JsonToken.START_OBJECT, "an object");
      while (json.nextToken() == JsonToken.FIELD_NAME) {
        String key = json.currentName();
        place = METADATA + " key " + quote(key);
        expect(json.nextToken(), JsonToken.VALUE_STRING, "a string");
        metadata.put(key, json.getText());
      }
    }

    private Entry parseEntry(JsonParser json) throws IOException {
      String dtype = null;
      long[] shape = null;
      long[] offsets = null;
      expect(json.nextToken(), JsonToken.START_OBJECT, "an object");
      while (json.nextToken() == JsonToken.FIELD_NAME) {
        String key = json.currentName();
        json.nextToken();
        switch (key) {
          case "dtype" -> {
            expect(json.currentToken(), JsonToken.VALUE_STRING, "a string as dtype");
            dtype = json.getText();
          }
          case "shape" -> shape = parseCounts(json, "shape");
          case "data_offsets" -> offsets = parseCounts(json, "data_offsets");
          default -> throw bad("key " + quote(key), "dtype, shape and data_offsets");
        }
      }
      if (dtype == null || shape == null || offsets == null) {
        String missing = dtype == null ? "dtype" : shape == null ? "shape" : "data_offsets";
        throw bad("no " + missing, "dtype, shape and data_offsets");
      }
      Integer elementBytes = ELEMENT_BYTES.get(dtype);
      if (elementBytes == null) {
        throw bad("dtype " + quote(dtype), "one of " + ELEMENT_BYTES.keySet());
      }
      if (offsets.length != 2 || offsets[0] > offsets[1]) {
        throw bad("data_offsets " + Arrays.toString(offsets), "[begin, end], begin <= end");
      }
      long bytes = bytes(shape, elementBytes);
      if (bytes < 0) {
        throw bad("shape " + Arrays.toString(shape), "a product below 2^63 bytes");
      }
      if (bytes != offsets[1] - offsets[0]) {
        throw bad(
            "data_offsets "
                + Arrays.toString(offsets)
                + ", "
                + (offsets[1] - offsets[0])
                + " bytes",
            bytes + " bytes for " + dtype + " " + Arrays.toString(shape));
      }
      return new Entry(dtype, shape, offsets[0], offsets[1]);
    }

    private long[] parseCounts(JsonParser json, String key) throws IOException {
      expect(json.currentToken(), JsonToken.START_ARRAY, "an array as " + key);
      long[] counts = new long[MAX_RANK];
      int used = 0;
      while (json.nextToken() != JsonToken.END_ARRAY) {
        expect(json.currentToken(), JsonToken.VALUE_NUMBER_INT, "whole numbers in " + key);
        if (used == MAX_RANK) {
          throw bad("more than " + MAX_RANK + " numbers in " + key, "at most " + MAX_RANK);
        }
        long count;
        try {
          count = json.getLongValue();
        } catch (InputCoercionException e) {
          throw bad(quote(json.getText()) + " in " + key, "numbers below 2^63");
        }
        if (count < 0) {
          throw bad(count + " in " + key, "numbers >= 0");
        }
        counts[used++] = count;
      }
      return Arrays.copyOf(counts, used);
    }

    /** Checks that the tensors cover the data without gap or overlap. */
    Map<String, Entry> inFileOrder(long dataBytes) {
      List<Map.Entry<String, Entry>> sorted = new ArrayList<>(entries.entrySet());
      sorted.sort(
          Comparator.comparingLong((Map.Entry<String, Entry> e) -> e.getValue().begin)
              .thenComparingLong(e -> e.getValue().end));
      Map<String, Entry> ordered = new LinkedHashMap<>();
      long covered = 0;
      for (Map.Entry<String, Entry> named : sorted) {
        Entry entry = named.getValue();
        place = "tensor " + quote(named.getKey());
        if (entry.end > dataBytes) {
          throw bad(
              "end at byte " + entry.end,
              "at most the " + dataBytes + " bytes of data in the file");
        }
        if (entry.begin != covered) {
          throw bad(
              "begin at byte " + entry.begin,
              covered
                  + (entry.begin < covered
                      ? ", the end of the tensor before it (they overlap)"
                      : ", the end of the tensor before it (a hole lies between)"));
        }
        covered = entry.end;
        ordered.put(named.getKey(), entry);
      }
      place = "data";
      if (covered != dataBytes) {
        throw bad(dataBytes + " bytes", covered + " (the end of the last tensor)");
      }
      return ordered;
    }

    private void expect(JsonToken found, JsonToken wanted, String what) {
      if (found != wanted) {
        throw bad(String.valueOf(found), what);
      }
    }

    private CheckpointException bad(String found, String expected) {
      return CheckpointException.at(file, place, found, expected, DAMAGED);
    }
  }

  /** Bytes of a dense tensor, -1 if a dimension is negative or the product overflows. */
  static long bytes(long[] shape, int elementBytes) {
    try {
      long bytes = elementBytes;
      for (long dim : shape) {
        if (dim < 0) {
          return -1;
        }
        bytes = Math.multiplyExact(bytes, dim);
      }
      return bytes;
    } catch (ArithmeticException e) {
      return -1;
    }
  }

  static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java platform has SHA-256", e);
    }
  }

  private Entry entry(String name) {
    Entry entry = header.entries.get(name);
    if (entry == null) {
      throw CheckpointException.at(
          file,
          "tensor " + quote(name),
          "no such tensor among " + header.entries.size(),
          "it to be there",
          "use a file of the same network");
    }
    return entry;
  }

  private static ByteBuffer nextPiece(ByteBuffer data) {
    return data.slice(data.position(), Math.min(PIECE_BYTES, data.remaining()));
  }

  private static void readFully(FileChannel channel, ByteBuffer into, long position)
      throws IOException {
    long at = position;
    while (into.hasRemaining()) {
      int count = channel.read(nextPiece(into), at);
      if (count < 0) {
        throw new IOException("the file ends at byte " + at + "; it was cut while being read");
      }
      at += count;
      into.position(into.position() + count);
    }
  }

  private static CheckpointException unreadable(Path file, IOException e) {
    return new CheckpointException(
        file + ": cannot be read (" + e + "); check the disk and the permissions", e);
  }
}
