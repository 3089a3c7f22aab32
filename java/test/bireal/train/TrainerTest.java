package bireal.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.Gradient;
import bireal.backend.Precision;
import bireal.backend.SgdForm;
import bireal.backend.Tensors;
import bireal.backend.WeightGradient;
import bireal.backend.cpu.CpuBackend;
import bireal.data.DataConfig;
import bireal.nn.MemoryException;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.Parameter;
import bireal.nn.Pass;
import bireal.nn.Planner;
import bireal.nn.State;
import bireal.optim.LrSchedule;
import bireal.optim.OptimizerConfig;
import bireal.tensor.Rng;
import bireal.tensor.Shape;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Properties of whole runs on a small network and synthetic data. */
class TrainerTest {
  private static final NetworkConfig NETWORK =
      new NetworkConfig(
          NetworkConfig.Family.BIREALNET,
          18,
          8,
          4,
          NetworkConfig.Stem.CIFAR,
          NetworkConfig.Weights.AUTO,
          NetworkConfig.Nonlinearity.AUTO,
          WeightGradient.CLIPPED,
          ActivationGradient.APPROX_SIGN,
          NetworkConfig.Init.KAIMING);
  private static final OptimizerConfig ADAM =
      new OptimizerConfig(
          OptimizerConfig.Type.ADAM,
          2e-3,
          8,
          0.9,
          0.999,
          1e-8,
          0.9,
          SgdForm.PYTORCH,
          0,
          OptimizerConfig.Decayed.ALL);

  @TempDir Path folder;

  private static Trainer.Setup setup(
      int loaderThreads, int epochs, int batch, int microBatch, int checkpointEvery) {
    return new Trainer.Setup(
        NETWORK,
        new DataConfig(
            DataConfig.Kind.SYNTHETIC,
            "",
            16,
            2,
            true,
            List.of(0.5, 0.5),
            List.of(0.25, 0.25),
            loaderThreads,
            2,
            120,
            45,
            20,
            2,
            4),
        ADAM,
        new LrSchedule(LrSchedule.Type.LINEAR, 2),
        new TrainConfig(
            epochs,
            batch,
            microBatch,
            Gradient.FIXED16,
            Precision.FP32,
            0.1,
            1,
            checkpointEvery,
            3,
            3,
            TrainConfig.OnCheckpointFailure.STOP),
        7,
        Map.of("key", "value"));
  }

  private static Stage only(Trainer.Setup setup) {
    return setup.stages().get(0);
  }

  private Trainer.Summary run(
      String name, Trainer.Setup setup, int threads, boolean resume, BooleanSupplier stop) {
    Path run = folder.resolve(name);
    try (Backend backend = CpuBackend.open(threads);
        RunFolder runFolder =
            resume ? RunFolder.resume(run) : RunFolder.create(run, "name: " + name + "\n");
        Trainer trainer = new Trainer(setup, backend, runFolder, resume, Progress.NONE)) {
      return trainer.run(stop);
    }
  }

  /** Every file of the newest checkpoint, by name. */
  private static Map<String, String> files(Path checkpoint) throws IOException {
    Map<String, String> contents = new TreeMap<>();
    try (Stream<Path> list = Files.list(checkpoint)) {
      for (Path file : list.toList()) {
        contents.put(
            file.getFileName().toString(),
            new String(Files.readAllBytes(file), java.nio.charset.StandardCharsets.ISO_8859_1));
      }
    }
    return contents;
  }

  private static BooleanSupplier after(int calls) {
    AtomicInteger asked = new AtomicInteger();
    return () -> asked.incrementAndGet() > calls;
  }

  @Test
  void oneAndThreeThreadsGiveTheSameBitsAfterTwentySteps() throws IOException {
    // 45 images in batches of 9: 5 steps an epoch, micro-batches of 4, 4 and 1.
    Trainer.Summary one = run("one", setup(1, 4, 9, 4, 0), 1, false, () -> false);
    Trainer.Summary three = run("three", setup(3, 4, 9, 4, 0), 3, false, () -> false);
    assertEquals(20, one.step());
    assertEquals(files(one.checkpoint()), files(three.checkpoint()));
    assertEquals(
        Files.readString(folder.resolve("one/log.jsonl")),
        Files.readString(folder.resolve("three/log.jsonl")));
  }

