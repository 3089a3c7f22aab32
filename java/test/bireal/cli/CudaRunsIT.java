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
import java.util.regex.Pattern;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * What the keys of a GPU do, in the whole program: backend, device, cuda_graphs, train.precision.
 * What goes wrong: {@link CudaFaultsIT}.
 */
class CudaRunsIT {
  private static final String CONFIG =
      """
      name: small
      backend: cuda
      threads: 1
      runs_folder: RUNS
      model: {network: birealnet, depth: 18, width: 8, classes: 4, stem: cifar}
      data: {dataset: synthetic, image_size: 16, crop_padding: 2, mean: [0.5], std: [0.25], synthetic_train_images: 8, synthetic_test_images: 4, synthetic_classes: 4}
      optimizer: {lr: 2.0e-3, reference_batch: 4}
      train: {epochs: 2, batch: 4, micro_batch: 4, log_every_steps: 1}
      """;

  /** Kernels, library calls and fills of a step of the network are more than this. */
  private static final int MOST_OF_A_STEP = 100;

  @TempDir Path folder;

  @BeforeAll
  static void skippedWithoutKernels() {
    Emulator.load();
  }

  private String config() throws IOException {
    Path file = folder.resolve("small.yaml");
    return Files.writeString(file, CONFIG.replace("RUNS", folder.resolve("runs").toString()))
        .toString();
  }

  /** In a process of its own, with settings of the emulator. */
  private Ended run(String emulator, String... args) throws Exception {
    return Program.run(
        Emulator.options(),
        Map.of("BIREAL_EMULATOR", "race_checks=0,access_counters=0,exit_status=99," + emulator),
        args);
  }

  private Ended train(String emulator, String... sets) throws Exception {
    return run(emulator, command(sets).toArray(new String[0]));
  }

  private List<String> command(String... sets) throws IOException {
    List<String> args = new ArrayList<>(List.of("train", config()));
    for (String set : sets) {
      args.addAll(set.startsWith("--") ? Arrays.asList(set.split(" ", -1)) : List.of("--set", set));
    }
    return args;
  }

  private String log(String run) throws IOException {
    return Files.readString(folder.resolve("runs").resolve(run).resolve("log.jsonl"));
  }

  private Map<String, List<Byte>> checkpoint(String run) throws IOException {
    return Program.newestCheckpoint(folder.resolve("runs").resolve(run));
  }

  /** In this process: how many launches of the run were replayed. */
  private long replayed(String... sets) throws IOException {
    Emulator.reset();
    Emulator.set("race_checks", 0);
    assertEquals(0, Main.commandLine().execute(command(sets).toArray(new String[0])));
    assertEquals(List.of(), Emulator.findings());
    return Emulator.allRecords().stream().filter(Emulator.Work::replayed).count();
  }

  /**
   * Crops and flips of 8-bit images too: the CPU's run of the same config sees the same images, so
   * its losses are close, within 20% as a few signs may fall to the other side.
   */
  @Test
  void graphsAreReplayedUnlessTheKeySaysFalseAndChangeNoBit() throws Exception {
    assumeTrue(Emulator.emulated(), "asks the emulator what was replayed");
    // Step 1 runs as it is, step 2 is recorded and replayed, steps 3 and 4 are replayed.
    long with = replayed("name=with");
    assertTrue(with > 3 * MOST_OF_A_STEP, () -> with + " launches were replayed");
    assertEquals(0, replayed("name=without", "cuda_graphs=false"));
    assertEquals(log("with"), log("without"));
    assertEquals(checkpoint("with"), checkpoint("without"));
    replayed("name=cpu", "backend=cpu");
    List<Double> cpu = losses(log("cpu"));
    List<Double> cuda = losses(log("with"));
    assertEquals(6, cpu.size(), log("cpu")); // 4 steps, 2 evaluations
    for (int i = 0; i < cpu.size(); i++) {
      assertEquals(cpu.get(i), cuda.get(i), 0.2 * cpu.get(i), log("cpu") + "\n" + log("with"));
    }
  }

  private static List<Double> losses(String log) {
    return Pattern.compile("\"loss\":([0-9.Ee+-]+)")
        .matcher(log)
        .results()
        .map(match -> Double.valueOf(match.group(1)))
        .toList();
  }

  @Test
  void bfloat16TrainsAndResumesFromCapability80On() throws Exception {
    assumeTrue(Emulator.emulated(), "chooses the compute capability");
    assertEnds(0, train("compute_capability=80", "train.precision=bf16"), "small is trained: 4");
    String log = log("small");
    Map<String, List<Byte>> checkpoint = checkpoint("small");
    assertEnds(
        0,
        train("compute_capability=80,seed=2", "train.precision=bf16", "--resume", "--from-step 2"),
        "small is trained: 4");
    assertEquals(log, log("small"));
    assertEquals(checkpoint, checkpoint("small"));
    assertEnds(
        2,
        train("compute_capability=75", "train.precision=bf16", "name=old"),
        "compute capability 7.5",
        "stores no real values as BF16; set train.precision: fp32 or mixed");
    assertFalse(
        Files.exists(folder.resolve("runs/old")), "a run that could not begin left a folder");
  }

  @Test
  void autoTakesTheGpuOrSaysWhyNot() throws Exception {
    assumeTrue(Emulator.emulated(), "takes the device away");
    Ended cuda = train("seed=1", "backend=auto", "name=gpu", "train.epochs=1");
    assertEnds(0, cuda, "training ", " on cuda (Emulated device of compute capability 8.0, ");
    Ended cpu = train("device_count=0", "backend=auto", "name=cpu", "train.epochs=1");
    assertEnds(
        0,
        cpu,
        "backend auto: cpu, because there is no usable GPU: CUDA_ERROR_NO_DEVICE; look at nvidia-smi",
        " on cpu (");
    assertNotEquals(checkpoint("gpu"), checkpoint("cpu"), "both ran on the same");
    assertEnds(
        2,
        train("seed=1", "device=3"),
        "bireal: error: device 3 does not exist; this machine has only device 0; set device: 0");
  }

  @Test
  void infoListsDevicesVersionsAndTheKernelsOfAConfig() throws Exception {
    assumeTrue(Emulator.emulated(), "chooses the compute capability");
    Ended machine = run("compute_capability=90,memory_limit=" + (6L << 30), "info");
    assertEnds(
        0, machine, "kernels: CUDA toolkit ", "driver: CUDA 13.0", "cuBLAS 12.6.0", "cuDNN 9.5.1");
    row(machine, "device +name +compute capability +memory, MB +kernels");
    row(
        machine,
        "0 +Emulated device of compute capability 9.0 +9.0 +6,144"
            + " +popcount or b1 tensor cores, measured at the start; machine code");
    Ended old = run("compute_capability=75,driver_version=12000", "info");
    assertEnds(0, old, "driver: CUDA 12.0");
    row(old, "0 +Emulated .* 7.5 +7.5 +8,192 +popcount; PTX, compiled by the driver");

    Ended tensorCores = run("compute_capability=80", "info", config());
    row(tensorCores, "layer +kind .* kernel");
    row(tensorCores, "conv1 .* cuDNN algo \\d+");
    row(tensorCores, "layer2.0 .* mma\\w*");
    row(tensorCores, "layer2.0.downsample .* cuBLAS");
    row(run("compute_capability=75", "info", config()), "layer2.0 .* popc\\w*");
  }

  private static void row(Ended ended, String pattern) {
    assertEnds(0, ended);
    assertTrue(
        ended.output().lines().anyMatch(line -> line.strip().matches(pattern)),
        () -> "no '" + pattern + "' in: " + ended.output());
  }
}
