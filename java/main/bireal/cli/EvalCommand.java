package bireal.cli;

import bireal.backend.Backend;
import bireal.backend.ImageSpec;
import bireal.config.ConfigLoader;
import bireal.config.RunConfig;
import bireal.data.Dataset;
import bireal.data.Datasets;
import bireal.data.Split;
import bireal.nn.Network;
import bireal.nn.Planner;
import bireal.runtime.InputException;
import bireal.tensor.Shape;
import bireal.train.Checkpoint;
import bireal.train.CheckpointStore;
import bireal.train.Evaluator;
import bireal.train.Metrics;
import bireal.train.NetworkFiles;
import bireal.train.Progress;
import bireal.train.Safetensors;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code bireal eval}: accuracy of trained weights on the test images. */
@Command(
    name = "eval",
    description = "Evaluate a run's checkpoint, or any safetensors file, on the test images.")
final class EvalCommand implements Runnable {
  @Spec private CommandSpec spec;

  @Parameters(
      paramLabel = "RUN|CONFIG",
      description = "A run folder, such as runs/quickstart, or a config file.")
  private Path target;

  @Option(
      names = "--weights",
      paramLabel = "FILE|CHECKPOINT",
      description =
          "A safetensors file or a checkpoint folder; default: the run's best checkpoint, else its newest.")
  private Path weights;

  @Option(
      names = "--set",
      paramLabel = "KEY=VALUE",
      description = "Override a key of the config; may be repeated.")
  private List<String> overrides = new ArrayList<>();

  @Override
  public void run() {
    boolean isRun = Files.isDirectory(target);
    RunConfig config = ConfigLoader.load(isRun ? target.resolve("config.yaml") : target, overrides);
    Path run = isRun ? target : Path.of(config.runsFolder(), config.name());
    PrintWriter out = spec.commandLine().getOut();
    try (Safetensors file = open(run);
        Backend backend = Backends.open(config.backend(), config.threads())) {
      Dataset dataset = Datasets.open(config.data(), Split.TEST, config.seed());
      ImageSpec image = Datasets.imageSpec(config.data(), dataset);
      Planner planner = new Planner(backend, config.train().microBatch(), null);
      try (Network network =
          new Network(config.model(), Shape.of(image.H(), image.W(), image.C()), planner)) {
        Evaluator evaluator = new Evaluator(network, dataset, config.data());
        network.allocate();
        NetworkFiles.load(network, file);
        long start = System.nanoTime();
        Metrics metrics = evaluator.run(Progress.NONE, () -> false);
        double seconds = (System.nanoTime() - start) / 1e9;
        out.println("weights  " + file.path());
        out.println("backend  " + backend.description());
        out.printf(
            Locale.ROOT,
            "top-1 %.2f%%  top-5 %.2f%%  loss %.4f  (%d images, %.0f images/s)%n",
            metrics.top1Percent(),
            metrics.top5Percent(),
            metrics.loss(),
            metrics.images(),
            metrics.images() / seconds);
        out.flush();
      }
    }
  }

  private Safetensors open(Path run) {
    if (weights != null && !Files.isDirectory(weights)) {
      return CheckpointStore.openTensors(weights);
    }
    if (weights != null) {
      return CheckpointStore.open(weights).tensors("model.safetensors");
    }
    CheckpointStore store = CheckpointStore.forReading(run.resolve("checkpoints"));
    Checkpoint checkpoint =
        store
            .best()
            .or(store::latest)
            .orElseThrow(
                () ->
                    new InputException(
                        run + " has no checkpoint; train it first, or name a file with --weights"));
    return checkpoint.tensors("model.safetensors");
  }
}
