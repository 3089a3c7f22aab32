package bireal.cli;

import static bireal.cli.Program.assertEnds;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import bireal.backend.cuda.Emulator;
import bireal.cli.Program.Ended;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The program with backend cuda when something is missing, full or broken: exit codes, messages,
 * and what is left in the run folder. Faults are injected by the emulator (native/emulator).
 */
class CudaFaultsIT {
  private static final String CONFIG =
      """
      name: small
      backend: cuda
      threads: 1
      runs_folder: RUNS
      model: {network: birealnet, depth: 18, width: 8, classes: 4, stem: cifar}
      data: {dataset: synthetic, image_size: 8, mean: [0.5], std: [0.25], synthetic_train_images: 8, synthetic_test_images: 4, synthetic_classes: 4}
      optimizer: {lr: 2.0e-3, reference_batch: 4}
      train: {epochs: 2, batch: 4, micro_batch: 4}
      """;

  /** Behind the launches of the first epoch, and of its evaluation; before the end of the run. */
  private static final int LAUNCH_OF_THE_SECOND_EPOCH = 750;

  @TempDir Path folder;

  @BeforeAll
  static void skippedWithoutKernels() {
    Emulator.load();
  }

  private Ended run(Map<String, String> environment, String... args) throws Exception {
    return Program.run(Emulator.options(), environment, args);
  }

  private Ended train(String emulator, String... more) throws Exception {
    List<String> args = new ArrayList<>(List.of("train", config()));
    args.addAll(Arrays.asList(more));
    return run(
        Map.of("BIREAL_EMULATOR", "access_counters=0," + emulator), args.toArray(new String[0]));
  }

  private String config() throws IOException {
    Path file = folder.resolve("small.yaml");
    return Files.writeString(file, CONFIG.replace("RUNS", folder.resolve("runs").toString()))
        .toString();
  }

  private List<String> files(Path where) throws IOException {
    try (Stream<Path> all = Files.walk(where)) {
      return all.filter(Files::isRegularFile)
          .map(file -> where.relativize(file).toString())
          .sorted()
          .toList();
    }
  }

  @Test
  void tooLittleDeviceMemoryIsATableAndABatchThatFits() throws Exception {
    assumeTrue(Emulator.emulated(), "injects faults");
    String[] parts = {
      "activations",
      "workspace",
      "parameters",
      "gradients of parameters",
      "set train.micro_batch to about "
    };
    Ended full = train("memory_limit=" + (5 << 20));
    assertEnds(2, full, parts);
    assertEnds(2, full, "a micro-batch of 4 images needs ", " MB are free");
    // While cuDNN's algorithms are checked the network's need is not known yet.
    Ended planning = train("fail_allocation=8");
    assertEnds(1, planning, "bireal: error: cuDNN check, ", " MB are free: ", "train.micro_batch");
    assertFalse(planning.output().contains("\tat "), planning.output());
    // The last of all, which the network's table has not; 32 would fail nothing.
    Ended update = train("fail_allocation=31");
    assertEnds(
        1, update, "error: work list of the optimizer: ", " MB are free: ", "train.micro_batch");
    assertFalse(
        Files.exists(folder.resolve("runs/small")), "a run that could not begin left a folder");
  }

  @Test
  void aLostDeviceEndsWithThreeAndTheRunGoesOnFromItsCheckpoint() throws Exception {
    assumeTrue(Emulator.emulated(), "injects faults");
    // 99: whatever a real device would do wrong without a word. Runs that compare need not look for
    // races, which takes half as long again.
    assertEnds(
        0, train("seed=1,exit_status=99", "--set", "name=whole"), "whole is trained: 4 steps");
    Path run = folder.resolve("runs/small");
    Ended lost = train("race_checks=0,fail_launch=" + LAUNCH_OF_THE_SECOND_EPOCH);
    assertEnds(3, lost, "bireal: error: ", "CUDA_ERROR_ILLEGAL_ADDRESS", "small.yaml --resume");
    List<String> left = files(run);
    assertTrue(left.contains("checkpoints/step_00000002/manifest.json"), left::toString);
    assertTrue(
        left.stream()
            .noneMatch(
                file ->
                    file.contains("tmp")
                        || file.contains("step_00000003")
                        || file.contains("step_00000004")),
        left::toString);
    assertEnds(
        0,
        run(
            Map.of("BIREAL_EMULATOR", "race_checks=0,access_counters=0"),
            "eval",
            run.toString(),
            "--weights",
            run + "/checkpoints/step_00000002"),
        "top-1 ");
    assertEnds(0, train("race_checks=0,seed=2", "--resume"), "small is trained: 4 steps");
    assertEquals(
        Program.newestCheckpoint(folder.resolve("runs/whole")), Program.newestCheckpoint(run));
    assertEquals(
        Files.readString(folder.resolve("runs/whole/log.jsonl")),
        Files.readString(run.resolve("log.jsonl")));
  }

