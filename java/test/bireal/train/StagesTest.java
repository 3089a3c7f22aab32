package bireal.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.ActivationGradient;
import bireal.backend.Backend;
import bireal.backend.Gradient;
import bireal.backend.Precision;
import bireal.backend.SgdForm;
import bireal.backend.WeightGradient;
import bireal.backend.cpu.CpuBackend;
import bireal.data.DataConfig;
import bireal.nn.Network;
import bireal.nn.NetworkConfig;
import bireal.nn.Planner;
import bireal.optim.LrSchedule;
import bireal.optim.OptimizerConfig;
import bireal.tensor.Shape;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
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

/** Runs of several stages: what passes between them, resume inside each, and wrong settings. */
class StagesTest {
  @TempDir Path folder;

  private static NetworkConfig birealnet(int width, int classes) {
    return network(NetworkConfig.Family.BIREALNET, NetworkConfig.Nonlinearity.AUTO, width, classes);
  }

  private static NetworkConfig network(
      NetworkConfig.Family family, NetworkConfig.Nonlinearity kind, int width, int classes) {
    return new NetworkConfig(
        family,
        18,
        width,
        classes,
        NetworkConfig.Stem.CIFAR,
        NetworkConfig.Weights.AUTO,
        kind,
        WeightGradient.CLIPPED,
        ActivationGradient.APPROX_SIGN,
        NetworkConfig.Init.KAIMING);
  }

  /** 21 training images, 7 test images of 16x16x2. */
  private static DataConfig data(int classes) {
    return new DataConfig(
        DataConfig.Kind.SYNTHETIC,
        "",
        16,
        2,
        true,
        List.of(0.5, 0.5),
        List.of(0.25, 0.25),
        1,
        2,
        120,
        21,
        7,
        2,
        classes);
  }

  private static OptimizerConfig adam(String... frozen) {
    return new OptimizerConfig(
        OptimizerConfig.Type.ADAM,
        2e-3,
        8,
        0.9,
        0.999,
        1e-8,
        0.9,
        SgdForm.PYTORCH,
        0,
        OptimizerConfig.Decayed.ALL,
        List.of(frozen));
  }

  private static OptimizerConfig sgd(String... frozen) {
    return new OptimizerConfig(
        OptimizerConfig.Type.SGD,
        1e-2,
        8,
        0.9,
        0.999,
        1e-8,
        0.9,
        SgdForm.CAFFE,
        1e-4,
        OptimizerConfig.Decayed.FOUR_DIMENSIONAL_OR_CONV,
        List.of(frozen));
  }

  private static TrainConfig train(int epochs, int batch, double smoothing) {
    return new TrainConfig(
        epochs,
        batch,
        4,
        Gradient.FIXED16,
        Precision.FP32,
        smoothing,
        1,
        2,
        2,
        1,
        TrainConfig.OnCheckpointFailure.STOP);
  }

  private static final LrSchedule LINEAR = new LrSchedule(LrSchedule.Type.LINEAR, 0);
  private static final LrSchedule DROPS =
      new LrSchedule(LrSchedule.Type.MULTI_STEP, LrSchedule.Per.STEP, 0, 0, List.of(1.0), 0.1);

  private static StartConfig previous(StartConfig.BinaryWeights binary) {
    return new StartConfig(StartConfig.PREVIOUS, List.of(), List.of(), binary);
  }

  /** From the seed; Adam. */
  private static Stage first(NetworkConfig network) {
    return new Stage(
        "first",
        StartConfig.FROM_SEED,
        network,
        Optional.empty(),
        data(network.classes()),
        adam(),
        LINEAR,
        train(1, 8, 0.1));
  }

  /** From the stage before, weights +-1 and frozen; SGD. */
  private static Stage second(NetworkConfig network, String... frozen) {
    return new Stage(
        "second",
        previous(StartConfig.BinaryWeights.SIGN),
        network,
        Optional.empty(),
        data(network.classes()),
        sgd(frozen),
        DROPS,
        train(2, 9, 0.1));
  }

  /** From the stage before, with a teacher. */
  private static Stage taught(NetworkConfig network, Path teacher, NetworkConfig model) {
    return new Stage(
        "taught",
        previous(StartConfig.BinaryWeights.FOLDED),
        network,
        Optional.of(new TeacherConfig(teacher.toString(), 2, model)),
        data(network.classes()),
        adam(),
        LINEAR,
        train(1, 6, 0));
  }

