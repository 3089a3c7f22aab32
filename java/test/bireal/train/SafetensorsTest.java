package bireal.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

class SafetensorsTest {
  @TempDir Path temp;

  private Path write(byte[] content) throws IOException {
    Path file = temp.resolve("in.safetensors");
    Files.write(file, content);
    return file;
  }

  /** A file from a header text and a number of data bytes 0, 1, 2, ... */
  static byte[] file(String header, int dataBytes) {
    byte[] text = header.getBytes(StandardCharsets.UTF_8);
    ByteBuffer out =
        ByteBuffer.allocate(8 + text.length + dataBytes).order(ByteOrder.LITTLE_ENDIAN);
    out.putLong(text.length).put(text);
    for (int i = 0; i < dataBytes; i++) {
      out.put((byte) i);
    }
    return out.array();
  }

  @Test
  void whatIsWrittenIsReadBack() throws Exception {
    ByteBuffer shorts = ByteBuffer.allocateDirect(4).order(ByteOrder.LITTLE_ENDIAN);
    shorts.putShort((short) -2).putShort((short) 300).flip();
    float[] odd = {-0.0f, Float.NaN, Float.POSITIVE_INFINITY, Float.MIN_VALUE, 1e30f, -1.5f};
    List<NamedTensor> tensors =
        List.of(
            NamedTensor.ofFloats("layer1.weight", new long[] {2, 1, 3}, odd),
            NamedTensor.ofLongs("bn.num_batches_tracked", new long[] {}, Long.MIN_VALUE),
            new NamedTensor("short", "I16", new long[] {2}, shorts),
            NamedTensor.ofFloats("empty", new long[] {0, 7}),
            new NamedTensor("é \"quoted\"", "BF16", new long[] {1}, raw(2)),
            new NamedTensor("byte", "U8", new long[] {3}, raw(3)));
    Path file = temp.resolve("out.safetensors");
    Safetensors.Written written =
        Safetensors.write(file, tensors, Map.of("format", "pt", "a", "b"));

    byte[] content = Files.readAllBytes(file);
    assertEquals(content.length, written.bytes());
    assertEquals(
        HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content)),
        written.sha256());
    assertEquals(
        0, ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN).getLong() % 8, "data alignment");
    try (Safetensors in = Safetensors.open(file)) {
      assertEquals(tensors.stream().map(NamedTensor::name).toList(), List.copyOf(in.names()));
      assertEquals(Map.of("format", "pt", "a", "b"), in.metadata());
      for (NamedTensor tensor : tensors) {
        assertEquals(tensor, in.read(tensor.name()));
      }
      float[] back = in.read("layer1.weight").floats();
      for (int i = 0; i < odd.length; i++) {
        assertEquals(Float.floatToRawIntBits(odd[i]), Float.floatToRawIntBits(back[i]));
      }
      assertArrayEquals(new long[] {Long.MIN_VALUE}, in.read("bn.num_batches_tracked").longs());
    }
  }

  private static ByteBuffer raw(int bytes) {
    ByteBuffer data = ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < bytes; i++) {
      data.put((byte) (200 + i));
    }
    return data.flip();
  }

  @Test
  void theBytesOfAFileAreThoseOfTheFormat() throws Exception {
    Path file = temp.resolve("out.safetensors");
    Safetensors.write(
        file, List.of(NamedTensor.ofFloats("w", new long[] {1, 2}, 1f, -2f)), Map.of("k", "v"));
    String header =
        "{\"__metadata__\":{\"k\":\"v\"},"
            + "\"w\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}";
    int padded = (header.length() + 7) / 8 * 8;
    String expected =
        HexFormat.of().withUpperCase().toHexDigits((byte) padded)
            + "00000000000000"
            + HexFormat.of().withUpperCase().formatHex(header.getBytes(StandardCharsets.UTF_8))
            + "20".repeat(padded - header.length())
            + "0000803F"
            + "000000C0";
    assertEquals(expected, HexFormat.of().withUpperCase().formatHex(Files.readAllBytes(file)));
  }

  @Test
  void aFileMadeByHandIsRead() throws Exception {
    // Header keys in another order than the data, spaces anywhere, a dtype of no use to us.
    String header =
        " {\"b\": {\"data_offsets\":[4,12], \"shape\":[2,1],\"dtype\":\"F32\"} ,"
            + "\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}}   ";
    byte[] bytes = file(header.strip() + "  ", 12);
    int data = bytes.length - 12;
    byte[] floats = {0, 0, (byte) 0x80, 0x3f, 0, 0, 0x20, (byte) 0xc1}; // 1.0, -10.0
    System.arraycopy(floats, 0, bytes, data + 4, 8);
    try (Safetensors in = Safetensors.open(write(bytes))) {
      assertEquals(List.of("a", "b"), List.copyOf(in.names()));
      assertArrayEquals(new long[] {2, 1}, in.shape("b"));
      assertEquals("F8_E4M3", in.dtype("a"));
      assertEquals(8, in.bytes("b"));
      assertArrayEquals(new float[] {1f, -10f}, in.read("b").floats());
      ByteBuffer direct = ByteBuffer.allocateDirect(4);
      in.read("a", direct);
      assertEquals(ByteBuffer.wrap(new byte[] {0, 1, 2, 3}), direct.flip());
      assertThrows(IllegalArgumentException.class, () -> in.read("a", ByteBuffer.allocate(5)));
      String message = assertThrows(CheckpointException.class, () -> in.read("c")).getMessage();
      assertTrue(message.contains("in.safetensors: tensor 'c'"), message);
    }
  }

  @Test
  void aFileWithoutTensorsIsRead() throws Exception {
    try (Safetensors in = Safetensors.open(write(file("{}", 0)))) {
      assertTrue(in.names().isEmpty());
    }
  }

  static Stream<Arguments> malformedFiles() {
    String a = "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}";
    return Stream.of(
        Arguments.of("no bytes", new byte[0], "file: found 0 bytes"),
        Arguments.of("cut in the length", new byte[7], "file: found 7 bytes"),
        Arguments.of("length only", new byte[8], "header: found nothing"),
        Arguments.of("length past the end", length(3, "{}"), "header length: found 3"),
        Arguments.of("length over the cap", length(100_000_001, "{}"), "at most 100000000"),
        Arguments.of("length 2^63", length(1L << 63, "{}"), "found 9223372036854775808"),
        Arguments.of("length 2^64 - 1", length(-1, "{}"), "found 18446744073709551615"),
        Arguments.of("length within the cap, not the file", length(99_000_000, "{}"), "99000000"),
        Arguments.of("an array", file("[]", 0), "first byte 0x5b"),
        Arguments.of("a space first", file(" {}", 0), "first byte 0x20"),
        Arguments.of("a zip", file("PK\u0003\u0004", 0), "first byte 0x50"),
        Arguments.of("not closed", file("{" + a, 4), "header: found"),
        Arguments.of("cut in a tensor", file("{\"a\":{\"dtype\":", 4), "tensor 'a': found"),
        Arguments.of("text after it", file("{} x", 0), "header: found"),
        Arguments.of("a second object", file("{}{}", 0), "header: found further JSON"),
        Arguments.of("NULs after it", file("{}\0\0", 0), "header: found"),
        Arguments.of("not UTF-8", patched(file("{\"aé\":{}}", 0), 12), "not UTF-8"),
        Arguments.of("a tensor twice", file("{" + a + "," + a + "}", 4), "Duplicate field"),
        Arguments.of("a key twice", tensor("'dtype':'F32','dtype':'F32'", 4), "Duplicate field"),
        Arguments.of("a comment", file("{/**/}", 0), "header: found"),
        Arguments.of("nested deeply", file("{\"a\":" + "[".repeat(100_000), 0), "tensor 'a'"),
        Arguments.of(
            "objects nested deeply", file("{\"a\":{\"b\":".repeat(50_000), 0), "tensor 'a'"),
        Arguments.of("a tensor that is a number", file("{\"a\":1}", 0), "tensor 'a': found"),
        Arguments.of("a tensor that is null", file("{\"a\":null}", 0), "tensor 'a': found"),
        Arguments.of("no dtype", tensor("'shape':[1],'data_offsets':[0,4]", 4), "no dtype"),
        Arguments.of("no shape", tensor("'dtype':'F32','data_offsets':[0,4]", 4), "no shape"),
        Arguments.of("no offsets", tensor("'dtype':'F32','shape':[1]", 4), "no data_offsets"),
        Arguments.of("a further key", tensor(good("F32", "1", "0,4") + ",'x':1", 4), "key 'x'"),
        Arguments.of("dtype f32", tensor(good("f32", "1", "0,4"), 4), "dtype 'f32'"),
        Arguments.of("dtype empty", tensor(good("", "1", "0,4"), 4), "dtype ''"),
        Arguments.of(
            "dtype a number",
            tensor("'dtype':1,'shape':[1],'data_offsets':[0,4]", 4),
            "a string as dtype"),
        Arguments.of(
            "shape a number",
            tensor("'dtype':'F32','shape':1,'data_offsets':[0,4]", 4),
            "an array as shape"),
        Arguments.of("a negative dimension", tensor(good("F32", "-1", "0,4"), 4), "-1 in shape"),
        Arguments.of(
            "two negative dimensions", tensor(good("F32", "-1,-1", "0,4"), 4), "-1 in shape"),
        Arguments.of("a fraction", tensor(good("F32", "1.0", "0,4"), 4), "whole numbers in shape"),
        Arguments.of("an exponent", tensor(good("F32", "1e0", "0,4"), 4), "whole numbers"),
        Arguments.of("a string as dimension", tensor(good("F32", "'1'", "0,4"), 4), "whole"),
        Arguments.of("a leading zero", tensor(good("F32", "01", "0,4"), 4), "tensor 'a': found"),
        Arguments.of(
            "a dimension of 2^63", tensor(good("F32", "9223372036854775808", "0,4"), 4), "2^63"),
        Arguments.of(
            "a long number", tensor(good("F32", "1".repeat(5000), "0,4"), 4), "tensor 'a'"),
        Arguments.of(
            "a product of 2^64", tensor(good("F32", "4294967296,4294967296", "0,0"), 0), "product"),
        Arguments.of(
            "a product that wraps to the right size",
            tensor(good("F32", "4611686018427387905,4", "0,16"), 16),
            "product"),
        Arguments.of(
            "a product of 0 that overflows before",
            tensor(good("F32", "4294967296,4294967296,0", "0,0"), 0),
            "product"),
        Arguments.of(
            "33 dimensions",
            tensor(good("F32", "1,".repeat(32) + "1", "0,4"), 4),
            "more than 32 numbers"),
        Arguments.of("one offset", tensor(good("F32", "1", "4"), 4), "data_offsets [4]"),
        Arguments.of("three offsets", tensor(good("F32", "1", "0,4,4"), 4), "[0, 4, 4]"),
        Arguments.of("reversed offsets", tensor(good("F32", "1", "4,0"), 4), "[4, 0]"),
        Arguments.of("a negative offset", tensor(good("F32", "1", "-4,0"), 4), "-4 in data"),
        Arguments.of("offsets of another size", tensor(good("F32", "1", "0,8"), 8), "8 bytes"),
        Arguments.of(
            "offsets whose difference overflows",
            tensor(good("F32", "1", "0,9223372036854775807"), 4),
            "9223372036854775807 bytes"),
        Arguments.of("data cut off", tensor(good("F32", "1", "0,4"), 3), "the 3 bytes of data"),
        Arguments.of("data left over", tensor(good("F32", "1", "0,4"), 5), "data: found 5 bytes"),
        Arguments.of("a hole at the start", tensor(good("F32", "1", "4,8"), 8), "a hole"),
        Arguments.of(
            "a hole between",
            file("{" + a + ",\"b\":" + a.substring(4).replace("0,4", "8,12") + "}", 12),
            "tensor 'b': found begin at byte 8"),
        Arguments.of(
            "an overlap",
            file("{" + a + ",\"b\":" + a.substring(4).replace("0,4", "2,6") + "}", 6),
            "overlap"),
        Arguments.of(
            "the same bytes twice", file("{" + a + ",\"b\":" + a.substring(4) + "}", 4), "overlap"),
        Arguments.of("data without a tensor", file("{}", 4), "data: found 4 bytes"),
        Arguments.of("metadata an array", file("{\"__metadata__\":[]}", 0), "__metadata__"),
        Arguments.of(
            "metadata a number", file("{\"__metadata__\":{\"k\":1}}", 0), "__metadata__ key 'k'"),
        Arguments.of(
            "metadata twice",
            file("{\"__metadata__\":{},\"__metadata__\":{}}", 0),
            "Duplicate field"));
  }

  private static String good(String dtype, String shape, String offsets) {
    return "'dtype':'" + dtype + "','shape':[" + shape + "],'data_offsets':[" + offsets + "]";
  }

  private static byte[] tensor(String body, int dataBytes) {
    return file("{\"a\":{" + body.replace('\'', '"') + "}}", dataBytes);
  }

  private static byte[] length(long length, String rest) {
    byte[] text = rest.getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(8 + text.length)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putLong(length)
        .put(text)
        .array();
  }

  private static byte[] patched(byte[] file, int at) {
    file[at] = (byte) 0xff;
    return file;
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("malformedFiles")
  void aMalformedFileIsRefusedWithThePlace(String what, byte[] content, String place)
      throws Exception {
    Path file = write(content);
    String message =
        assertThrows(CheckpointException.class, () -> Safetensors.open(file), what).getMessage();
    assertTrue(message.startsWith(file + ": "), message);
    assertTrue(message.contains(place), message);
    assertTrue(message.contains("found") && message.contains("expected"), message);
    assertTrue(message.contains("; the file is damaged"), "the fix is missing: " + message);
    assertTrue(message.length() < 1000, "message of " + message.length());
    assertFalse(message.contains("\n"), message);
  }

  @Test
  void aMissingFileAndAFolderAreNamed() {
    Path missing = temp.resolve("none");
    assertTrue(
        assertThrows(CheckpointException.class, () -> Safetensors.open(missing))
            .getMessage()
            .contains(missing + ": no such file"));
    assertTrue(
        assertThrows(CheckpointException.class, () -> Safetensors.open(temp))
            .getMessage()
            .contains("a regular file"));
  }

  @Test
  void aNameFromAFileCannotGarbleTheMessage() throws Exception {
    Path file = write(file("{\"\\u001b[2J" + "x".repeat(10_000) + "\":1}", 0));
    String message =
        assertThrows(CheckpointException.class, () -> Safetensors.open(file)).getMessage();
    assertTrue(message.contains("tensor '\\u001b[2Jxxx"), message);
    assertTrue(message.length() < 1000, message);
  }

  @Test
  void aTensorBeyond2GigabytesIsListedButNotReadIntoTheHeap() throws Exception {
    long bytes = 3L << 30;
    String header =
        "{\"big\":{\"dtype\":\"F32\",\"shape\":[805306368],\"data_offsets\":[0,"
            + bytes
            + "]},\"last\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":["
            + bytes
            + ","
            + (bytes + 1)
            + "]}}";
    Path file = temp.resolve("big.safetensors");
    try (RandomAccessFile sparse = new RandomAccessFile(file.toFile(), "rw")) {
      sparse.write(file(header, 0));
      sparse.setLength(8 + header.length() + bytes + 1);
      sparse.seek(8 + header.length() + bytes);
      sparse.write(77);
    }
    try (Safetensors in = Safetensors.open(file)) {
      assertEquals(bytes, in.bytes("big"));
      String message = assertThrows(CheckpointException.class, () -> in.read("big")).getMessage();
      assertTrue(message.contains("tensor 'big': found 3221225472 bytes"), message);
      assertEquals(77, in.read("last").data().get(0));
    }
  }

  @Test
  void aFileCutWhileItIsReadIsRefused() throws Exception {
    Path file = write(tensor(good("F32", "1", "0,4"), 4));
    try (Safetensors in = Safetensors.open(file);
        RandomAccessFile cut = new RandomAccessFile(file.toFile(), "rw")) {
      cut.setLength(cut.length() - 1);
      assertThrows(CheckpointException.class, () -> in.read("a"));
    }
  }

  @Test
  void tensorsLargerThanAPieceAreWrittenAndReadWhole() throws Exception {
    byte[] values = new byte[(5 << 20) + 3];
    new Random(1).nextBytes(values);
    ByteBuffer data = ByteBuffer.wrap(values).order(ByteOrder.LITTLE_ENDIAN);
    Path file = temp.resolve("pieces.safetensors");
    NamedTensor tensor = new NamedTensor("t", "U8", new long[] {values.length}, data);
    Safetensors.Written written = Safetensors.write(file, List.of(tensor, named(tensor)), Map.of());
    assertEquals(Files.size(file), written.bytes());
    assertEquals(
        HexFormat.of()
            .formatHex(MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(file))),
        written.sha256());
    try (Safetensors in = Safetensors.open(file)) {
      assertEquals(tensor, in.read("t"));
      assertEquals(named(tensor), in.read("u"));
      ByteBuffer direct = ByteBuffer.allocateDirect(values.length);
      in.read("u", direct);
      assertEquals(ByteBuffer.wrap(values), direct.flip());
    }
  }

  private static NamedTensor named(NamedTensor tensor) {
    return new NamedTensor("u", tensor.dtype(), tensor.shape(), tensor.data());
  }

  @Test
  void theWriterRefusesWhatTheReaderWould() throws Exception {
    NamedTensor tensor = NamedTensor.ofFloats("a", new long[] {1}, 1f);
    Path file = temp.resolve("out");
    assertThrows(
        IllegalArgumentException.class,
        () -> Safetensors.write(file, List.of(tensor, tensor), Map.of()));
    NamedTensor reserved = NamedTensor.ofFloats("__metadata__", new long[] {1}, 1f);
    assertThrows(
        IllegalArgumentException.class, () -> Safetensors.write(file, List.of(reserved), Map.of()));
    assertFalse(Files.exists(file), "arguments are checked before the file is made");
    Safetensors.write(file, List.of(tensor), Map.of());
    assertThrows(
        FileAlreadyExistsException.class, () -> Safetensors.write(file, List.of(tensor), Map.of()));
  }

  @Test
  void aTensorWhoseBytesDoNotFitItsShapeIsRefused() {
    ByteBuffer four = ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN);
    new NamedTensor("a", "F32", new long[] {1}, four);
    refused("F32", new long[] {2}, four);
    refused("F32", new long[] {-1}, four);
    refused("F32", new long[] {1L << 62, 4}, four);
    refused("F31", new long[] {1}, four);
    refused("F32", new long[] {1}, ByteBuffer.allocate(4)); // big-endian
    assertThrows(
        IllegalStateException.class,
        () -> new NamedTensor("a", "I32", new long[] {1}, four).floats());
  }

  private static void refused(String dtype, long[] shape, ByteBuffer data) {
    assertThrows(IllegalArgumentException.class, () -> new NamedTensor("a", dtype, shape, data));
  }
}
