package bireal.config;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Every kind of wrong config gives one message that names the place, the key and the fix. */
class ConfigErrorsTest {
  /** Valid, with the required keys only. */
  static final String VALID =
      """
      name: test
      model:
        network: birealnet
        depth: 18
        classes: 10
        stem: cifar
      data:
        dataset: fashion_mnist
        path: /d
        image_size: 32
        mean: [0.5]
        std: [0.5]
      optimizer:
        lr: 1e-3
        reference_batch: 128
      train:
        epochs: 1
        batch: 64
        micro_batch: 32
      """;

  @TempDir Path folder;

  /** Text of VALID, what it is replaced by, message less the path of the file. */
  static List<Arguments> wrongFiles() {
    return List.of(
        // Unknown keys.
        wrong(
            "  batch: 64",
            "  bach: 64",
            ":18:3: train.bach is not a known key; did you mean train.batch?"),
        wrong(
            "  batch: 64",
            "  batch: 64\n  labelSmoothing: 0.1",
            ":19:3: train.labelSmoothing is not a known key; did you mean train.label_smoothing?"),
        wrong(
            "name: test",
            "name: test\nepochs: 3",
            ":2:1: epochs is not a known key; did you mean train.epochs?"),
        wrong(
            "name: test",
            "name: test\ntrain.epochs: 3",
            ":2:1: train.epochs is not a known key; did you mean 'epochs' indented under"
                + " 'train:'?"),
        wrong(
            "name: test",
            "name: test\nzzzzzzzzzz: 3",
            ":2:1: zzzzzzzzzz is not a known key; known here: name, seed, backend, device,"
                + " cuda_graphs, threads, runs_folder, model, start, teacher, data, optimizer, schedule, train, stages"),
        wrong(
            "  depth: 18",
            "  depth: 18\n  extends: a.yaml",
            ":5:3: model.extends is not a known key; 'extends: FILE' stands at the top of a file,"
                + " not in a section or an override"),
        // Missing keys.
        wrong(
            "name: test", "seed: 1", ": name is missing; it has no default, so write 'name: TEXT'"),
        wrong(
            "  batch: 64\n",
            "",
            ":16:1: train.batch is missing; it has no default, so write 'batch: INTEGER' under"
                + " 'train:'"),
        wrong(
            "  stem: cifar\n",
            "",
            ":2:1: model.stem is missing; it has no default, so write 'stem: one of imagenet,"
                + " cifar' under 'model:'"),
        wrong(
            "optimizer:\n  lr: 1e-3\n  reference_batch: 128\n",
            "",
            ": optimizer.lr is missing; it has no default, so write 'lr: NUMBER' under 'optimizer:'"
                + " (missing likewise: reference_batch)"),
        wrong(
            "  mean: [0.5]\n",
            "",
            ":7:1: data.mean is missing; it has no default, so write 'mean: [NUMBER, ...]' under"
                + " 'data:'"),
        // Duplicate keys.
        wrong(
            "  epochs: 1",
            "  epochs: 1\n  epochs: 2",
            ":18:3: 'epochs' stands here a second time (first: <file>:17:3); remove one of the"
                + " two"),
        wrong(
            "name: test",
            "name: test\ndata: {}",
            ":8:1: 'data' stands here a second time (first: <file>:2:1); remove one of the two"),
        // No value.
        wrong("  batch: 64", "  batch:", ":18:9: train.batch must be an integer; got no value"),
        wrong(
            "  batch: 64", "  batch: null", ":18:10: train.batch must be an integer; got no value"),
        wrong("name: test", "name: ~", ":1:7: name must be text; put it in quotes; got no value"),
        wrong(
            "name: test",
            "name: test\nschedule:",
            ":2:10: schedule must be a section: keys and values, indented under it; got no value"),
        // Wrong types.
        wrong(
            "  batch: 64",
            "  batch: \"64\"",
            ":18:10: train.batch must be an integer; got '64' in quotes, which is text"),
        wrong("  batch: 64", "  batch: 1.5", ":18:10: train.batch must be an integer; got '1.5'"),
        wrong("  batch: 64", "  batch: 64.0", ":18:10: train.batch must be an integer; got '64.0'"),
        wrong("  batch: 64", "  batch: 0x40", ":18:10: train.batch must be an integer; got '0x40'"),
        wrong("  batch: 64", "  batch: 064", ":18:10: train.batch must be an integer; got '064'"),
        wrong(
            "  batch: 64", "  batch: 1_000", ":18:10: train.batch must be an integer; got '1_000'"),
        wrong("  batch: 64", "  batch: true", ":18:10: train.batch must be an integer; got 'true'"),
        wrong("  batch: 64", "  batch: [64]", ":18:10: train.batch must be an integer; got a list"),
        wrong(
            "  batch: 64",
            "  batch:\n    size: 64",
            ":19:5: train.batch must be an integer; got a section"),
        wrong(
            "  batch: 64",
            "  batch: 3000000000",
            ":18:10: train.batch must be an integer in -2147483648..2147483647; got '3000000000'"),
        wrong(
            "name: test",
            "name: test\nseed: 9223372036854775808",
            ":2:7: seed must be an integer in -9223372036854775808..9223372036854775807; got"
                + " '9223372036854775808'"),
        wrong("  lr: 1e-3", "  lr: fast", ":14:7: optimizer.lr must be a number; got 'fast'"),
        wrong("  lr: 1e-3", "  lr: e-3", ":14:7: optimizer.lr must be a number; got 'e-3'"),
        wrong("  lr: 1e-3", "  lr: .", ":14:7: optimizer.lr must be a number; got '.'"),
        wrong("  lr: 1e-3", "  lr: 01.5", ":14:7: optimizer.lr must be a number; got '01.5'"),
        wrong("  lr: 1e-3", "  lr: .nan", ":14:7: optimizer.lr must be a number; got '.nan'"),
        wrong("  lr: 1e-3", "  lr: 1e999", ":14:7: optimizer.lr must be a number; got '1e999'"),
        wrong(
            "  mean: [0.5]",
            "  mean: 0.5",
            ":11:9: data.mean must be a list of numbers such as [0.5, 0.5]; got '0.5'"),
        wrong(
            "  mean: [0.5]", "  mean: [0.5, x]", ":11:15: data.mean[1] must be a number; got 'x'"),
        wrong(
            "  path: /d",
            "  path: /d\n  flip: yes",
            ":10:9: data.flip must be true or false; got 'yes'"),
        wrong("name: test", "name: 12", ":1:7: name must be text; put it in quotes; got '12'"),
        wrong("name: test", "name: 1e-3", ":1:7: name must be text; put it in quotes; got '1e-3'"),
        wrong(
            "  path: /d",
            "  path: [/d]",
            ":9:9: data.path must be text; put it in quotes; got a list"),
        wrong(
            "  path: /d",
            "  path: \"a\\0b\"",
            ":9:9: data.path must be text without control characters; got 'a?b' in quotes, which is"
                + " text"),
        wrong(
            "optimizer:\n  lr: 1e-3\n  reference_batch: 128",
            "optimizer: adam",
            ":13:12: optimizer must be a section: keys and values, indented under it; got 'adam'"),
        // Enums: the one spelling only.
        wrong(
            "fashion_mnist",
            "fashion-mnist",
            ":8:12: data.dataset must be one of: fashion_mnist, cifar10, synthetic, imagenet; got"
                + " 'fashion-mnist'"),
        wrong(
            "fashion_mnist",
            "FASHION_MNIST",
            ":8:12: data.dataset must be one of: fashion_mnist, cifar10, synthetic, imagenet; got"
                + " 'FASHION_MNIST'"),
        wrong(
            "name: test",
            "name: test\nbackend: gpu",
            ":2:10: backend must be one of: cpu, cuda, auto, reference; got 'gpu'"),
        // Out of range: refused by the record that owns the key.
        wrong("  epochs: 1", "  epochs: 0", ":17:11: train.epochs must be >= 1, got 0"),
        wrong(
            "  micro_batch: 32",
            "  micro_batch: 65",
            ":19:16: train.micro_batch must be in 1..batch (64), got 65"),
        wrong(
            "  depth: 18",
            "  depth: 101",
            ":4:10: model.depth must be 18, 34 or 50 for birealnet, got 101"),
        wrong(
            "  network: birealnet\n  depth: 18",
            "  network: xnornet\n  depth: 50",
            ":4:10: model.depth must be 18 or 34 for xnornet, got 50"),
        wrong(
            "  depth: 18",
            "  depth: 50\n  width: 18",
            ":5:10: model.width must be a multiple of 4 for depth 50, whose first block has a"
                + " convolution of a quarter of it, got 18"),
        wrong(
            "  stem: cifar",
            "  stem: cifar\n  weights: real",
            ":7:12: model.weights must be binary for birealnet, got real"),
        wrong(
            "  stem: cifar",
            "  stem: cifar\n  nonlinearity: relu",
            ":7:17: model.nonlinearity must be sign for birealnet, got relu"),
        wrong(
            "  network: birealnet",
            "  network: realnet",
            ":2:1: model.nonlinearity must be relu, leaky_clip or clip for realnet, got auto"),
        wrong("  lr: 1e-3", "  lr: -1e-3", ":14:7: optimizer.lr must be in (0, 1000), got -0.001"),
        wrong("  std: [0.5]", "  std: [0]", ":12:8: data.std must be positive, got 0.0"),
        wrong("  std: [0.5]", "  std: []", ":11:9: data.mean has 1 values but std has 0"),
        wrong(
            "train:",
            "schedule:\n  warmup_steps: -1\ntrain:",
            ":17:17: schedule.warmup_steps must be >= 0, got -1"),
        wrong("name: test", "name: test\nthreads: -1", ":2:10: threads must be in 0..1024, got -1"),
        wrong(
            "name: test",
            "name: ../x",
            ":1:7: name must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or"
                + " digit; got '../x'"),
        wrong(
            "name: test",
            "name: test\nruns_folder: ''",
            ":2:14: runs_folder must name a folder, got no name"),
        // Two sections that do not fit each other.
        wrong(
            "  classes: 10",
            "  classes: 100",
            ":5:12: model.classes must be 10, the classes of data.dataset fashion_mnist, got 100"),
        wrong(
            "fashion_mnist",
            "imagenet",
            ":5:12: model.classes must be 1000, the classes of data.dataset imagenet, got 10"),
        wrong(
            "  dataset: fashion_mnist",
            "  dataset: synthetic\n  synthetic_classes: 3",
            ":5:12: model.classes must be 3, the classes of data.dataset synthetic, got 10"),
        wrong(
            "fashion_mnist",
            "cifar10",
            ":11:9: data.mean must have as many values as data.dataset cifar10 has channels, 3, got"
                + " 1"),
        wrong(
            "  stem: cifar\ndata:\n  dataset: fashion_mnist\n  path: /d\n  image_size: 32",
            "  stem: imagenet\ndata:\n  dataset: fashion_mnist\n  path: /d\n  image_size: 28",
            ":10:15: data.image_size must be >= 32, by which the network with model.stem imagenet"
                + " divides it, got 28"),
        wrong(
            "  path: /d\n",
            "", // blamed: a built-in default, so the section that should hold the key
            ":7:1: data.path must name the folder with the files of data.dataset fashion_mnist, got"
                + " no name"),
        // YAML that a config may not use, and text that is not YAML.
        wrong(
            "  epochs: 1",
            "  epochs: &n 1",
            ":17:11: an anchor (&name) is not allowed in a config; write the value out, or use"
                + " 'extends: FILE'"),
        wrong(
            "  epochs: 1",
            "  epochs: *n",
            ":17:11: an alias (*name) is not allowed in a config; write the value out, or use"
                + " 'extends: FILE'"),
        wrong(
            "  epochs: 1",
            "  epochs: !!int 1",
            ":17:11: a tag (!name) is not allowed in a config; write the value out, or use"
                + " 'extends: FILE'"),
        wrong(
            "  epochs: 1",
            "  epochs: !!java.net.URL [x]",
            ":17:11: a tag (!name) is not allowed in a config; write the value out, or use"
                + " 'extends: FILE'"),
        wrong(
            "  epochs: 1",
            "  epochs: " + "[".repeat(20) + "]".repeat(20),
            ":17:26: nested deeper than 16 levels"),
        wrong(
            "name: test",
            "name: test\n? [a]\n: b",
            ":2:3: a key must be a word, not a list or a section"),
        wrong(
            "name: test",
            "name: test\n---\nname: test",
            ":2:1: a second YAML document; a config is one document without '---'"),
        wrong(
            "  epochs: 1",
            "\tepochs: 1",
            ":17:1: not valid YAML: while scanning for the next token: found character"
                + " '\\t(TAB)' that cannot start any token. (Do not use \\t(TAB) for indentation)"),
        wrong(
            "  mean: [0.5]",
            "  mean: [0.5",
            ":12:6: not valid YAML: while parsing a flow sequence: expected ',' or ']', but got :"),
        wrong(VALID, "", ": empty; a config needs at least the required keys"),
        wrong(VALID, "# nothing\n", ": empty; a config needs at least the required keys"),
        wrong(VALID, "- a\n- b\n", ":1:1: a config is a mapping of 'key: value' lines"),
        wrong(VALID, "hello\n", ":1:1: a config is a mapping of 'key: value' lines"));
  }