  private Trainer.Summary run(
      String name, List<Stage> stages, boolean resume, BooleanSupplier stop) {
    return run(
        name,
        new Trainer.Setup(stages, 7, Map.of("key", "value"), (key, value) -> false),
        resume,
        stop);
  }

  private Trainer.Summary run(
      String name, Trainer.Setup setup, boolean resume, BooleanSupplier stop) {
    Path run = folder.resolve(name);
    try (Backend backend = CpuBackend.open(1);
        RunFolder runFolder =
            resume ? RunFolder.resume(run) : RunFolder.create(run, "name: " + name + "\n");
        Trainer trainer = new Trainer(setup, backend, runFolder, resume, Progress.NONE)) {
      return trainer.run(stop);
    }
  }

  @Test
  void aKeyThatIsYoungerThanTheCheckpointMeansItsDefault() {
    Stage stage = first(birealnet(4, 4));
    assertFalse(run("old", List.of(stage), false, after(1)).complete());
    Trainer.Setup other = setup(stage, "other");
    CheckpointException e =
        assertThrows(CheckpointException.class, () -> run("old", other, true, () -> false));
    assertTrue(e.getMessage().contains("new was null, is other"), e.getMessage());
    assertTrue(run("old", setup(stage, "default"), true, () -> false).complete());
  }

  private static Trainer.Setup setup(Stage stage, String value) {
    return new Trainer.Setup(
        List.of(stage),
        7,
        Map.of("key", "value", "new", value),
        (key, now) -> key.equals("new") && now.equals("default"));
  }

  private Path trainedTeacher(NetworkConfig network) {
    Stage stage = first(network);
    run(
        "teacher",
        List.of(
            new Stage(
                "",
                stage.start(),
                stage.model(),
                stage.teacher(),
                stage.data(),
                stage.optimizer(),
                stage.schedule(),
                stage.train())),
        false,
        () -> false);
    return folder.resolve("teacher");
  }

  private static Map<String, String> files(Path checkpoint) throws IOException {
    Map<String, String> contents = new TreeMap<>();
    try (Stream<Path> list = Files.list(checkpoint)) {
      for (Path file : list.toList()) {
        contents.put(
            file.getFileName().toString(),
            new String(Files.readAllBytes(file), StandardCharsets.ISO_8859_1));
      }
    }
    return contents;
  }

  private static BooleanSupplier after(int calls) {
    AtomicInteger asked = new AtomicInteger();
    return () -> asked.incrementAndGet() > calls;
  }

  @Test
  void aRunStoppedInAnyStageOrBetweenTwoResumesToTheBit() throws IOException {
    // Real-valued; binary, its weights +-1 and frozen; binary with a real-valued teacher.
    NetworkConfig network = birealnet(4, 4);
    NetworkConfig real =
        network(NetworkConfig.Family.REALNET, NetworkConfig.Nonlinearity.LEAKY_CLIP, 8, 4);
    Path teacher = trainedTeacher(real);
    List<Stage> stages =
        List.of(
            first(network(NetworkConfig.Family.REALNET, NetworkConfig.Nonlinearity.CLIP, 4, 4)),
            second(network, "*conv*", "*.downsample.1.weight"),
            taught(network, teacher, real));
    AtomicInteger questions = new AtomicInteger();
    Trainer.Summary whole =
        run(
            "whole",
            stages,
            false,
            () -> {
              questions.incrementAndGet();
              return false;
            });
    assertTrue(whole.complete());
    assertEquals(3 + 2 * 3 + 4, whole.step());
    assertEquals(
        List.of("first", "second", "taught"),
        whole.stages().stream().map(Trainer.StageResult::name).toList());
    for (int stopAfter = 0; stopAfter < questions.get(); stopAfter++) {
      String name = "part" + stopAfter;
      Trainer.Summary part = run(name, stages, false, after(stopAfter));
      assertFalse(part.complete(), "stopped after " + stopAfter + " questions");
      Trainer.Summary rest = run(name, stages, true, () -> false);
      assertTrue(rest.complete());
      assertEquals(
          files(whole.checkpoint()), files(rest.checkpoint()), "stopped at step " + part.step());
      assertEquals(
          Files.readString(folder.resolve("whole/log.jsonl")),
          Files.readString(folder.resolve(name + "/log.jsonl")));
      assertEquals(whole.stages().toString(), rest.stages().toString());
    }
  }

