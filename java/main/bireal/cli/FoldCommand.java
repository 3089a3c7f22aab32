package bireal.cli;

import bireal.backend.Backend;
import bireal.config.ConfigLoader;
import bireal.config.Recipe;
import bireal.config.RunConfig;
import bireal.nn.Network;
import bireal.nn.Planner;
import bireal.runtime.InputException;
import bireal.tensor.Shape;
import bireal.train.BinaryWeights;
import bireal.train.NetworkFiles;
import bireal.train.Safetensors;
import bireal.train.WeightFiles;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code bireal fold}: binary weights become -1 and +1, their scale goes into BN. */
@Command(
    name = "fold",
    description =
        "Write a network whose binary weights are -1 and +1, their scale folded into batch"
            + " normalisation: the same function in inference. Needs no data.")
final class FoldCommand implements Runnable {
  @Spec private CommandSpec spec;

  @Parameters(
      index = "0",
      paramLabel = "RUN|CONFIG",
      description = "A run folder, such as runs/quickstart, or a config file.")
  private Path target;

  @Parameters(index = "1", paramLabel = "OUT", description = "The safetensors file to write.")
  private Path out;

  @Option(
      names = "--weights",
      paramLabel = "FILE|CHECKPOINT",
      description =
          "A safetensors file or a checkpoint folder; default: the run's best checkpoint, else its"
              + " newest.")
  private Path weights;

  @Option(
      names = "--set",
      paramLabel = "KEY=VALUE",
      description = "Override a key of the config; may be repeated.")
  private List<String> overrides = new ArrayList<>();

  @Override
  public void run() {
    boolean isRun = Files.isDirectory(target);
    Recipe recipe = ConfigLoader.load(isRun ? target.resolve("config.yaml") : target, overrides);
    Path run = isRun ? target : Path.of(recipe.runsFolder(), recipe.name());
    if (Files.exists(out)) {
      throw new InputException(out + " exists already; choose another name or delete it");
    }
    WeightFiles.Found found =
        WeightFiles.open(weights == null ? "fold" : "--weights", weights == null ? run : weights);
    RunConfig config =
        recipe.stages().containsKey(found.stage()) ? recipe.stage(found.stage()) : recipe.last();
    int size = config.data().imageSize();
    Shape image = Shape.of(size, size, config.data().mean().size());
    try (Safetensors file = found.file();
        Backend backend = Backends.open(recipe.backend(), recipe.threads());
        Network network = new Network(config.model(), image, new Planner(backend, 1, null))) {
      network.allocate();
      network.initialize(0);
      NetworkFiles.load(network, file);
      BinaryWeights.constrain(network, true);
      NetworkFiles.save(network, file, out);
      PrintWriter text = spec.commandLine().getOut();
      text.println("weights  " + file.path());
      text.println(
          "folded   "
              + network.binaryUnits().size()
              + " binary convolutions into their batch normalisation: "
              + out);
      text.flush();
    }
  }
}
