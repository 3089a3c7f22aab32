package bireal.cli;

import static bireal.cli.Program.assertEnds;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.cli.Program.Ended;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The program as a user runs it: processes, their exit codes and what they print. */
class ExitCodeIT {
  private static final String CONFIG =
      """
      name: small
      threads: 1
      runs_folder: RUNS
      model: {network: birealnet, depth: 18, width: 8, classes: 4, stem: cifar}
      data: {dataset: synthetic, image_size: 16, mean: [0.5], std: [0.25], synthetic_train_images: 64, synthetic_test_images: 32, synthetic_classes: 4}
      optimizer: {lr: 2.0e-3, reference_batch: 8}
      train: {epochs: 2, batch: 8, micro_batch: 8}
      """;
  private static final Path GOLDEN = Path.of("java/test-resources/golden");

  @TempDir Path folder;

  private Path config() throws IOException {
    Path file = folder.resolve("small.yaml");
    if (!Files.exists(file)) {
      Files.writeString(file, CONFIG.replace("RUNS", folder.resolve("runs").toString()));
    }
    return file;
  }

  private static Ended run(String... args) throws IOException, InterruptedException {
    return Program.run(List.of(), Map.of(), args);
  }

  private Map<String, List<Byte>> newest(String name) throws IOException {
    return Program.newestCheckpoint(folder.resolve("runs").resolve(name));
  }

  @Test
  void aRunIsTrainedEvaluatedAndNotOverwritten() throws Exception {
    String config = config().toString();
    String runFolder = folder.resolve("runs/small").toString();
    Ended trained = run("train", config);
    assertEnds(0, trained, "test accuracy", "small is trained: 16 steps, 2 epochs", runFolder);
    assertEnds(2, run("train", config), runFolder + " already holds a run", "resume");
    assertEnds(0, run("train", config, "--resume"), "small is trained: 16 steps");
    Path model = folder.resolve("runs/small/checkpoints/step_00000016/model.safetensors");
    Ended evaluated = run("eval", config, "--weights", model.toString());
    assertEnds(0, evaluated, "top-1 ");
    String accuracy =
        evaluated.output().replaceAll("(?s).*(top-1 [0-9.]+%  top-5 [0-9.]+%).*", "$1");
    assertTrue(
        trained.output().contains("test accuracy   " + accuracy),
        accuracy + " not in " + trained.output());
    assertEnds(0, run("eval", runFolder), "top-1 ");

    assertEnds(
        2,
        run("eval", config, "--weights", model.toString(), "--set", "model.width=16"),
        "belongs to another network",
        "conv1.weight has shape [8, 1, 3, 3]");
    byte[] bytes = Files.readAllBytes(model);
    Path cut =
        Files.write(folder.resolve("cut.safetensors"), Arrays.copyOf(bytes, bytes.length - 9));
    assertEnds(2, run("eval", config, "--weights", cut.toString()), cut.toString());
    bytes[bytes.length - 5] ^= 4;
    Files.write(model, bytes);
    assertEnds(
        2,
        run("eval", runFolder, "--weights", model.getParent().toString()),
        "model.safetensors",
        "step_00000008");
    assertEnds(
        2,
        run("train", config, "--resume"),
        "model.safetensors",
        "the previous good checkpoint is",
        "go on with: scripts/bireal train " + config + " --resume --from-step 8");
    assertEnds(2, run("train", config, "--from-step", "8"), "--from-step 8 needs --resume");
    assertEnds(
        2,
        run("train", config, "--resume", "--from-step", "9"),
        "has no checkpoint of step 9; its steps are [8, 16]");
    bytes[bytes.length - 5] ^= 4;
    assertEnds(
        0, run("train", config, "--resume", "--from-step", "8"), "small is trained: 16 steps");
    assertArrayEquals(bytes, Files.readAllBytes(model)); // the same bits as before the damage
  }

  @Test
  void signalsSaveACheckpointFromWhichTheRunEndsInTheSameBits() throws Exception {
    String config = config().toString();
    String[] longer = {"--set", "train.epochs=10"};
    assertEnds(0, run("train", config, longer[0], longer[1], "--set", "name=whole"));
    for (String signal : List.of("INT", "TERM")) {
      Process process =
          Program.start(
              List.of(),
              Map.of(),
              "train",
              config,
              longer[0],
              longer[1],
              "--set",
              "name=" + signal);
      Path log = folder.resolve("runs").resolve(signal).resolve("log.jsonl");
      for (int i = 0; i < 600 && !(Files.exists(log) && Files.size(log) > 0); i++) {
        Thread.sleep(20);
      }
      kill("STOP", process); // so that it has not ended before the other one has looked
      Ended second =
          run("train", config, longer[0], longer[1], "--set", "name=" + signal, "--resume");
      assertEnds(2, second, Long.toString(process.pid()));
      kill(signal, process);
      kill("CONT", process);
      assertEnds(
          signal.equals("INT") ? 130 : 143,
          Program.end(process),
          "stopped after step",
          "go on with: scripts/bireal train " + config,
          "--resume");
      assertEnds(
          0,
          run("train", config, longer[0], longer[1], "--set", "name=" + signal, "--resume"),
          "is trained: 80 steps");
      assertEquals(newest("whole"), newest(signal));
      assertEquals(Files.readString(folder.resolve("runs/whole/log.jsonl")), Files.readString(log));
    }
  }