  @Test
  void aMixedRunOfMicroBatchesDoesNothingWrongAndResumesToTheBit() throws Exception {
    assumeTrue(Emulator.emulated(), "asks the emulator for findings");
    // The loss scale starts so high that the first steps change nothing else.
    String[] mixed = {
      "--set",
      "name=mixed",
      "--set",
      "data.image_size=16",
      "--set",
      "train.precision=mixed",
      "--set",
      "train.micro_batch=2",
      "--set",
      "train.epochs=4",
      "--set",
      "train.log_every_steps=1"
    };
    assertEnds(0, train("seed=5,exit_status=99", mixed), "mixed is trained: 8 steps");
    Path run = folder.resolve("runs/mixed");
    String log = Files.readString(run.resolve("log.jsonl"));
    assertTrue(log.contains("\"loss_scale\":"), log);
    assertFalse(log.substring(log.indexOf("\"step\":3")).contains("Infinity"), log); // real steps
    Map<String, List<Byte>> checkpoint = Program.newestCheckpoint(run);
    List<String> again = new ArrayList<>(List.of(mixed));
    again.addAll(List.of("--resume", "--from-step", "6"));
    // Another order of the streams, too.
    assertEnds(0, train("seed=6,exit_status=99", again.toArray(new String[0])), "is trained");
    assertEquals(log, Files.readString(run.resolve("log.jsonl")));
    assertEquals(checkpoint, Program.newestCheckpoint(run));
  }

  @Test
  void missingAndWrongLibrariesAreNamedWithTheFix() throws Exception {
    assumeTrue(Emulator.emulated(), "swaps libraries");
    Path empty = Files.createDirectory(folder.resolve("empty"));
    Path driverOnly = Files.createDirectory(folder.resolve("driver"));
    Files.createSymbolicLink(
        driverOnly.resolve("libcuda.so.1"), Emulator.folder().resolve("libcuda.so.1"));
    if (!Files.exists(Path.of("/usr/lib/x86_64-linux-gnu/libcuda.so.1"))) {
      assertEnds(
          3,
          Program.run(List.of("-Dbireal.cuda.libraries=" + empty), Map.of(), "train", config()),
          "the NVIDIA driver (R525 or newer) cannot be loaded: libcuda.so.1",
          "install the driver",
          "or choose backend: cpu");
    }
    assertEnds(
        3,
        Program.run(List.of("-Dbireal.cuda.libraries=" + driverOnly), Map.of(), "train", config()),
        "cuBLAS 12 cannot be loaded: " + driverOnly + "/libcublasLt.so.12",
        "-Dbireal.cuda.libraries=" + driverOnly,
        "or choose backend: cpu");
    assertEnds(3, train("cudnn_version=80907"), "cuDNN 8.9.7 is loaded, but version 9 is needed");
    assertEnds(3, train("cudnn_version=8907"), "cuDNN 8.9.7 is loaded, but version 9 is needed");
    assertEnds(
        3, train("cublas_version=110900"), "cuBLAS 11.9.0 is loaded, but version 12 is needed");
    assertEnds(
        3,
        train("driver_version=11080"),
        "knows CUDA up to 11.8, but 12.0 or newer is needed",
        "update the driver");
    assertEnds(3, train("device_count=0"), "no usable GPU: CUDA_ERROR_NO_DEVICE", "nvidia-smi");
    assertFalse(
        Files.exists(folder.resolve("runs/small")), "a run that could not begin left a folder");
  }

  /** Of 16 by 16 pixels: with fewer, a sign that falls to the other side moves the loss too far. */
  private Ended compared(String... more) throws Exception {
    List<String> args = new ArrayList<>(List.of("--set", "data.image_size=16"));
    args.addAll(List.of(more));
    return train("seed=1,race_checks=0", args.toArray(new String[0]));
  }

  @Test
  void aCheckpointGoesFromCpuToCudaAndBack() throws Exception {
    Path run = folder.resolve("runs/small");
    String[] fromTwo = {"--resume", "--from-step", "2"};
    assertEnds(0, compared("--set", "backend=cpu"), "on cpu", "small is trained: 4 steps");
    String cpu = Files.readString(run.resolve("log.jsonl"));
    var cpuWeights = Program.newestCheckpoint(run);
    assertEnds(0, compared(fromTwo), "on cuda", "small is trained: 4 steps");
    close(cpu, Files.readString(run.resolve("log.jsonl")));
    assertNotEquals(cpuWeights, Program.newestCheckpoint(run), "cuda did not train");
    assertEnds(
        0,
        compared("--resume", "--from-step", "2", "--set", "backend=cpu"),
        "on cpu",
        "small is trained: 4 steps");
    // Step 2 is the CPU's, so this is the run that never saw a GPU; from cuda's last step it
    // evaluates.
    assertEquals(cpuWeights, Program.newestCheckpoint(run));
    assertEnds(0, compared("--set", "name=gpu"), "on cuda", "gpu is trained: 4 steps");
    assertEnds(
        0,
        compared("--set", "name=gpu", "--set", "backend=cpu", "--resume", "--from-step", "2"),
        "on cpu",
        "gpu is trained: 4 steps");
    close(cpu, Files.readString(folder.resolve("runs/gpu/log.jsonl")));
  }

  /** The same lines, losses within 20%: a few signs may fall to the other side. */
  private static void close(String expected, String got) {
    List<Double> want = losses(expected);
    List<Double> have = losses(got);
    assertEquals(want.size(), have.size(), got);
    assertTrue(want.size() > 0, expected);
    for (int i = 0; i < want.size(); i++) {
      assertEquals(want.get(i), have.get(i), 0.2 * want.get(i), expected + "\n" + got);
    }
  }

  private static List<Double> losses(String log) {
    return java.util.regex.Pattern.compile("\"loss\":([0-9.Ee+-]+)")
        .matcher(log)
        .results()
        .map(match -> Double.valueOf(match.group(1)))
        .toList();
  }
}