  @Test
  void logCheckpointsAndBestKnowTheStageAndTheEndOfEachStageIsKept() throws IOException {
    NetworkConfig network = birealnet(4, 4);
    Trainer.Summary summary =
        run("run", List.of(first(network), second(network)), false, () -> false);
    List<String> log = Files.readAllLines(folder.resolve("run/log.jsonl"));
    assertTrue(log.get(0).contains("\"stage\":\"first\",\"epoch\":0.33"), log.get(0));
    assertTrue(log.stream().anyMatch(line -> line.contains("\"stage\":\"second\",\"epoch\":2.0")));
    CheckpointStore store = CheckpointStore.forReading(folder.resolve("run/checkpoints"));
    assertEquals("first", store.at(3).progress().path("stage").asText());
    assertEquals("second", store.at(9).progress().path("stage").asText());
    assertEquals(6, store.at(9).progress().path("stage_step").asLong());
    // Best within the last stage: a checkpoint of another network would be no use.
    assertTrue(store.bestMark().orElseThrow().step() > 3);
    assertEquals(summary.bestTop1Percent(), store.bestMark().orElseThrow().metric());
    WeightFiles.Found found = WeightFiles.open("test", folder.resolve("run"));
    found.file().close();
    assertEquals("second", found.stage());
  }

  @Test
  void frozenParametersKeepTheirBitsAndTheOthersMove() {
    NetworkConfig network = birealnet(4, 4);
    run(
        "run",
        List.of(first(network), second(network, "*conv*", "*.downsample.1.weight", "fc.*")),
        false,
        () -> false);
    CheckpointStore store = CheckpointStore.forReading(folder.resolve("run/checkpoints"));
    try (Safetensors before = store.at(3).tensors("model.safetensors");
        Safetensors after = store.at(9).tensors("model.safetensors")) {
      int frozen = 0;
      for (String name : before.names()) {
        if (name.endsWith("num_batches_tracked")) {
          continue;
        }
        float[] was = before.read(name).floats();
        float[] is = after.read(name).floats();
        if (name.contains("binary_conv")) {
          for (int i = 0; i < was.length; i++) {
            assertEquals(was[i] < 0 ? -1f : 1f, is[i], name + "[" + i + "]");
          }
          frozen++;
        } else if (name.contains("conv")
            || name.contains("downsample.1")
            || name.startsWith("fc.")) {
          assertArrayEquals(was, is, name);
          frozen++;
        } else {
          assertFalse(java.util.Arrays.equals(was, is), name + " did not move");
        }
      }
      assertEquals(16 + 1 + 3 + 2, frozen);
    }
  }

  @Test
  void aTeacherChangesTheLossAndLeavesItselfAlone() throws IOException {
    NetworkConfig network = birealnet(4, 4);
    Path teacher = trainedTeacher(birealnet(8, 4));
    Map<String, String> before =
        files(CheckpointStore.forReading(teacher.resolve("checkpoints")).at(3).folder());
    Stage stage = taught(network, teacher, birealnet(8, 4));
    Stage alone =
        new Stage(
            "",
            StartConfig.FROM_SEED,
            network,
            stage.teacher(),
            stage.data(),
            stage.optimizer(),
            stage.schedule(),
            stage.train());
    Stage labels =
        new Stage(
            "",
            StartConfig.FROM_SEED,
            network,
            Optional.empty(),
            stage.data(),
            stage.optimizer(),
            stage.schedule(),
            stage.train());
    run("with", List.of(alone), false, () -> false);
    run("without", List.of(labels), false, () -> false);
    assertNotEquals(
        Files.readAllLines(folder.resolve("with/log.jsonl")).get(0),
        Files.readAllLines(folder.resolve("without/log.jsonl")).get(0));
    assertEquals(
        before, files(CheckpointStore.forReading(teacher.resolve("checkpoints")).at(3).folder()));
  }

