package bireal.config;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.WeightGradient;
import bireal.config.YamlNode.Entry;
import bireal.config.YamlNode.Mapping;
import bireal.data.DataConfig;
import bireal.nn.NetworkConfig;
import bireal.optim.LrSchedule;
import bireal.optim.OptimizerConfig;
import java.io.IOException;
import java.lang.reflect.RecordComponent;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class ConfigLoaderTest {
  private static final Path CONFIGS = Path.of("configs");

  @TempDir Path folder;

  static List<Path> shippedConfigs() throws IOException {
    try (Stream<Path> files = Files.list(CONFIGS)) {
      return files.filter(file -> file.toString().endsWith(".yaml")).sorted().toList();
    }
  }

  @ParameterizedTest
  @MethodSource("shippedConfigs")
  void shippedConfigLoadsAndIsNamedAsItsFile(Path file) {
    assertEquals(file.getFileName().toString(), load(file).name() + ".yaml");
  }

  @ParameterizedTest
  @MethodSource("shippedConfigs")
  void resolvedConfigLoadsToAnEqualRecord(Path file) throws IOException {
    assertRoundTrip(ConfigLoader.load(file, List.of()));
  }

  @Test
  void everyPublishedResultHasItsConfigAndItsTwin() throws IOException {
    List<String> shipped =
        shippedConfigs().stream().map(file -> file.getFileName().toString()).toList();
    for (String result :
        List.of(
            "bireal18",
            "bireal34",
            "bireal50",
            "bireal18_caffe",
            "bireal34_caffe",
            "xnor18",
            "react18")) {
      assertTrue(shipped.contains("imagenet_" + result + ".yaml"), result);
      assertTrue(shipped.contains("fashion_" + result + ".yaml"), result);
      Recipe published =
          ConfigLoader.load(CONFIGS.resolve("imagenet_" + result + ".yaml"), List.of());
      Recipe twin = ConfigLoader.load(CONFIGS.resolve("fashion_" + result + ".yaml"), List.of());
      assertEquals(published.names(), twin.names());
      for (String stage : published.names()) {
        assertEquals(published.stage(stage).model().network(), twin.stage(stage).model().network());
        assertEquals(
            published.stage(stage).optimizer().type(), twin.stage(stage).optimizer().type());
        assertEquals(DataConfig.Kind.FASHION_MNIST, twin.stage(stage).data().dataset());
      }
    }
  }

  @Test
  void stagedConfigsHoldThePublishedRecipes() {
    Recipe react = ConfigLoader.load(CONFIGS.resolve("imagenet_react18.yaml"), List.of());
    assertEquals(List.of("step1", "step2"), react.names());
    for (RunConfig step : react.stages().values()) {
      assertEquals(2.5e-3, step.optimizer().lr());
      assertEquals(128, step.train().epochs());
      assertEquals(512, step.train().batch());
      assertEquals(34, step.teacher().orElseThrow().model().depth());
      assertEquals(NetworkConfig.Family.RESNET, step.teacher().orElseThrow().model().network());
      assertEquals(1000, step.teacher().orElseThrow().model().classes());
      assertEquals(LrSchedule.Type.LINEAR_PUBLISHED, step.schedule().type());
    }
    assertEquals(1e-5, react.stage("step1").optimizer().weightDecay());
    assertEquals(0.0, react.stage("step2").optimizer().weightDecay());
    assertEquals("previous", react.stage("step2").start().from());
    Recipe caffe = ConfigLoader.load(CONFIGS.resolve("imagenet_bireal34_caffe.yaml"), List.of());
    assertEquals(List.of("relu", "leaky_clip", "clip", "binary", "retrain_bn"), caffe.names());
    RunConfig binary = caffe.stage("binary");
    assertEquals(0.08, binary.optimizer().lr());
    assertEquals(0.9, binary.optimizer().momentum());
    assertEquals(0.0, binary.optimizer().weightDecay());
    assertEquals(40, binary.train().epochs());
    assertEquals(1024, binary.train().batch());
    assertEquals(List.of(20.0, 30.0), binary.schedule().milestones());
    assertEquals(34, caffe.stage("relu").model().depth());
    assertEquals(0.1, caffe.stage("relu").optimizer().lr());
  }

  @Test
  void aStageIsLaidOverTheTopOfTheFileAndOverridesReachIntoIt() throws IOException {
    Path file =
        write(
            "a.yaml",
            ConfigErrorsTest.VALID
                + "stages:\n  one:\n    train: {epochs: 3}\n  two:\n    start: {from: previous}\n");
    Recipe recipe =
        ConfigLoader.load(file, List.of("stages.two.optimizer.lr=0.5", "train.batch=33"));
    assertEquals(List.of("one", "two"), recipe.names());
    assertEquals(3, recipe.stage("one").train().epochs());
    assertEquals(1, recipe.stage("two").train().epochs());
    assertEquals(0.5, recipe.stage("two").optimizer().lr());
    assertEquals(1e-3, recipe.stage("one").optimizer().lr());
    assertEquals(33, recipe.stage("two").train().batch());
    assertRoundTrip(recipe);
    assertEquals("1", Trajectory.of(recipe).get("stages.two.train.epochs"));
  }

  /** A checkpoint of an earlier version lacks the keys that came later; it must still resume. */
  @Test
  void whatAnOlderCheckpointLacksMeansTheDefault() throws IOException {
    Recipe recipe =
        ConfigLoader.load(write("a.yaml", ConfigErrorsTest.VALID), List.of("train.epochs=2"));
    List<String> required = new ArrayList<>();
    Trajectory.of(recipe)
        .forEach(
            (key, value) -> {
              if (!Trajectory.isDefault(key, value)) {
                required.add(key);
              }
            });
    assertEquals(
        List.of(
            "data.dataset",
            "data.image_size",
            "data.mean",
            "data.std",
            "model.classes",
            "model.depth",
            "model.network",
            "model.stem",
            "optimizer.lr",
            "optimizer.reference_batch",
            "train.batch",
            "train.epochs",
            "train.micro_batch"),
        required);
    assertTrue(Trajectory.isDefault("stages.two.start.from", "nothing"));
    assertFalse(Trajectory.isDefault("stages.two.start.from", "previous"));
    assertFalse(Trajectory.isDefault("schedule.milestones", "[1.0]"));
    assertFalse(Trajectory.isDefault("optimizer.eps", "1.0E-7"));
    assertFalse(Trajectory.isDefault("teacher.weights", "x"));
  }

  @Test
  void laterBasesLieOverEarlierOnes() throws IOException {
    write("one.yaml", ConfigErrorsTest.VALID);
    write("two.yaml", "train: {epochs: 9}\n");
    RunConfig config = load(write("a.yaml", "extends: [one.yaml, two.yaml]\nname: a\n"));
    assertEquals(9, config.train().epochs());
    assertEquals(64, config.train().batch());
  }

  @Test
  void imagenetConfigsHoldThePublishedRecipe() {
    for (int depth : new int[] {18, 34}) {
      RunConfig config = load(CONFIGS.resolve("imagenet_bireal" + depth + ".yaml"));
      assertEquals(depth, config.model().depth());
      assertEquals(64, config.model().width());
      assertEquals(WeightGradient.CLIPPED, config.model().weightGradient());
      assertEquals(NetworkConfig.Init.PUBLISHED, config.model().init());
      assertEquals(1e-3, config.optimizer().lr());
      assertEquals(512, config.optimizer().referenceBatch());
      assertEquals(0.9, config.optimizer().beta1());
      assertEquals(0.999, config.optimizer().beta2());
      assertEquals(1e-8, config.optimizer().eps());
      assertEquals(0.0, config.optimizer().weightDecay());
      assertEquals(LrSchedule.Type.LINEAR_PUBLISHED, config.schedule().type());
      assertEquals(0, config.schedule().warmupSteps());
      assertEquals(256, config.train().epochs());
      assertEquals(512, config.train().batch());
      assertEquals(0.1, config.train().labelSmoothing());
      assertEquals(List.of(0.485, 0.456, 0.406), config.data().mean());
      assertEquals(List.of(0.229, 0.224, 0.225), config.data().std());
    }
  }

  /** A key gets or loses its default only together with this list. */
  @Test
  void theseKeysHaveNoDefaultAndAllOthersDo() throws IOException {
    List<String> without = new ArrayList<>();
    collectWithoutDefault(RunConfig.class, "", ConfigLoader.defaults(), without);
    assertEquals(
        List.of(
            "name",
            "model.network",
            "model.depth",
            "model.classes",
            "model.stem",
            "data.dataset",
            "data.image_size",
            "data.mean",
            "data.std",
            "optimizer.lr",
            "optimizer.reference_batch",
            "train.epochs",
            "train.batch",
            "train.micro_batch"),
        without);
    String text = Files.readString(Path.of("java/main-resources/bireal/config/defaults.yaml"));
    for (String key : without) {
      String name = key.substring(key.indexOf('.') + 1);
      assertTrue(text.contains("# " + name + ": "), "defaults.yaml explains no " + key);
    }
  }

  @Test
  void everyDefaultIsExplainedOnItsLine() throws IOException {
    for (String line :
        Files.readAllLines(Path.of("java/main-resources/bireal/config/defaults.yaml"))) {
      boolean section = line.matches("[a-z]+:");
      assertTrue(
          section || line.isBlank() || line.contains("# "),
          "defaults.yaml lacks a comment: " + line);
    }
  }

  @Test
  void requiredKeysAloneMakeAConfig() throws IOException {
    RunConfig config = load(write("a.yaml", ConfigErrorsTest.VALID));
    assertEquals(BackendKind.CPU, config.backend());
    assertEquals(0, config.seed());
    assertEquals(0, config.threads());
    assertEquals("runs", config.runsFolder());
    assertEquals(64, config.model().width());
    assertEquals(NetworkConfig.Init.KAIMING, config.model().init());
    assertTrue(config.data().flip());
    assertEquals(OptimizerConfig.Type.ADAM, config.optimizer().type());
    assertEquals(1e-3, config.optimizer().lr());
    assertEquals(LrSchedule.Type.LINEAR, config.schedule().type());
  }

  @Test
  void syntheticDataNeedNoPath() throws IOException {
    RunConfig config =
        load(
            write("a.yaml", ConfigErrorsTest.VALID),
            "data.dataset=synthetic",
            "data.path=''",
            "data.mean=[0.5, 0.4]",
            "data.std=[1, 1]",
            "data.synthetic_channels=2");
    assertEquals(DataConfig.Kind.SYNTHETIC, config.data().dataset());
    assertEquals("", config.data().path());
    assertEquals(List.of(1.0, 1.0), config.data().std());
  }

  @Test
  void overridesAreLaidOnTopInOrder() throws IOException {
    RunConfig config =
        load(
            write("a.yaml", ConfigErrorsTest.VALID),
            "train.epochs=7",
            "train.epochs = 8",
            "name=other",
            "data.path=a=b",
            "data.flip=false",
            "optimizer.lr=5e-4",
            "schedule={type: constant, warmup_steps: 3}",
            "seed=-5");
    assertEquals(8, config.train().epochs());
    assertEquals("other", config.name());
    assertEquals("a=b", config.data().path());
    assertFalse(config.data().flip());
    assertEquals(5e-4, config.optimizer().lr());
    assertEquals(new LrSchedule(LrSchedule.Type.CONSTANT, 3), config.schedule());
    assertEquals(-5, config.seed());
  }

  @Test
  void overrideCanGiveARequiredKey() throws IOException {
    Path file = write("a.yaml", ConfigErrorsTest.VALID.replace("name: test\n", ""));
    assertEquals("given", load(file, "name=given").name());
  }

  @Test
  void fileIsLaidOverTheFilesThatItExtends() throws IOException {
    Files.createDirectory(folder.resolve("bases"));
    write("bases/root.yaml", ConfigErrorsTest.VALID);
    write(
        "bases/middle.yaml",
        "extends: root.yaml\ntrain:\n  epochs: 2\n  log_every_steps: 5\ndata: {mean: [0.1]}\n");
    RunConfig config =
        load(write("top.yaml", "train:\n  epochs: 3\nextends: bases/middle.yaml\nname: top\n"));
    assertEquals("top", config.name());
    assertEquals(3, config.train().epochs());
    assertEquals(5, config.train().logEverySteps());
    assertEquals(64, config.train().batch());
    assertEquals(List.of(0.1), config.data().mean());
    assertEquals(List.of(0.5), config.data().std());
  }

  @Test
  void oneBaseMayBeExtendedByManyFiles() throws IOException {
    write("base.yaml", ConfigErrorsTest.VALID);
    assertEquals("a", load(write("a.yaml", "extends: base.yaml\nname: a\n")).name());
    assertEquals("b", load(write("b.yaml", "extends: base.yaml\nname: b\n")).name());
  }

  @Test
  void windowsLineEndsAndByteOrderMarkAreRead() throws IOException {
    String text = "\uFEFF" + ConfigErrorsTest.VALID.replace("\n", "\r\n");
    assertEquals("test", load(write("a.yaml", text)).name());
  }

  @Test
  void resolvedConfigKeepsExtremeValues() throws IOException {
    Path file = write("a.yaml", ConfigErrorsTest.VALID);
    for (String text :
        List.of(
            "'a b'",
            "' # '",
            "'a: b'",
            "'\"'",
            "'\\'",
            "'null'",
            "'12'",
            "'yes'",
            "'Größe/数据 \uD83D\uDE00'",
            "'" + "long ".repeat(100) + "'",
            "'\u00A0'",
            "'&a *b !c'",
            "''''")) {
      RunConfig config = load(file, "runs_folder=" + text);
      assertRoundTrip(config);
    }
    for (String number :
        List.of(
            "1e10",
            "-0.0",
            "5e-324",
            "1.7976931348623157e308",
            "0.1",
            "3",
            "-2.5E-7",
            "+1.",
            ".5")) {
      assertRoundTrip(load(file, "data.mean=[" + number + "]"));
    }
    for (long seed : new long[] {Long.MIN_VALUE, -1, Long.MAX_VALUE}) {
      RunConfig config = load(file, "seed=" + seed);
      assertEquals(seed, config.seed());
      assertRoundTrip(config);
    }
  }

  @Test
  void resolvedConfigIsTheSameTextEachTime() {
    Recipe config = ConfigLoader.load(CONFIGS.resolve("quickstart.yaml"), List.of());
    assertEquals(ConfigLoader.resolvedYaml(config), ConfigLoader.resolvedYaml(config));
    assertTrue(
        ConfigLoader.resolvedYaml(config)
            .startsWith(
                """
                name: "quickstart"
                seed: 0
                backend: cpu
                device: 0
                cuda_graphs: true
                threads: 0
                """));
  }

  private void assertRoundTrip(RunConfig config) throws IOException {
    assertRoundTrip(new Recipe(Map.of("", config)));
  }

  private void assertRoundTrip(Recipe recipe) throws IOException {
    String yaml = ConfigLoader.resolvedYaml(recipe);
    Recipe again = ConfigLoader.load(write("resolved.yaml", yaml), List.of());
    assertEquals(recipe, again);
    assertEquals(recipe.names(), again.names());
    assertEquals(yaml, ConfigLoader.resolvedYaml(again));
  }

  private static void collectWithoutDefault(
      Class<?> type, String path, Mapping defaults, List<String> without) {
    for (RecordComponent component : type.getRecordComponents()) {
      String key = Values.key(component);
      Entry entry = defaults.entries().get(key);
      if (entry == null) {
        without.add(path + key);
      } else if (component.getType().isRecord()) {
        collectWithoutDefault(
            component.getType(), path + key + ".", (Mapping) entry.value(), without);
      }
    }
  }

  private Path write(String name, String text) throws IOException {
    return Files.writeString(folder.resolve(name), text, StandardCharsets.UTF_8);
  }

  private static RunConfig load(Path file, String... overrides) {
    return ConfigLoader.load(file, List.of(overrides)).last();
  }
}
