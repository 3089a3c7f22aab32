package bireal.cli;

import bireal.backend.Backend;
import bireal.backend.ImageSpec;
import bireal.config.RunConfig;
import bireal.data.Dataset;
import bireal.data.Datasets;
import bireal.data.Split;
import bireal.nn.Network;
import bireal.nn.Planner;
import bireal.tensor.Shape;
import bireal.train.Evaluator;
import bireal.train.Metrics;
import bireal.train.NetworkFiles;
import bireal.train.Progress;
import bireal.train.Safetensors;
import java.io.PrintWriter;
import java.util.Locale;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Spec;

/** {@code bireal eval}: accuracy of trained weights on the test images. */
@Command(
    name = "eval",
    description = "Evaluate a run's checkpoint, or any safetensors file, on the test images.")
final class EvalCommand implements Runnable {
  @Spec private CommandSpec spec;

  @Mixin private WeightOptions weights;

  @Override
  public void run() {
    PrintWriter out = spec.commandLine().getOut();
    WeightOptions.Trained trained = weights.open("eval");
    RunConfig config = trained.config();
    try (Safetensors file = trained.file();
        Backend backend =
            Backends.open(
                config.backend(), config.device(), config.cudaGraphs(), config.threads())) {
      Dataset dataset = Datasets.open(config.data(), Split.TEST, config.seed());
      ImageSpec image = Datasets.imageSpec(config.data(), dataset);
      Planner planner =
          new Planner(backend, config.train().microBatch(), config.train().precision().real, null);
      try (Network network =
          new Network(config.model(), Shape.of(image.H(), image.W(), image.C()), planner)) {
        Evaluator evaluator = new Evaluator(network, dataset, config.data());
        network.allocate();
        NetworkFiles.load(network, file);
        long start = System.nanoTime();
        Metrics metrics = evaluator.run(Progress.NONE, () -> false);
        double seconds = (System.nanoTime() - start) / 1e9;
        out.println("weights  " + file.path());
        if (trained.recipe().staged()) {
          out.println("stage    " + trained.stage());
        }
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
}