  private static Arguments wrong(String text, String replacement, String message) {
    return Arguments.of(text, replacement, message);
  }

  @ParameterizedTest(name = "{2}")
  @MethodSource("wrongFiles")
  void wrongFileIsRefusedWithPlaceKeyAndFix(String text, String replacement, String message)
      throws IOException {
    assertTrue(VALID.contains(text), "the table replaces text that VALID lacks: " + text);
    Path file = write("wrong.yaml", VALID.replace(text, replacement));
    ConfigException e = assertThrows(ConfigException.class, () -> load(file));
    assertEquals(file + message.replace("<file>", file.toString()), e.getMessage());
  }

  /** Override, message less the override. */
  static List<Arguments> wrongOverrides() {
    return List.of(
        Arguments.of("train.batch=many", "train.batch must be an integer; got 'many'"),
        Arguments.of("train.batch=", "train.batch must be an integer; got no value"),
        Arguments.of("train.batch=0", "train.batch must be >= 1, got 0"),
        Arguments.of("trian.batch=1", "trian is not a known key; did you mean train?"),
        Arguments.of("train.bathc=1", "train.bathc is not a known key; did you mean train.batch?"),
        Arguments.of("batch=1", "batch is not a known key; did you mean train.batch?"),
        Arguments.of("train.batch.x=1", "train.batch must be an integer; got a section"),
        Arguments.of(
            "train=1", "train must be a section: keys and values, indented under it; got '1'"),
        Arguments.of("train.batch", "must be KEY=VALUE, such as train.batch=64"),
        Arguments.of("=3", "must be KEY=VALUE, such as train.batch=64"),
        Arguments.of("train..batch=3", "must be KEY=VALUE, such as train.batch=64"),
        Arguments.of("", "must be KEY=VALUE, such as train.batch=64"),
        Arguments.of(
            "extends=a.yaml",
            "extends is not a known key; 'extends: FILE' stands at the top of a file, not in a"
                + " section or an override"),
        Arguments.of(
            "data.mean=[0.5",
            "not valid YAML: while parsing a flow sequence: expected ',' or ']',"
                + " but got <stream end>"),
        Arguments.of(
            "model.classes=7",
            "model.classes must be 10, the classes of data.dataset fashion_mnist, got 7"));
  }