  @Test
  void theTeacherSeesTheStudentsImages() {
    NetworkConfig network = birealnet(8, 4);
    Path trained = trainedTeacher(network);
    Shape image = Shape.of(16, 16, 2);
    try (Backend backend = CpuBackend.open(1);
        Network student = planned(backend);
        Teacher teacher =
            new Teacher(new TeacherConfig(trained.toString(), 1, network), student, image);
        Network alone = new Network(network, image, new Planner(backend, 4, null))) {
      student.allocate(); // the teacher's memory, too
      student.initialize(3);
      teacher.load();
      alone.allocate();
      try (Safetensors file = WeightFiles.open("test", trained).file()) {
        NetworkFiles.load(alone, file);
      }
      List<Float> expected = logits(backend, alone);
      logits(backend, student); // fills its input alike
      float[] got = bireal.backend.Tensors.floats(backend, teacher.logits(4));
      for (int i = 0; i < got.length; i++) {
        assertEquals(expected.get(i), got[i]);
      }
      assertTrue(student.planner().memory().stream().anyMatch(row -> row.what().equals("teacher")));
    }
  }

  // Wrong settings: each is refused before the first step, and says what to do.

  private void assertRefused(List<Stage> stages, String... parts) {
    RuntimeException e =
        assertThrows(
            RuntimeException.class,
            () -> run("wrong" + System.nanoTime(), stages, false, () -> false));
    assertTrue(
        e instanceof bireal.runtime.InputException || e instanceof IllegalArgumentException,
        e.toString());
    for (String part : parts) {
      assertTrue(e.getMessage().contains(part), e.getMessage());
    }
  }

  @Test
  void weightsOfANetworkOfAnotherShapeAreRefused() {
    assertRefused(
        List.of(first(birealnet(4, 4)), second(birealnet(8, 4))),
        "stage second: start.from previous: the network of stage first does not fit the network",
        "conv1.weight has shape [4, 2, 3, 3] there, the network needs [8, 2, 3, 3]",
        "and ");
  }

  @Test
  void aFileOfAnotherNetworkIsRefusedUnlessTheDifferenceIsNamed() {
    Path other = trainedTeacher(birealnet(4, 6));
    Stage stage = first(birealnet(4, 4));
    for (StartConfig start :
        List.of(
            new StartConfig(other.toString(), List.of(), List.of(), StartConfig.BinaryWeights.KEPT),
            new StartConfig(
                other.toString(), List.of("fc.*"), List.of(), StartConfig.BinaryWeights.KEPT))) {
      Stage from =
          new Stage(
              "",
              start,
              stage.model(),
              stage.teacher(),
              stage.data(),
              stage.optimizer(),
              stage.schedule(),
              stage.train());
      if (start.fresh().isEmpty()) {
        assertRefused(
            List.of(from), "fc.weight has shape [6, 32] there, the network needs [4, 32]");
      } else {
        assertTrue(run("from", List.of(from), false, () -> false).complete());
      }
    }
  }

  /** Flat weights beside 4-dimensional ones, and parameters that only one of the two has. */
  @Test
  void reactNetStartsFromBiRealNetWhereTheNewTensorsAreNamed() {
    NetworkConfig bireal = birealnet(4, 4);
    NetworkConfig react =
        network(NetworkConfig.Family.REACTNET, NetworkConfig.Nonlinearity.AUTO, 4, 4);
    assertRefused(
        List.of(first(bireal), from(react, List.of(), List.of())),
        "stage second: start.from previous",
        "it lacks layer1.0.move0.bias (start.fresh)",
        "and 59 more");
    assertRefused(
        List.of(first(bireal), from(react, List.of("*.move*.bias"), List.of())),
        "it lacks layer1.0.prelu.weight (start.fresh)");
    List<String> fresh = List.of("*.move*.bias", "*.prelu.weight");
    assertTrue(
        run("react", List.of(first(bireal), from(react, fresh, List.of())), false, () -> false)
            .complete());
    assertRefused(
        List.of(first(react), from(bireal, List.of(), List.of())),
        "the network has no layer1.0.move0.bias (start.dropped)");
    assertTrue(
        run("bireal", List.of(first(react), from(bireal, List.of(), fresh)), false, () -> false)
            .complete());
    CheckpointStore store = CheckpointStore.forReading(folder.resolve("react/checkpoints"));
    assertEquals(2, store.list().stream().filter(c -> c.step() == 3 || c.step() == 9).count());
  }

  private static Stage from(NetworkConfig network, List<String> fresh, List<String> dropped) {
    Stage stage = second(network);
    return new Stage(
        "second",
        new StartConfig(StartConfig.PREVIOUS, fresh, dropped, StartConfig.BinaryWeights.KEPT),
        network,
        Optional.empty(),
        stage.data(),
        stage.optimizer(),
        stage.schedule(),
        stage.train());
  }

