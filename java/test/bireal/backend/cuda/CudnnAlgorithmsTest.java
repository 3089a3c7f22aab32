package bireal.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Plan;
import bireal.runtime.DeviceException;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.TreeSet;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Which of cuDNN's algorithms are taken: the check of each, the file that keeps the choice. */
class CudnnAlgorithmsTest {
  private static final Conv2dSpec SPEC = new Conv2dSpec(5, 4, 8, 8, 3, 3, 1, 1);
  private static final int IMAGES = 3;
  private static final String OF =
      "of Conv2dSpec[H=5, W=4, C=8, K=8, R=3, S=3, stride=1, pad=1] in ";

  @TempDir private Path folder;
  private Path file;

  /** What was said on System.err. */
  private final ByteArrayOutputStream said = new ByteArrayOutputStream();

  private PrintStream err;

  @BeforeAll
  static void load() {
    assumeTrue(Emulator.emulated(), "sets what the emulated cuDNN gets wrong");
    Emulator.load();
  }

  @BeforeEach
  void start() {
    Emulator.reset();
    file = folder.resolve("new").resolve("algorithms.properties");
    System.setProperty(CudnnAlgorithms.FILE, file.toString());
    err = System.err;
    System.setErr(new PrintStream(said, true, StandardCharsets.UTF_8));
  }

  @AfterEach
  void end() {
    System.setErr(err);
    System.setProperty(CudnnAlgorithms.FILE, "none"); // as Emulator.options has it
    assertEquals(List.of(), Emulator.findings());
    assertEquals(0, Emulator.get("live_bytes"), "device memory that nobody freed");
    Emulator.reset();
  }

  private static <T> T planned(DType real, Function<Plan.Conv2d, T> use) {
    try (CudaBackend backend = CudaBackend.open(0);
        Plan.Conv2d plan = backend.planConv2d(SPEC, IMAGES, real)) {
      return use.apply(plan);
    }
  }

  /** Of the forward pass. */
  private static String kernel(DType real) {
    return planned(real, Plan::kernelName);
  }

  /** y, dx and dw of small integers, which F16 holds exactly: bits of F16. */
  private static List<byte[]> passes() {
    List<byte[]> results = new ArrayList<>();
    try (CudaBackend backend = CudaBackend.open(0);
        Plan.Conv2d plan = backend.planConv2d(SPEC, IMAGES, DType.F16)) {
      Shape weights = Shape.of(SPEC.K(), SPEC.R(), SPEC.S(), SPEC.C());
      Shape[] shapes = {SPEC.input(IMAGES), SPEC.output(IMAGES), weights};
      List<Buffer> buffers = new ArrayList<>();
      List<Tensor> given = new ArrayList<>();
      List<Tensor> out = new ArrayList<>();
      for (Shape shape : shapes) {
        ByteBuffer bytes =
            ByteBuffer.allocate((int) DType.F16.bytes(shape)).order(ByteOrder.LITTLE_ENDIAN);
        for (int i = 0; bytes.hasRemaining(); i++) {
          bytes.putShort((short) (i % 7 == 0 ? 0x3c00 : i % 5 == 0 ? 0xbc00 : 0)); // 1, -1, 0
        }
        for (List<Tensor> list : List.of(given, out)) {
          Buffer buffer = backend.allocate(DType.F16.bytes(shape), "operand");
          buffers.add(buffer);
          list.add(new Tensor(buffer, 0, shape, DType.F16));
        }
        backend.write(given.get(given.size() - 1), bytes.flip());
      }
      Shape bytes = Shape.of(Math.max(64, plan.workspaceBytes()));
      Buffer scratch = backend.allocate(bytes.count(), "workspace");
      buffers.add(scratch);
      Tensor workspace = new Tensor(scratch, 0, bytes, DType.U8);
      Tensor x = given.get(0);
      Tensor dy = given.get(1);
      Tensor w = given.get(2);
      backend.conv2dBwdInput(plan, IMAGES, out.get(0), dy, w, workspace);
      backend.conv2dFwd(plan, IMAGES, out.get(1), x, w, workspace);
      backend.conv2dBwdWeight(plan, IMAGES, out.get(2), x, dy, GradMode.OVERWRITE, workspace);
      for (Tensor tensor : out) {
        ByteBuffer read = ByteBuffer.allocate((int) tensor.bytes());
        backend.read(read, tensor);
        results.add(read.array());
      }
      buffers.forEach(Buffer::close);
    }
    return results;
  }