  @ParameterizedTest(name = "--set {0}")
  @MethodSource("wrongOverrides")
  void wrongOverrideIsRefusedByItsOwnText(String override, String message) throws IOException {
    Path file = write("valid.yaml", VALID);
    ConfigException e = assertThrows(ConfigException.class, () -> load(file, override));
    assertEquals("--set " + override + ": " + message, e.getMessage());
  }

  @Test
  void exceptionTellsPlaceAndKeyApart() throws IOException {
    Path file = write("wrong.yaml", VALID.replace("epochs: 1", "epochs: 0"));
    ConfigException e = assertThrows(ConfigException.class, () -> load(file));
    assertEquals(file + ":17:11", e.place());
    assertEquals("train.epochs", e.key());
  }

  @Test
  void fileThatIsNoConfigIsRefused() throws IOException {
    Path missing = folder.resolve("missing.yaml");
    assertMessage(missing, missing + ": the config file " + missing + " does not exist");
    assertMessage(folder, folder + ": " + folder + " is a folder; name a config file");
    Path large = write("large.yaml", "#".repeat(YamlReader.MAX_BYTES + 1));
    assertMessage(large, large + ": larger than 100000 bytes, so hardly a config file");
    Path binary = folder.resolve("binary.yaml");
    Files.write(binary, new byte[] {(byte) 0x89, 'P', 'N', 'G', (byte) 0xff});
    assertMessage(binary, binary + ": not UTF-8 text; save the file as UTF-8");
    Path control = write("control.yaml", "name: a\0b\n");
    assertTrue(
        assertThrows(ConfigException.class, () -> load(control))
            .getMessage()
            .startsWith(control + ": not valid YAML: "));
    Path tag = write("tag.yaml", "name: !!a\t.b c\n");
    assertMessage(
        tag, tag + ":1:10: not valid YAML: while scanning a tag: expected ' ', but found '?' (9)");
  }