  @Test
  void namesOfPyTorchsDataParallelAreRead() throws IOException {
    try (Backend backend = CpuBackend.open(1);
        Network source = planned(backend);
        Network target = planned(backend)) {
      source.allocate();
      source.initialize(1);
      target.allocate();
      target.initialize(2);
      List<NamedTensor> tensors = new ArrayList<>();
      for (NamedTensor tensor : NetworkFiles.model(source, 5)) {
        tensors.add(
            new NamedTensor(
                "module." + tensor.name(), tensor.dtype(), tensor.shape(), tensor.data()));
      }
      Path path = folder.resolve("parallel.safetensors");
      Safetensors.write(path, tensors, Map.of());
      try (Safetensors file = Safetensors.open(path)) {
        new WeightTransfer(target.planner(), WeightTransfer.Source.of(file), StartConfig.FROM_SEED)
            .fill(target);
      }
      for (int i = 0; i < source.planner().parameters().size(); i++) {
        assertArrayEquals(
            source.published(source.planner().parameters().get(i)),
            target.published(target.planner().parameters().get(i)));
      }
    }
  }

  private static Network planned(Backend backend) {
    return new Network(birealnet(4, 4), Shape.of(16, 16, 2), new Planner(backend, 4, null));
  }

  @Test
  void aNetworkThatCannotBeFoldedIsRefused() {
    NetworkConfig xnor =
        network(NetworkConfig.Family.XNORNET, NetworkConfig.Nonlinearity.AUTO, 4, 4);
    NetworkConfig real =
        network(NetworkConfig.Family.REALNET, NetworkConfig.Nonlinearity.CLIP, 4, 4);
    Stage folded = taught(xnor, Path.of("unused"), xnor);
    assertRefused(
        List.of(
            first(xnor),
            new Stage(
                "second",
                folded.start(),
                xnor,
                Optional.empty(),
                folded.data(),
                folded.optimizer(),
                folded.schedule(),
                folded.train())),
        "stage second: layer1.0.conv2.weight: no batch normalisation follows");
    assertRefused(
        List.of(first(real), second(real)), "stage second: the network has no binary convolution");
  }

  @Test
  void aPatternThatMatchesNothingIsRefused() {
    NetworkConfig network = birealnet(4, 4);
    assertRefused(
        List.of(first(network), second(network, "*conv*", "layer9.*")),
        "stage second: optimizer.frozen: 'layer9.*' matches no tensor; the names are conv1.weight");
    assertRefused(
        List.of(first(network), second(network, "*")), "stage second: optimizer.frozen", "nothing");
    Stage stage = second(network);
    assertRefused(
        List.of(
            first(network),
            new Stage(
                "second",
                new StartConfig(
                    StartConfig.PREVIOUS,
                    List.of("*.prelu.weight"),
                    List.of(),
                    StartConfig.BinaryWeights.KEPT),
                network,
                Optional.empty(),
                stage.data(),
                stage.optimizer(),
                stage.schedule(),
                stage.train())),
        "start.fresh: '*.prelu.weight' matches no tensor");
  }

  @Test
  void aTeacherWithOtherClassesOrOfAnotherNetworkIsRefused() {
    NetworkConfig network = birealnet(4, 4);
    Path six = trainedTeacher(birealnet(8, 6));
    assertRefused(
        List.of(first(network), taught(network, six, birealnet(8, 4))),
        "stage taught: teacher.weights: ",
        "is a network of 6 classes (fc.bias), the student has 4");
    assertRefused(
        List.of(first(birealnet(4, 6)), taught(birealnet(4, 6), six, birealnet(4, 6))),
        "teacher.weights: ",
        "conv1.weight has shape [8, 2, 3, 3] there, the network needs [4, 2, 3, 3]",
        "or correct teacher.model");
    assertRefused(
        List.of(first(network), taught(network, folder.resolve("none"), network)),
        "teacher.weights: there is no ");
  }