  @Test
  void anAlgorithmThatComputesWrongValuesIsRefusedAloudAndTheNextOneTaken() {
    List<byte[]> expected = passes();
    assertEquals("cuDNN algo 1", kernel(DType.F16));
    assertEquals("", said.toString(StandardCharsets.UTF_8));
    System.setProperty(CudnnAlgorithms.FILE, folder.resolve("other.properties").toString());
    Emulator.set("wrong_algorithm", 1); // for NHWC
    List<byte[]> got = passes();
    for (int i = 0; i < expected.size(); i++) {
      assertArrayEquals(expected.get(i), got.get(i), "dx, y, dw: " + i);
    }
    assertEquals("cuDNN nchw algo 0", kernel(DType.F16));
    List<String> lines = said.toString(StandardCharsets.UTF_8).lines().toList();
    assertEquals(3, lines.size(), lines::toString);
    String[] passes = {"FORWARD", "BACKWARD_INPUT", "BACKWARD_WEIGHT"};
    for (int i = 0; i < passes.length; i++) {
      assertTrue(
          lines
              .get(i)
              .matches(
                  "\\Qbireal: not used, cuDNN 9.5.1, "
                      + passes[i]
                      + " "
                      + OF
                      + "F16: \\Ealgorithm 1 computed -?\\d+.0 instead of -?\\d+ at element 0"),
          lines.get(i));
    }
  }

  @Test
  void aKeptAlgorithmIsCheckedToo() throws IOException {
    assertEquals("cuDNN algo 1", kernel(DType.F16));
    Emulator.set("wrong_algorithm", 1);
    assertEquals("cuDNN nchw algo 0", kernel(DType.F16));
    // Once for each pass: what was refused as kept is not run again as an offer.
    assertEquals(3, said.toString(StandardCharsets.UTF_8).lines().count());
    for (Object choice : entries().values()) {
      assertTrue(choice.toString().contains("nchw"), choice.toString());
    }
  }

  /** The emulated cuDNN has bfloat16 for NHWC alone. */
  @Test
  void whereNothingIsLeftTheErrorNamesWhatWasRefused() {
    Emulator.set("wrong_algorithm", 1);
    DeviceException e = assertThrows(DeviceException.class, () -> kernel(DType.BF16));
    assertTrue(
        e.getMessage()
            .matches(
                "\\QcuDNN 9.5.1 has no usable deterministic algorithm for pass FORWARD "
                    + OF
                    + "BF16; \\Ealgorithm 1 computed -?\\d+.0 instead of -?\\d+ at element 0"),
        e.getMessage());
    assertFalse(Files.exists(file), "nothing to keep");
  }

  @Test
  void aLayoutThatCudnnDoesNotSupportLeavesTheOther() {
    Emulator.set("list_status", 3004);
    assertEquals("cuDNN nchw algo 0", kernel(DType.F16));
    DeviceException e = assertThrows(DeviceException.class, () -> kernel(DType.BF16));
    assertEquals(
        "cuDNN 9.5.1 has no usable deterministic algorithm for pass FORWARD " + OF + "BF16",
        e.getMessage());
    assertEquals("", said.toString(StandardCharsets.UTF_8));
  }

  @Test
  void aStatusThatJcudnnLosesIsToldAndLeavesTheOtherLayout() {
    Emulator.set("list_status", 10000 + 3004);
    assertEquals("cuDNN nchw algo 0", kernel(DType.F16));
    assertTrue(
        said.toString(StandardCharsets.UTF_8)
            .startsWith(
                "bireal: listing cuDNN's forward algorithms "
                    + OF
                    + "F16 failed, with a status that JCudnn lost; to see it, set"
                    + " CUDNN_LOGLEVEL_DBG=1 and CUDNN_LOGDEST_DBG=stderr"),
        said::toString);
  }

  @Test
  void anotherStatusOfTheListIsAnErrorAndMissingMemorySaysHowMuchIsFree() {
    Emulator.set("list_status", 5000);
    DeviceException failed = assertThrows(DeviceException.class, () -> kernel(DType.F16));
    assertEquals(
        "listing cuDNN's forward algorithms: CUDNN_STATUS_EXECUTION_FAILED (5000)",
        failed.getMessage());
    Emulator.set("list_status", 4004);
    DeviceException full = assertThrows(DeviceException.class, () -> kernel(DType.F16));
    assertTrue(
        full.getMessage()
            .matches(
                "\\Qlisting cuDNN's forward algorithms: "
                    + "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED (4004); \\E"
                    + "[\\d,]+ MB are free: end what else uses the GPU, "
                    + "or set train.micro_batch lower"),
        full.getMessage());
  }