  @Test
  void baseThatCannotBeReadIsBlamedOnTheLineThatExtendsIt() throws IOException {
    Path file = write("top.yaml", "name: x\nextends: nowhere.yaml\n");
    assertMessage(
        file,
        file + ":2:10: the config file " + folder.resolve("nowhere.yaml") + " does not exist");
    Path list = write("list.yaml", "extends: [[a.yaml], b.yaml]\n");
    assertMessage(
        list, list + ":1:11: extends must be the name of a file, or a list of such names");
    Path none = write("none.yaml", "extends:\n");
    assertMessage(none, none + ":1:9: extends must be the name of a file, or a list of such names");
  }

  @Test
  void filesThatExtendEachOtherAreRefused() throws IOException {
    Path a = write("a.yaml", "extends: b.yaml\n");
    Path b = write("b.yaml", "extends: ./c.yaml\n");
    Path c = write("c.yaml", "extends: a.yaml\n");
    assertMessage(
        a, c + ":1:10: extends leads back to " + a + ", so it never ends; remove one 'extends'");
    Path self = write("self.yaml", "extends: self.yaml\n");
    assertMessage(
        self,
        self + ":1:10: extends leads back to " + self + ", so it never ends; remove one 'extends'");
    assertTrue(Files.exists(b));
  }

