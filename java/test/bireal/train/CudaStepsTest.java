package bireal.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.Gradient;
import bireal.backend.Precision;
import bireal.backend.SgdForm;
import bireal.backend.Tensors;
import bireal.backend.WeightGradient;
import bireal.backend.cpu.CpuBackend;
import bireal.backend.cuda.CudaBackend;
import bireal.backend.cuda.Emulator;
import bireal.backend.cuda.Half;
import bireal.backend.cuda.PairedBackend;
import bireal.data.DataConfig;
import bireal.nn.MemoryException;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.Parameter;
import bireal.nn.Planner;
import bireal.optim.LrSchedule;
import bireal.optim.OptimizerConfig;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Rng;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.io.IOException;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Training steps of a small network on the CUDA backend (emulated) against the CPU's. */
class CudaStepsTest {
  private static final int STEPS = 20;

  /** Of a free run: the emulator takes more than a second for each. */
  private static final int FREE_STEPS = 10;

  private static final int BATCH = 6;
  private static final int CLASSES = 4;

  @BeforeAll
  static void load() {
    Emulator.load();
  }

  @BeforeEach
  void reset() {
    Emulator.reset();
    if (Emulator.emulated()) {
      Emulator.set("access_counters", 0); // nobody reads them here
    }
  }

  @AfterEach
  void nothingFoundAndNothingLeft() {
    assertEquals(List.of(), Emulator.findings());
    assertEquals(0, Emulator.get("live_bytes"));
    assertEquals(0, Emulator.get("pinned_bytes"));
  }

  private static NetworkConfig network(NetworkConfig.Family family) {
    return new NetworkConfig(
        family,
        18,
        8,
        CLASSES,
        NetworkConfig.Stem.CIFAR,
        NetworkConfig.Weights.AUTO,
        NetworkConfig.Nonlinearity.AUTO,
        family == NetworkConfig.Family.XNORNET ? WeightGradient.XNOR : WeightGradient.CLIPPED,
        ActivationGradient.APPROX_SIGN,
        NetworkConfig.Init.KAIMING);
  }

  private static OptimizerConfig optimizer(OptimizerConfig.Type type) {
    return new OptimizerConfig(
        type,
        2e-3,
        BATCH,
        0.9,
        0.999,
        1e-8,
        0.9,
        SgdForm.PYTORCH,
        1e-4,
        OptimizerConfig.Decayed.ALL);
  }

  /** Losses of the steps; the same images and labels for every backend. */
  private static List<Double> train(
      Backend backend,
      NetworkConfig config,
      OptimizerConfig.Type type,
      Precision precision,
      int steps) {
    List<Double> losses = new ArrayList<>();
    try (Network net =
            new Network(
                config,
                Shape.of(16, 16, 3),
                new Planner(backend, BATCH, precision.real, Gradient.FP32));
        TrainStep step = new TrainStep(net, optimizer(type), 0.1, false)) {
      net.allocate();
      net.initialize(3);
      step.startLossScale(List.of());
      for (int number = 1; number <= steps; number++) {
        step.begin(number, 2e-3);
        // The second micro-batch is smaller, as the last one of an epoch.
        for (int n : new int[] {4, 2}) {
          images(backend, net, number * 10 + n);
          step.microBatch(n, BATCH);
        }
        step.finish();
        losses.add(step.metrics().loss());
        if (number == 2 && Emulator.emulated()) {
          Emulator.set("race_checks", 0); // the launches and addresses of the steps are the same
        }
      }
      // The loss scale starts high and falls until the gradients fit, as it should.
      assertTrue(step.skippedSteps() <= (precision == Precision.MIXED ? 4 : 0), losses::toString);
    }
    return losses;
  }