  @Test
  void aScheduleLongerThanTheRunIsRefused() {
    Stage stage = first(birealnet(4, 4));
    for (LrSchedule schedule :
        List.of(
            new LrSchedule(LrSchedule.Type.LINEAR, 4), // the stage has 3 steps
            new LrSchedule(
                LrSchedule.Type.MULTI_STEP, LrSchedule.Per.STEP, 0, 0, List.of(1.0), 0.1))) {
      assertRefused(
          List.of(
              new Stage(
                  "late",
                  stage.start(),
                  stage.model(),
                  stage.teacher(),
                  stage.data(),
                  stage.optimizer(),
                  schedule,
                  stage.train())),
          "stage late: ",
          schedule.milestones().isEmpty()
              ? "warmup_steps must be at most the steps of the run, 3 (1 epochs of 3), got 4"
              : "milestones must be less than train.epochs, 1");
    }
  }

  // Folding.

  @Test
  void theFoldedNetworkIsTheSameFunctionInInference() {
    NetworkConfig network = birealnet(8, 4);
    Path run = trainedTeacher(network);
    try (Backend backend = CpuBackend.open(1);
        Network net = new Network(network, Shape.of(16, 16, 2), new Planner(backend, 4, null))) {
      net.allocate();
      net.initialize(1);
      try (Safetensors file = WeightFiles.open("test", run).file()) {
        NetworkFiles.load(net, file);
      }
      List<Float> before = logits(backend, net);
      BinaryWeights.constrain(net, true);
      List<Float> folded = logits(backend, net);
      float[] weights = net.published(net.binaryUnits().get(3).weight());
      for (float weight : weights) {
        assertEquals(1f, Math.abs(weight));
      }
      // Scale and shift of a folded normalisation are off by a few 2^-24 of themselves; over 17
      // layers, with values of order 1 and no sign that flips, 1e-4 is far above and far below a
      // network that differs.
      double largest = 0;
      for (int i = 0; i < before.size(); i++) {
        largest = Math.max(largest, Math.abs(before.get(i) - folded.get(i)));
      }
      assertTrue(largest < 1e-4, "logits differ by " + largest);
      try (Safetensors file = WeightFiles.open("test", run).file()) {
        NetworkFiles.load(net, file);
      }
      BinaryWeights.constrain(net, false);
      double unfolded = 0;
      List<Float> signs = logits(backend, net);
      for (int i = 0; i < before.size(); i++) {
        unfolded = Math.max(unfolded, Math.abs(before.get(i) - signs.get(i)));
      }
      assertTrue(unfolded > 1e-2, "dropping the scale changed logits only by " + unfolded);
    }
  }

  private static List<Float> logits(Backend backend, Network net) {
    float[] input = new float[(int) net.input().shape().count()];
    for (int i = 0; i < input.length; i++) {
      input[i] = (float) Math.sin(i * 0.37);
    }
    bireal.backend.Tensors.write(backend, net.input(), input);
    net.forward(4, bireal.nn.Pass.EVALUATE);
    List<Float> list = new ArrayList<>();
    for (float value : bireal.backend.Tensors.floats(backend, net.logits())) {
      list.add(value);
    }
    return list;
  }

  @Test
  void aFilterWithoutScaleFoldsIntoAConstantAndANegativeVarianceIsRefused() {
    NetworkConfig network = birealnet(4, 4);
    try (Backend backend = CpuBackend.open(1);
        Network net = new Network(network, Shape.of(16, 16, 2), new Planner(backend, 4, null))) {
      net.allocate();
      net.initialize(1);
      var unit = net.binaryUnits().get(0);
      float[] weights = net.published(unit.weight());
      java.util.Arrays.fill(weights, 0, 36, 0f); // filter 0: 4 channels of 3x3
      net.setPublished(unit.weight(), weights);
      net.refresh();
      List<Float> before = logits(backend, net);
      BinaryWeights.constrain(net, true);
      List<Float> folded = logits(backend, net);
      for (int i = 0; i < before.size(); i++) {
        assertEquals(before.get(i), folded.get(i), 1e-4);
      }
      net.initialize(1);
      java.util.Arrays.fill(weights, 36, 72, 100f);
      net.setPublished(unit.weight(), weights);
      for (var state : net.planner().states()) {
        if (state.name().equals("layer1.0.bn1.running_var")) {
          net.setPublished(state, new float[] {1, 0, 1, 1});
        }
      }
      net.refresh();
      RuntimeException e =
          assertThrows(
              bireal.runtime.InputException.class, () -> BinaryWeights.constrain(net, true));
      assertTrue(
          e.getMessage().startsWith("layer1.0.bn1.running_var[1] would become -"), e.getMessage());
    }
  }
}