  @Test
  void keyOfABaseIsBlamedOnTheBase() throws IOException {
    Path base = write("base.yaml", VALID.replace("epochs: 1", "epochs: none"));
    Path top = write("top.yaml", "extends: base.yaml\nname: top\n");
    assertMessage(top, base + ":17:11: train.epochs must be an integer; got 'none'");
  }

  private void assertMessage(Path file, String message) {
    assertEquals(message, assertThrows(ConfigException.class, () -> load(file)).getMessage());
  }

  private Path write(String name, String text) throws IOException {
    return Files.writeString(folder.resolve(name), text, StandardCharsets.UTF_8);
  }

  @Test
  void wrongStagesAreBlamedOnTheirLine() throws IOException {
    Path file = folder.resolve("stages.yaml");
    for (List<String> wrong :
        List.of(
            List.of("stages: 3\n", ":20:9: stages must be sections, one for each stage"),
            List.of("stages: {}\n", ":20:9: stages must be sections, one for each stage"),
            List.of("stages:\n  a b: {}\n", ":21:3: stages a stage's name is 1 to 40 letters"),
            List.of("stages:\n  a: 3\n", ":21:6: stages.a must be a section"),
            List.of(
                "stages:\n  a:\n    seed: 1\n",
                ":22:5: stages.a.seed belongs to the run, not to a stage"),
            List.of(
                "stages:\n  a:\n    train: {epoch: 1}\n",
                ":22:13: stages.a.train.epoch is not a known key; did you mean"),
            List.of(
                "stages:\n  a:\n    start: {from: previous}\n",
                ":21:3: stages.a.start.from is previous, but there is no stage before this one"),
            List.of(
                "stages:\n  a:\n    start: {fresh: [x]}\n",
                ":22:20: stages.a.start.fresh must be [] where start.from is nothing"),
            List.of("start: {from: previous}\n", ": start.from is previous, but there is no stage"),
            List.of(
                "schedule: {type: multi_step, milestones: [1]}\n",
                ":20:42: schedule.milestones must be less than train.epochs, 1"),
            List.of(
                "schedule: {milestones: [1]}\n",
                ":20:24: schedule.milestones must be [] unless type is multi_step"),
            List.of(
                "schedule: {warmup_epochs: 2}\n",
                ":20:27: schedule.warmup_epochs must be at most train.epochs, 1, got 2.0"),
            List.of(
                "teacher: {weights: t, temperature: 1, model: {depth: 34, classes: 9}}\n",
                ":20:67: teacher.model.classes must be those of the student, 10, got 9"),
            List.of(
                "teacher: {weights: t, temperature: 0, model: {depth: 34}}\n",
                ":20:36: teacher.temperature must be in (0, 1000], got 0.0"),
            List.of("teacher: yes\n", ":20:10: teacher must be a section"),
            List.of("optimizer: {frozen: fc}\n", "'optimizer' stands here a second time"))) {
      Files.writeString(file, VALID + wrong.get(0));
      String message = assertThrows(ConfigException.class, () -> load(file)).getMessage();
      assertTrue(message.contains(wrong.get(1)), message);
    }
  }

  private static RunConfig load(Path file, String... overrides) {
    return ConfigLoader.load(file, List.of(overrides)).last();
  }
}