  /**
   * Writes images and labels straight into the network's input, in its type; a run would bring
   * bytes and normalise them on the device (imageNormalize).
   */
  private static void images(Backend backend, Network net, int number) {
    long seed = Rng.state(number, "images");
    int count = (int) net.input().shape().count();
    ByteBuffer bytes =
        ByteBuffer.allocate((int) net.input().bytes()).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < count; i++) {
      // Multiples of 1/64 in [-2, 2): the same value in every type.
      float value = (float) (Math.floor(256 * Rng.uniform(seed, i)) / 64 - 2);
      switch (net.input().dtype()) {
        case F16 -> bytes.putShort(Half.of(value));
        case BF16 -> bytes.putShort((short) (Float.floatToIntBits(value) >>> 16));
        default -> bytes.putFloat(value);
      }
    }
    backend.write(net.input(), bytes.flip());
    ByteBuffer labels = Tensors.buffer(net.labels());
    for (int i = 0; i < BATCH; i++) {
      labels.putInt((int) (Rng.uniform(seed, count + i) * CLASSES));
    }
    backend.write(net.labels(), labels.flip());
  }

  /**
   * Each op of each step gets the CPU's stored inputs; what it makes is compared (PairedBackend).
   */
  @ParameterizedTest
  @EnumSource(names = {"BIREALNET", "REACTNET", "XNORNET", "RESNET"})
  void everyOpOfTwentyStepsDoesWhatTheCpuDoes(NetworkConfig.Family family) throws IOException {
    paired(family, family == NetworkConfig.Family.BIREALNET ? STEPS : 2, false);
  }

  /** The same with activations and gradients in half precision on the GPU. */
  @Test
  void everyOpOfTwentyStepsInHalfPrecisionDoesWhatTheCpuDoes() throws IOException {
    paired(NetworkConfig.Family.BIREALNET, STEPS, true);
  }

  /**
   * What the libraries take and make in half precision are copies: those of weights follow a step,
   * so that nothing is left to refresh, and those of gradients are added up over micro-batches.
   */
  @Test
  void copiesForTheLibrariesFollowEachStepAndMicroBatch() {
    try (Backend backend = CudaBackend.open(0);
        Network net =
            new Network(
                network(NetworkConfig.Family.BIREALNET),
                Shape.of(16, 16, 3),
                new Planner(backend, BATCH, DType.F16, Gradient.FP32));
        TrainStep step = new TrainStep(net, optimizer(OptimizerConfig.Type.ADAM), 0.1, false)) {
      net.allocate();
      net.initialize(3);
      step.startLossScale(List.of(1.0, 1.0, 0.0, 2000.0)); // no step overflows
      images(backend, net, 1);
      step.begin(1, 0.1);
      step.microBatch(4, 8);
      byte[] untrained = bytes(backend, net.logits());
      List<float[]> once = net.planner().parameters().stream().map(net::publishedGradient).toList();
      step.microBatch(4, 8); // the same images
      for (int i = 0; i < once.size(); i++) {
        Parameter parameter = net.planner().parameters().get(i);
        float[] twice = net.publishedGradient(parameter);
        float largest = 0;
        for (int j = 0; j < twice.length; j++) {
          assertEquals(2 * once.get(i)[j], twice[j], parameter.name() + " " + j);
          largest = Math.max(largest, Math.abs(twice[j]));
        }
        assertTrue(largest > 0, parameter.name() + " has no gradient");
      }
      step.finish();
      assertEquals(0, step.skippedSteps());

      step.begin(2, 0.1);
      step.microBatch(4, 8);
      byte[] trained = bytes(backend, net.logits());
      assertFalse(Arrays.equals(untrained, trained), "the step changed nothing");
      net.refresh();
      step.microBatch(4, 8);
      assertArrayEquals(trained, bytes(backend, net.logits()));
    }
  }

  private static byte[] bytes(Backend backend, Tensor tensor) {
    byte[] bytes = new byte[(int) tensor.bytes()];
    backend.read(ByteBuffer.wrap(bytes), tensor);
    return bytes;
  }

  private static void paired(NetworkConfig.Family family, int steps, boolean mixed)
      throws IOException {
    try (Backend cpu = CpuBackend.open(2);
        Backend cuda = CudaBackend.open(0)) {
      PairedBackend pair = new PairedBackend(cpu, cuda, mixed);
      List<Double> losses =
          train(
              pair.backend(),
              network(family),
              family == NetworkConfig.Family.XNORNET
                  ? OptimizerConfig.Type.SGD
                  : OptimizerConfig.Type.ADAM,
              Precision.FP32,
              steps);
      assertEquals(steps, losses.size());
      assertEquals(steps, pair.calls().get("finiteNorm"));
      StringBuilder text = new StringBuilder();
      pair.calls()
          .forEach(
              (op, calls) ->
                  text.append(
                      String.format(
                          Locale.ROOT,
                          "%-26s %6d calls, worst difference %.3g of the largest value%n",
                          op,
                          calls,
                          pair.worst().getOrDefault(op, 0.0))));
      Path report = Path.of("target", "cuda-steps-" + family + (mixed ? "-mixed" : "") + ".txt");
      Files.createDirectories(report.getParent());
      Files.writeString(report, text);
    }
  }

  /** As where a run is stopped while the next images travel. */
  @Test
  void memoryIsFreedOnlyWhenAnUploadHasArrived() {
    try (Backend backend = CudaBackend.open(0)) {
      Buffer buffer = backend.allocate(1 << 16, "images");
      backend.upload(
          new Tensor(buffer, 0, Shape.of(1 << 16), DType.U8), ByteBuffer.allocateDirect(1 << 16));
      buffer.close();
    }
  }

  /** A run of 4 steps of two micro-batches of 2 images, which come through the uint8 path. */
  private static void run(Backend backend, Path folder, Progress progress) {
    Trainer.Setup setup =
        new Trainer.Setup(
            network(NetworkConfig.Family.BIREALNET),
            new DataConfig(
                DataConfig.Kind.SYNTHETIC,
                "",
                16,
                2,
                true,
                List.of(0.5),
                List.of(0.25),
                1,
                2,
                120,
                16,
                2,
                1,
                CLASSES),
            optimizer(OptimizerConfig.Type.ADAM),
            new LrSchedule(LrSchedule.Type.LINEAR, 0),
            new TrainConfig(
                1,
                4,
                2,
                Gradient.FP32,
                Precision.FP32,
                0.1,
                1,
                0,
                1,
                1,
                TrainConfig.OnCheckpointFailure.STOP),
            7,
            Map.of());
    try (RunFolder run = RunFolder.create(folder.resolve("run"), "name: run\n");
        Trainer trainer = new Trainer(setup, backend, run, false, progress)) {
      trainer.run(() -> false);
    }
  }

  /**
   * The next images are asked for when a micro-batch has been launched, before anybody waits for
   * it; and asking for them does not wait for it either.
   */
  @Test
  void theNextImagesTravelWhileAMicroBatchIsAtWork(@TempDir Path folder) {
    assumeTrue(Emulator.emulated(), "asks the emulator what has not run yet");
    Emulator.set("race_checks", 0);
    Map<String, String> letters =
        Map.of("awaitUploads", "a", "replay", "l", "upload", "u", "read", "r");
    StringBuilder calls = new StringBuilder();
    List<String> steps = new ArrayList<>();
    try (Backend cuda = CudaBackend.open(0)) {
      InvocationHandler noting =
          (proxy, method, args) -> {
            try {
              Object result = method.invoke(cuda, args);
              calls.append(letters.getOrDefault(method.getName(), ""));
              if (method.getName().equals("upload") && calls.indexOf("l") >= 0) {
                // Of more than 100 launches; an upload on the same stream would leave its copies.
                assertTrue(Emulator.get("pending") > 50, "the upload waited for the micro-batch");
              }
              return result;
            } catch (InvocationTargetException e) {
              throw e.getCause();
            }
          };
      Backend noted =
          (Backend)
              Proxy.newProxyInstance(
                  Backend.class.getClassLoader(), new Class<?>[] {Backend.class}, noting);
      run(
          noted,
          folder,
          new Progress() {
            @Override
            public void started(long step, long totalSteps) {
              calls.setLength(0);
            }

            @Override
            public void step(long step, Metrics last, Metrics epochSoFar, double lr) {
              steps.add(calls.toString());
              calls.setLength(0);
            }
          });
    }
    // Awaited, launched, pixels, crops and labels of the next one on their way: for both
    // micro-batches. The update is part of the last one's launch: one graph.
    assertEquals(4, steps.size());
    assertTrue(steps.get(0).matches("uuualuuualuuur+"), steps::toString);
    assertTrue(steps.get(1).matches("aluuualuuur+"), steps::toString);
    assertTrue(steps.get(2).matches("aluuualuuur+"), steps::toString);
    assertTrue(steps.get(3).matches("aluuualr+"), steps::toString); // no more images
  }

  /** Neither the backend nor what it asks of the driver: Java's bytes are StepAllocationTest's. */
  @Test
  void noStepTakesMemoryAfterTheFirst(@TempDir Path folder) {
    assumeTrue(Emulator.emulated(), "asks the emulator for its memory");
    Emulator.set("race_checks", 0);
    List<Map<String, Long>> taken = new ArrayList<>();
    try (Backend backend = CudaBackend.open(0)) {
      run(
          backend,
          folder,
          new Progress() {
            @Override
            public void step(long step, Metrics last, Metrics epochSoFar, double lr) {
              Map<String, Long> now = new TreeMap<>();
              for (String what :
                  List.of("live_allocations", "live_bytes", "peak_bytes", "pinned_bytes")) {
                now.put(what, Emulator.get(what));
              }
              taken.add(now);
            }
          });
    }
    assertEquals(4, taken.size());
    assertTrue(taken.get(0).get("live_allocations") > 0, taken::toString);
    assertEquals(Collections.nCopies(4, taken.get(0)), taken);
  }

  /** Losses of free runs: CPU, CUDA in float32, CUDA in half precision. */
  @Test
  void freeRunsStayClose() throws IOException {
    NetworkConfig config = network(NetworkConfig.Family.BIREALNET);
    List<Double> cpu;
    List<Double> fp32;
    List<Double> mixed;
    try (Backend backend = CpuBackend.open(2)) {
      cpu = train(backend, config, OptimizerConfig.Type.ADAM, Precision.FP32, FREE_STEPS);
    }
    try (Backend backend = CudaBackend.open(0)) {
      fp32 = train(backend, config, OptimizerConfig.Type.ADAM, Precision.FP32, FREE_STEPS);
    }
    try (Backend backend = CudaBackend.open(0)) {
      mixed = train(backend, config, OptimizerConfig.Type.ADAM, Precision.MIXED, FREE_STEPS);
    }
    StringBuilder text = new StringBuilder("step,cpu,cuda fp32,cuda mixed\n");
    for (int i = 0; i < FREE_STEPS; i++) {
      text.append(
          String.format(
              Locale.ROOT, "%d,%.6f,%.6f,%.6f%n", i + 1, cpu.get(i), fp32.get(i), mixed.get(i)));
    }
    Files.writeString(Path.of("target", "cuda-losses.csv"), text);
    // The first loss comes before any sign could differ; later a single sign that falls to the
    // other side moves everything behind it.
    assertEquals(cpu.get(0), fp32.get(0), 1e-5 * cpu.get(0), text::toString);
    // In half precision some signs fall to the other side at once, in a network as small as this.
    assertEquals(cpu.get(0), mixed.get(0), 0.1 * cpu.get(0), text::toString);
    for (List<Double> losses : List.of(fp32, mixed)) {
      double mean = 0;
      double other = 0;
      for (int i = FREE_STEPS / 2; i < FREE_STEPS; i++) {
        mean += cpu.get(i) / (FREE_STEPS / 2);
        other += losses.get(i) / (FREE_STEPS / 2);
      }
      assertTrue(Math.abs(other - mean) < 0.15 * mean, text::toString);
    }
  }

  /** Another program may take what was free a moment ago. */
  @Test
  void memoryThatTheDeviceRefusesIsATableAndNothingStaysTaken() {
    assumeTrue(Emulator.emulated(), "injects a fault");
    try (Backend backend = CudaBackend.open(0);
        Network net =
            new Network(
                network(NetworkConfig.Family.BIREALNET),
                Shape.of(16, 16, 3),
                new Planner(backend, BATCH, DType.F32, Gradient.FP32))) {
      Emulator.set("fail_allocation", 4); // some arenas are there by then
      String message = assertThrows(MemoryException.class, net::allocate).getMessage();
      for (String part :
          List.of(
              "a micro-batch of 6 images needs ",
              "that were free, but ",
              "are not to be had",
              "gradients of parameters",
              "set train.micro_batch to about ")) {
        assertTrue(message.contains(part), message);
      }
    } // and nothingFoundAndNothingLeft
  }
}
