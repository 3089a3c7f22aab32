package bireal.cli;

import bireal.backend.Backend;
import bireal.config.BackendKind;
import bireal.config.ConfigLoader;
import bireal.config.Recipe;
import bireal.config.RunConfig;
import bireal.nn.Network;
import bireal.nn.Planner;
import bireal.tensor.Scope;
import bireal.tensor.Shape;
import bireal.train.Teacher;
import bireal.train.TrainStep;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/**
 * {@code bireal info}: what this machine has; and the network of a config, layer by layer, with the
 * memory of a step. Needs no data and takes no memory.
 */
@Command(
    name = "info",
    description = {
      "Print what can be used here: the processor, GPUs with driver and libraries.",
      "With a config: its network, layer by layer, the kernels that would run it, and the memory of a step. Needs no data."
    })
final class InfoCommand implements Runnable {
  @Spec private CommandSpec spec;

  @Parameters(
      arity = "0..1",
      paramLabel = "CONFIG",
      description = "A config file, such as configs/quickstart.yaml.")
  private Path file;

  @Option(
      names = "--set",
      paramLabel = "KEY=VALUE",
      description = "Override a key of the config; may be repeated, the last one counts.")
  private List<String> overrides = new ArrayList<>();

  @Option(
      names = "--stage",
      paramLabel = "NAME",
      description = "Only this stage; default: all, one after the other.")
  private String only;

  @Override
  public void run() {
    PrintWriter out = spec.commandLine().getOut();
    if (file == null) {
      if (only != null || !overrides.isEmpty()) {
        throw new ParameterException(
            spec.commandLine(), "--stage and --set need a CONFIG: bireal info CONFIG --set ...");
      }
      machine(out);
      return;
    }
    Recipe recipe = ConfigLoader.load(file, overrides);
    if (only != null) {
      print(out, only, recipe.stage(only), recipe);
      return;
    }
    recipe.stages().forEach((stage, config) -> print(out, stage, config, recipe));
  }

  private static void machine(PrintWriter out) {
    try (Backend cpu = Backends.open(BackendKind.CPU, 0, false, 0)) {
      out.println(Version.text());
      out.printf(
          Locale.ROOT, "%n%s; %s MB free%n%n", cpu.description(), megabytes(cpu.availableBytes()));
    }
    Backends.printGpus(out);
    out.flush();
  }

  private void print(PrintWriter out, String stage, RunConfig config, Recipe recipe) {
    if (recipe.staged()) {
      out.printf("%sstage %s%n%n", stage.equals(recipe.names().get(0)) ? "" : "\n", stage);
    }
    int size = config.data().imageSize();
    Shape image = Shape.of(size, size, config.data().mean().size());
    try (Scope scope = new Scope()) {
      Backend backend =
          scope.add(
              Backends.open(
                  config.backend(), config.device(), config.cudaGraphs(), config.threads()));
      Network network =
          scope.add(
              new Network(
                  config.model(),
                  image,
                  new Planner(
                      backend,
                      config.train().microBatch(),
                      config.train().precision().real,
                      config.train().gradient())));
      // The optimizer plans its moments, the teacher its network.
      scope.add(
          new TrainStep(
              network,
              config.optimizer(),
              config.train().labelSmoothing(),
              config.teacher().isPresent()));
      if (config.teacher().isPresent()) {
        scope.add(new Teacher(config.teacher().get(), network, image));
      }
      Planner planner = network.planner();
      Table layers =
          new Table(
              2, "layer", "kind", "output", "parameters", "binary MACs", "real MACs", "kernel");
      long parameters = 0;
      long binaryMacs = 0;
      long realMacs = 0;
      for (Planner.LayerRow row : planner.layers()) {
        Shape shape = row.shape();
        String output =
            shape.rank() == 4
                ? shape.dim(1) + "x" + shape.dim(2) + "x" + shape.dim(3)
                : Long.toString(shape.dim(1));
        layers.row(
            row.name(),
            row.kind(),
            output,
            count(row.parameters()),
            count(row.binaryMacs()),
            count(row.realMacs()),
            row.kernel());
        parameters += row.parameters();
        binaryMacs += row.binaryMacs();
        realMacs += row.realMacs();
      }
      layers.row("total", "", "", count(parameters), count(binaryMacs), count(realMacs), "");
      out.println(
          config.name()
              + ": images of "
              + image.dim(0)
              + "x"
              + image.dim(1)
              + "x"
              + image.dim(2)
              + ", outputs HxWxC, MACs of one image\n");
      layers.print(out);
      // BOPs/64, as the field counts a binary operation.
      out.printf(
          Locale.ROOT,
          "%noperations of one image: %,d (real MACs + binary MACs / 64)%n%n",
          realMacs + binaryMacs / 64);
      Table memory =
          new Table(
              1, "memory of a step, " + config.train().microBatch() + " images at a time", "MB");
      for (Planner.MemoryRow row : planner.memory()) {
        memory.row(row.what(), megabytes(row.bytes()));
      }
      memory.row("total", megabytes(planner.memoryBytes()));
      memory.print(out);
      out.printf(
          Locale.ROOT,
          "%n%s; %s MB free%n",
          backend.description(),
          megabytes(backend.availableBytes()));
      out.flush();
    }
  }

  private static String count(long value) {
    return value == 0 ? "" : String.format(Locale.ROOT, "%,d", value);
  }

  private static String megabytes(long bytes) {
    return String.format(Locale.ROOT, "%,.1f", bytes / 1048576.0);
  }
}