  @Test
  void resumeEqualsUninterruptedAlsoInTheMiddleOfAnEpochAndOfAnEvaluation() throws IOException {
    Trainer.Setup setup = setup(2, 2, 8, 3, 0);
    Trainer.Summary whole = run("whole", setup, 2, false, () -> false);
    assertTrue(whole.complete());
    assertEquals(12, whole.step());
    for (int stopAfter : new int[] {0, 1, 4, 6, 7, 8, 14}) {
      String name = "part" + stopAfter;
      Trainer.Summary part = run(name, setup, 1, false, after(stopAfter));
      assertFalse(part.complete(), "stopped after " + stopAfter + " questions");
      Trainer.Summary rest = run(name, setup, 2, true, () -> false);
      assertTrue(rest.complete());
      assertEquals(
          files(whole.checkpoint()), files(rest.checkpoint()), "stopped at step " + part.step());
      assertEquals(
          Files.readString(folder.resolve("whole/log.jsonl")),
          Files.readString(folder.resolve(name + "/log.jsonl")));
      assertEquals(whole.lastEvaluation().toString(), rest.lastEvaluation().toString());
    }
  }

  @Test
  void resumeWithAnotherConfigIsRefusedWithTheKey() {
    Trainer.Setup setup = setup(1, 1, 8, 8, 0);
    run("run", setup, 1, false, after(2));
    Trainer.Setup other =
        new Trainer.Setup(
            only(setup).model(),
            only(setup).data(),
            only(setup).optimizer(),
            only(setup).schedule(),
            only(setup).train(),
            setup.seed(),
            Map.of("key", "other"));
    CheckpointException e =
        assertThrows(CheckpointException.class, () -> run("run", other, 1, true, () -> false));
    assertTrue(e.getMessage().contains("key was value, is other"), e.getMessage());
  }

  @Test
  void checkpointOfAnotherNetworkIsRefusedWithTensorAndShape() {
    Trainer.Summary summary = run("run", setup(1, 1, 8, 8, 0), 1, false, () -> false);
    NetworkConfig wider =
        new NetworkConfig(
            NETWORK.network(),
            18,
            16,
            4,
            NETWORK.stem(),
            NETWORK.weights(),
            NETWORK.nonlinearity(),
            NETWORK.weightGradient(),
            NETWORK.activationGradient(),
            NETWORK.init());
    try (Backend backend = CpuBackend.open(1);
        Network network = new Network(wider, Shape.of(16, 16, 2), new Planner(backend, 2, null));
        Safetensors file =
            CheckpointStore.open(summary.checkpoint()).tensors("model.safetensors")) {
      network.allocate();
      CheckpointException e =
          assertThrows(CheckpointException.class, () -> NetworkFiles.load(network, file));
      assertTrue(
          e.getMessage()
              .contains("conv1.weight has shape [8, 2, 3, 3], the network needs [16, 2, 3, 3]"),
          e.getMessage());
      assertTrue(e.getMessage().contains("and "), e.getMessage());
    }
  }

  @Test
  void aBareFileRoundTripsThroughPublishedNamesAndOrder() {
    Trainer.Summary summary = run("run", setup(1, 1, 8, 8, 0), 1, false, () -> false);
    try (Backend backend = CpuBackend.open(1);
        Network network = new Network(NETWORK, Shape.of(16, 16, 2), new Planner(backend, 2, null));
        Safetensors file =
            CheckpointStore.open(summary.checkpoint()).tensors("model.safetensors")) {
      network.allocate();
      NetworkFiles.load(network, file);
      for (State state : network.planner().states()) {
        if (state instanceof Parameter) {
          assertArrayEquals(
              file.read(state.name()).floats(), network.published(state), state.name());
        }
      }
      assertArrayEquals(new long[] {576, 1}, file.shape("layer1.0.binary_conv.weights"));
      assertEquals(6, file.read("bn1.num_batches_tracked").longs()[0]);
    }
  }

  @Test
  void oneBatchIsLearntByHeart() {
    try (Backend backend = CpuBackend.open(2);
        Network network =
            new Network(NETWORK, Shape.of(16, 16, 2), new Planner(backend, 8, Gradient.FP32));
        TrainStep step = new TrainStep(network, ADAM, 0, false)) {
      network.allocate();
      network.initialize(3);
      fill(backend, network, 8, 1);
      for (int i = 1; i <= 60; i++) {
        step.begin(i, 2e-3);
        step.lastMicroBatch(8, 8);
        step.finish();
      }
      assertEquals(8, step.metrics().top1());
      assertTrue(step.metrics().loss() < 0.1, "loss " + step.metrics().loss());
    }
  }