  private static void kill(String signal, Process process) throws Exception {
    String pid = Long.toString(process.pid());
    assertEquals(0, new ProcessBuilder("kill", "-" + signal, pid).start().waitFor(), signal);
  }

  @Test
  void wrongInputEndsWithTwoAndNamesThePlaceAndTheFix() throws Exception {
    String config = config().toString();
    assertEnds(
        2,
        run(
            "train",
            "configs/imagenet_bireal18.yaml",
            "--set",
            "data.path=" + folder,
            "--set",
            "runs_folder=" + folder),
        "not");
    assertEnds(
        2,
        run("train", config, "--set", "data.image_size=20"),
        "layer4.0.downsample",
        "data.image_size");
    assertEnds(
        2,
        run(
            "train",
            config,
            "--set",
            "name=huge",
            "--set",
            "data.image_size=2048",
            "--set",
            "train.batch=4096",
            "--set",
            "train.micro_batch=4096"),
        "activations",
        "set train.micro_batch to about");
    assertEnds(
        2,
        run(
            "train",
            config,
            "--set",
            "data.dataset=fashion_mnist",
            "--set",
            "model.classes=10",
            "--set",
            "data.path=/nowhere",
            "--set",
            "data.image_size=32"),
        "/nowhere",
        "data.path");
    assertEnds(2, run("eval", config), "there is no", "runs/small", "name a run folder");
    assertEnds(2, run("train", config, "--set", "train.epoch=3"), "train.epoch", "epochs");
    assertEnds(
        2,
        Program.end(
            Program.start(
                List.of(), Map.of("BIREAL_ISA", "sse9"), "train", config, "--set", "name=isa")),
        "BIREAL_ISA=sse9: use scalar, avx2, avx512, avx512_vpopcntdq or amx");
    assertEnds(
        0,
        Program.end(
            Program.start(
                List.of(),
                Map.of("BIREAL_ISA", "scalar"),
                "train",
                config,
                "--set",
                "name=isa2",
                "--set",
                "train.epochs=1")),
        "cpu (scalar");
  }

  @Test
  void aStepThatIsNotFiniteEndsWithOneAndTheLastCheckpointIsGood() throws Exception {
    String config = config().toString();
    Ended ended =
        run(
            "train",
            config,
            "--set",
            "optimizer.type=sgd",
            "--set",
            "optimizer.lr=999",
            "--set",
            "optimizer.weight_decay=0.99",
            "--set",
            "train.checkpoint_every_steps=1",
            "--set",
            "train.epochs=40");
    assertEnds(1, ended, "the step was not applied", "optimizer.lr");
    assertEnds(
        0,
        run("eval", folder.resolve("runs/small").toString(), "--weights", lastCheckpoint()),
        "top-1");
  }

  private String lastCheckpoint() throws IOException {
    try (Stream<Path> steps = Files.list(folder.resolve("runs/small/checkpoints"))) {
      return steps.filter(Files::isDirectory).sorted().reduce((a, b) -> b).orElseThrow().toString();
    }
  }

  @Test
  void infoVerifyAndCompletionNeedNoData() throws Exception {
    assertEnds(
        0,
        run("info", "configs/imagenet_bireal18.yaml"),
        "11,689,512",
        "1,676,279,808",
        "137,793,536",
        "memory of a step");
    assertEnds(
        0,
        run("verify", GOLDEN.resolve("birealnet18-tail-bits.json").toString(), "--failures"),
        "passed");
    Path foreign =
        Files.writeString(
            folder.resolve("foreign.json"), "{\"spec\": {\"model\": {\"arch\": \"vgg\"}}}");
    assertEnds(
        2,
        run("verify", foreign.toString()),
        "NOT READ",
        "spec.model.arch: 'vgg' is not one of [birealnet, xnornet, reactnet, realnet, resnet]");
    Path torn = Files.writeString(folder.resolve("torn.json"), "{");
    assertEnds(2, run("verify", torn.toString()), "torn.json");
    assertEnds(0, run("generate-completion"), "complete");
  }
}
