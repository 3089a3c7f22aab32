package bireal.cli;

import bireal.backend.Backend;
import bireal.config.RunConfig;
import bireal.nn.Network;
import bireal.nn.Planner;
import bireal.runtime.InputException;
import bireal.tensor.Shape;
import bireal.train.BinaryWeights;
import bireal.train.NetworkFiles;
import bireal.train.Safetensors;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
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

  @Mixin private WeightOptions weights;

  @Parameters(index = "1", paramLabel = "OUT", description = "The safetensors file to write.")
  private Path out;

  @Override
  public void run() {
    if (Files.exists(out)) {
      throw new InputException(out + " exists already; choose another name or delete it");
    }
    WeightOptions.Trained trained = weights.open("fold");
    RunConfig config = trained.config();
    int size = config.data().imageSize();
    Shape image = Shape.of(size, size, config.data().mean().size());
    try (Safetensors file = trained.file();
        Backend backend =
            Backends.open(
                config.backend(), config.device(), config.cudaGraphs(), config.threads());
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