  /** Twice the same four images: batch statistics, and so all gradients, are those of the four. */
  @Test
  void oneMicroBatchOfEightEqualsTwoOfTheSameFour() {
    float[] whole = gradients(8, 1);
    float[] halves = gradients(4, 2);
    double norm = 0;
    double difference = 0;
    for (int i = 0; i < whole.length; i++) {
      norm += (double) whole[i] * whole[i];
      difference += Math.pow(whole[i] - halves[i], 2);
    }
    // Only the order of float32 additions differs: far below 1e-5 of the norm for sums of at most
    // 2048 terms.
    assertTrue(norm > 1e-6);
    assertTrue(
        Math.sqrt(difference / norm) < 1e-5, "relative difference " + Math.sqrt(difference / norm));
  }

  private static float[] gradients(int n, int microBatches) {
    try (Backend backend = CpuBackend.open(2);
        Network network =
            new Network(NETWORK, Shape.of(16, 16, 2), new Planner(backend, 8, Gradient.FP32));
        TrainStep step = new TrainStep(network, ADAM, 0, false)) {
      network.allocate();
      network.initialize(5);
      step.begin(1, 1e-3);
      for (int i = 0; i < microBatches; i++) {
        fill(backend, network, 4, 9);
        step.microBatch(n, 8);
      }
      step.finish();
      return Tensors.floats(backend, network.planner().flatGradients());
    }
  }

  /** Fills the whole input with repetitions of {@code distinct} images. */
  private static void fill(Backend backend, Network network, int distinct, long seed) {
    int image = (int) network.input().shape().innerCount();
    float[] values = new float[(int) network.input().shape().count()];
    ByteBuffer labels = Tensors.buffer(network.labels());
    long state = Rng.state(seed, "images");
    for (int n = 0; n < network.input().shape().dim(0); n++) {
      labels.putInt((n % distinct) % 4);
      for (int i = 0; i < image; i++) {
        values[n * image + i] =
            (float) (4 * Rng.uniform(state, (long) (n % distinct) * image + i) - 2);
      }
    }
    Tensors.write(backend, network.input(), values);
    backend.write(network.labels(), labels.flip());
  }

  @Test
  void aNonFiniteGradientNeverReachesWeightsMomentsOrStatistics() {
    try (Backend backend = CpuBackend.open(2);
        Network network =
            new Network(NETWORK, Shape.of(16, 16, 2), new Planner(backend, 8, Gradient.FP32));
        TrainStep step = new TrainStep(network, ADAM, 0, false)) {
      network.allocate();
      network.initialize(3);
      fill(backend, network, 8, 1);
      step.begin(1, 2e-3);
      step.lastMicroBatch(8, 8);
      step.finish();
      List<NamedTensor> model = NetworkFiles.model(network, 1);
      List<NamedTensor> moments = NetworkFiles.moments(network, step.optimizer());
      float[] poisoned = Tensors.floats(backend, network.input());
      poisoned[17] = Float.NaN;
      Tensors.write(backend, network.input(), poisoned);
      step.begin(2, 2e-3);
      step.lastMicroBatch(8, 8);
      NonFiniteException e = assertThrows(NonFiniteException.class, step::finish);
      assertEquals(2, e.step());
      assertEquals(model, NetworkFiles.model(network, 1));
      assertEquals(moments, NetworkFiles.moments(network, step.optimizer()));
      fill(backend, network, 8, 1);
      step.begin(2, 2e-3);
      step.lastMicroBatch(8, 8);
      step.finish();
      assertTrue(Double.isFinite(step.metrics().loss()));
    }
  }

  /** At {@code step} the checkpoint folder makes way for a file, where nobody can write. */
  private Progress breaking(Path run, long breakAt, long mendAt, List<String> told) {
    Path checkpoints = run.resolve("checkpoints");
    Path away = run.resolve("away");
    return new Progress() {
      @Override
      public void step(long step, Metrics last, Metrics epochSoFar, double lr) {
        try {
          if (step == breakAt) {
            Files.move(checkpoints, away);
            Files.createFile(checkpoints);
          } else if (step == mendAt) {
            Files.delete(checkpoints);
            Files.move(away, checkpoints);
          }
        } catch (IOException e) {
          throw new java.io.UncheckedIOException(e);
        }
      }

      @Override
      public void notSaved(long step, String reason) {
        told.add(reason);
      }
    };
  }

  private Trainer.Summary runBroken(String name, Trainer.Setup setup, Progress progress) {
    try (Backend backend = CpuBackend.open(1);
        RunFolder runFolder = RunFolder.create(folder.resolve(name), "name: x\n");
        Trainer trainer = new Trainer(setup, backend, runFolder, false, progress)) {
      return trainer.run(() -> false);
    }
  }