  // The file.

  private Properties entries() throws IOException {
    Properties entries = new Properties();
    try (var in = Files.newBufferedReader(file, StandardCharsets.UTF_8)) {
      entries.load(in);
    }
    return entries;
  }

  private static String key(String capability, String cudnn) {
    return CudaDevice.of(0).name()
        + "/"
        + capability
        + "/driver 13.0/cudnn "
        + cudnn
        + "/FORWARD/F32/3x5x4x8 to 8, 3x3/1 pad 1";
  }

  private void rewrite(String key, String value) throws IOException {
    Properties entries = entries();
    assertTrue(entries.containsKey(key), () -> key + " in " + entries);
    entries.setProperty(key, value);
    try (var out = Files.newBufferedWriter(file, StandardCharsets.UTF_8)) {
      entries.store(out, null);
    }
  }

  @Test
  void theFileKeepsTheChoiceByDeviceAndVersions() throws IOException {
    assertEquals("cuDNN algo 1", kernel(DType.F32));
    String first = key("8.0", "9.5.1");
    assertEquals("1 3 nhwc 768", entries().getProperty(first)); // 20 pixels by 9 taps by 4 bytes
    assertEquals(3, entries().size(), "one of each pass");
    try (Stream<Path> files = Files.list(file.getParent())) {
      assertEquals(List.of(file), files.toList(), "no partial file is left");
    }

    // Another choice, legal and right: who reads the file takes it, who measures does not.
    rewrite(first, "0 3 nchw 0");
    Properties kept = entries();
    assertEquals("cuDNN nchw algo 0", kernel(DType.F32));
    assertEquals(kept, entries());

    Emulator.set("cudnn_version", 90600);
    assertEquals("cuDNN algo 1", kernel(DType.F32));
    Emulator.set("cudnn_version", 90501);
    Emulator.set("driver_version", 13010);
    assertEquals("cuDNN algo 1", kernel(DType.F32));
    Emulator.set("driver_version", 13000);
    Emulator.set("compute_capability", 90);
    assertEquals("cuDNN algo 1", kernel(DType.F32));
    assertEquals(12, entries().size(), this::keys);
    assertTrue(entries().containsKey(key("9.0", "9.5.1")), this::keys);
    Emulator.set("compute_capability", 80);
    assertTrue(entries().containsKey(key("8.0", "9.6.0")), this::keys);
    assertEquals("0 3 nchw 0", entries().getProperty(first), "still kept");
  }

  private String keys() {
    try {
      return new TreeSet<>(entries().keySet()).toString();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Test
  void anEntryThatIsNoChoiceIsMadeAnew() throws IOException {
    kernel(DType.F32);
    String key = key("8.0", "9.5.1");
    String chosen = entries().getProperty(key);
    // An algorithm that is not for it or does not exist; torn; not numbers; no layout.
    for (String wrong :
        List.of("7 3 nhwc 0", "99 3 nchw 0", "1 3", "", "one 3 nhwc 768", "1 3 nhcw 768")) {
      rewrite(key, wrong);
      assertEquals("cuDNN algo 1", kernel(DType.F32), wrong);
      assertEquals(chosen, entries().getProperty(key), wrong);
    }
  }

  @Test
  void aFileThatCannotBeReadOrWrittenIsNamed() throws IOException {
    Files.createDirectories(file.getParent());
    Files.writeString(file, "device\\u12\n");
    UncheckedIOException torn = assertThrows(UncheckedIOException.class, () -> kernel(DType.F32));
    assertEquals(file + " cannot be read; delete it, it is made again", torn.getMessage());
    Files.delete(file);
    Files.delete(file.getParent());
    Files.writeString(file.getParent(), "a file where the folder belongs");
    UncheckedIOException closed = assertThrows(UncheckedIOException.class, () -> kernel(DType.F32));
    assertEquals(
        file
            + " cannot be written; make its folder writable, or run with"
            + " -Dbireal.cuda.algorithms=none",
        closed.getMessage());
  }
}