  @Test
  void aCheckpointThatCannotBeWrittenStopsTheRunAndItsSuccessorEndsInTheSameBits()
      throws IOException {
    Trainer.Setup setup = setup(1, 2, 8, 3, 2);
    Trainer.Summary whole = run("whole", setup, 1, false, () -> false);
    Path broken = folder.resolve("broken");
    SaveException e =
        assertThrows(
            SaveException.class,
            () -> runBroken("broken", setup, breaking(broken, 5, -1, new ArrayList<>())));
    for (String part :
        List.of(
            "step 6: the checkpoint was not written",
            broken.resolve("checkpoints").toString(),
            "the newest good checkpoint is",
            "step_00000004")) {
      assertTrue(e.getMessage().contains(part), e.getMessage());
    }
    Files.delete(broken.resolve("checkpoints"));
    Files.move(broken.resolve("away"), broken.resolve("checkpoints"));
    Trainer.Summary resumed = run("broken", setup, 1, true, () -> false);
    assertEquals(files(whole.checkpoint()), files(resumed.checkpoint()));
    assertEquals(
        Files.readString(folder.resolve("whole/log.jsonl")),
        Files.readString(broken.resolve("log.jsonl")));
  }

  @Test
  void withContinueTheRunGoesOnAndNamesEveryCheckpointItSkipped() throws IOException {
    Trainer.Setup stop = setup(1, 2, 8, 3, 2);
    TrainConfig t = only(stop).train();
    Trainer.Setup setup =
        new Trainer.Setup(
            only(stop).model(),
            only(stop).data(),
            only(stop).optimizer(),
            only(stop).schedule(),
            new TrainConfig(
                t.epochs(),
                t.batch(),
                t.microBatch(),
                t.gradient(),
                t.precision(),
                t.labelSmoothing(),
                t.evaluateEveryEpochs(),
                t.checkpointEverySteps(),
                t.keepCheckpoints(),
                t.logEverySteps(),
                TrainConfig.OnCheckpointFailure.CONTINUE),
            stop.seed(),
            stop.trajectory());
    Trainer.Summary whole = run("whole", stop, 1, false, () -> false);
    List<String> told = new ArrayList<>();
    Trainer.Summary mended =
        runBroken("mended", setup, breaking(folder.resolve("mended"), 3, 7, told));
    assertEquals(whole.step(), mended.savedStep());
    assertEquals(told, mended.failures());
    assertTrue(
        told.stream().anyMatch(reason -> reason.startsWith("step 4: the checkpoint was not")),
        told.toString());
    assertEquals(files(whole.checkpoint()), files(mended.checkpoint()));
    assertEquals(
        Files.readString(folder.resolve("whole/log.jsonl")),
        Files.readString(folder.resolve("mended/log.jsonl")));

    Trainer.Summary lost =
        runBroken("lost", setup, breaking(folder.resolve("lost"), 3, -1, new ArrayList<>()));
    assertTrue(lost.complete());
    assertTrue(lost.savedStep() < lost.step(), lost.toString());
    assertEquals("step_00000002", lost.checkpoint().getFileName().toString());
  }

  @Test
  void backwardWithoutForwardIsRefused() {
    try (Backend backend = CpuBackend.open(1);
        Network network =
            new Network(NETWORK, Shape.of(16, 16, 2), new Planner(backend, 2, Gradient.FP32))) {
      network.allocate();
      network.initialize(1);
      assertThrows(IllegalStateException.class, () -> network.backward(2, GradMode.OVERWRITE));
      network.forward(2, Pass.EVALUATE);
      assertThrows(IllegalStateException.class, () -> network.backward(2, GradMode.OVERWRITE));
    }
  }

  @Test
  void oddSizesAreRefusedWithTheSizesNamed() {
    try (Backend backend = CpuBackend.open(1)) {
      IllegalArgumentException e =
          assertThrows(
              IllegalArgumentException.class,
              () ->
                  new Network(
                      NETWORK, Shape.of(28, 28, 1), new Planner(backend, 2, Gradient.FP32)));
      assertTrue(
          e.getMessage().contains("layer4.0.downsample")
              && e.getMessage().contains("7x7")
              && e.getMessage().contains("data.image_size"),
          e.getMessage());
    }
  }

  @Test
  void aFilterTooLargeForItsExactScaleIsRefusedWhilePlanning() {
    NetworkConfig wide =
        new NetworkConfig(
            NETWORK.network(),
            18,
            256,
            4,
            NETWORK.stem(),
            NETWORK.weights(),
            NETWORK.nonlinearity(),
            NETWORK.weightGradient(),
            NETWORK.activationGradient(),
            NETWORK.init());
    try (Backend backend = CpuBackend.open(1)) {
      IllegalArgumentException e =
          assertThrows(
              IllegalArgumentException.class,
              () -> new Network(wide, Shape.of(16, 16, 2), new Planner(backend, 2, Gradient.FP32)));
      assertTrue(
          e.getMessage().contains("layer4.1.binary_conv.weights")
              && e.getMessage().contains("18432")
              && e.getMessage().contains("model.width"),
          e.getMessage());
    }
  }

  @Test
  void aSingleImageLeftOverOnAOneByOneStageIsRefusedBeforeTheFirstStep() {
    // 45 images in batches of 11 leave one; 8x8 images end as 1x1.
    Trainer.Setup setup = setup(1, 1, 11, 11, 0);
    DataConfig d = only(setup).data();
    DataConfig small =
        new DataConfig(
            d.dataset(),
            "",
            8,
            0,
            false,
            d.mean(),
            d.std(),
            1,
            2,
            120,
            d.syntheticTrainImages(),
            d.syntheticTestImages(),
            d.syntheticChannels(),
            d.syntheticClasses());
    Trainer.Setup left =
        new Trainer.Setup(
            only(setup).model(),
            small,
            only(setup).optimizer(),
            only(setup).schedule(),
            only(setup).train(),
            7,
            Map.of());
    IllegalArgumentException e =
        assertThrows(
            IllegalArgumentException.class, () -> run("left", left, 1, false, () -> false));
    assertTrue(
        e.getMessage().contains("1x1") && e.getMessage().contains("train.micro_batch"),
        e.getMessage());
  }

  @Test
  void theBestMarkIsRenewedWhereACrashCameBetweenSavingAndMarking() throws IOException {
    Trainer.Setup setup = setup(1, 1, 8, 8, 0);
    Trainer.Summary summary = run("run", setup, 1, false, () -> false);
    Files.delete(folder.resolve("run/checkpoints/best.json"));
    run("run", setup, 1, true, () -> false);
    CheckpointStore store = CheckpointStore.forReading(folder.resolve("run/checkpoints"));
    assertEquals(summary.step(), store.bestMark().orElseThrow().step());
    assertEquals(summary.bestTop1Percent(), store.bestMark().orElseThrow().metric());
  }

  @Test
  void aMicroBatchThatDoesNotFitIsRefusedWithATable() {
    try (Backend backend = CpuBackend.open(1);
        Network network =
            new Network(
                NETWORK, Shape.of(1024, 1024, 2), new Planner(backend, 2048, Gradient.FP32))) {
      MemoryException e = assertThrows(MemoryException.class, network::allocate);
      assertTrue(
          e.getMessage().contains("activations")
              && e.getMessage().contains("set train.micro_batch to about"),
          e.getMessage());
    }
  }

  @Test
  void publishedNetworksHaveTheirPublishedParametersAndEntries() {
    try (Backend backend = CpuBackend.open(1)) {
      assertCounts(backend, 18, 11_689_512, 122);
      assertCounts(backend, 34, 21_797_672, 218);
    }
  }

  private static void assertCounts(Backend backend, int depth, long parameters, int entries) {
    NetworkConfig config =
        new NetworkConfig(
            NetworkConfig.Family.BIREALNET,
            depth,
            64,
            1000,
            NetworkConfig.Stem.IMAGENET,
            NetworkConfig.Weights.AUTO,
            NetworkConfig.Nonlinearity.AUTO,
            WeightGradient.CLIPPED,
            ActivationGradient.APPROX_SIGN,
            NetworkConfig.Init.PUBLISHED);
    try (Network network =
        new Network(config, Shape.of(224, 224, 3), new Planner(backend, 1, Gradient.FP32))) {
      List<State> states = network.planner().states();
      assertEquals(entries, states.size());
      assertEquals(
          parameters,
          states.stream()
              .filter(Parameter.class::isInstance)
              .mapToLong(s -> s.shape().count())
              .sum());
      if (depth == 18) {
        // networks.md 1A.4.
        assertEquals(
            1_676_279_808L,
            network.planner().layers().stream().mapToLong(Planner.LayerRow::binaryMacs).sum());
        assertEquals(
            137_793_536L,
            network.planner().layers().stream().mapToLong(Planner.LayerRow::realMacs).sum());
      }
      Optional<State> binary =
          states.stream().filter(s -> s.name().equals("layer2.0.binary_conv.weights")).findFirst();
      assertArrayEquals(new long[] {73_728, 1}, binary.orElseThrow().publishedDims());
    }
  }
}
