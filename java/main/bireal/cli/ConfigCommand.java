package bireal.cli;

import static bireal.config.ConfigLoader.spelling;

import bireal.config.ConfigLoader;
import bireal.config.RunConfig;
import java.io.PrintWriter;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code bireal config}: checks a config file, without any data. */
@Command(
    name = "config",
    description = "Check a config file; print a summary, or every key with its value.")
final class ConfigCommand implements Runnable {
  @Spec private CommandSpec spec;
  @Mixin private ConfigOptions options;

  @Option(
      names = "--resolved",
      description = "Print every key with its value, defaults included, as YAML that loads again.")
  private boolean resolved;

  @Override
  public void run() {
    RunConfig config = options.load();
    PrintWriter out = spec.commandLine().getOut();
    out.print(
        resolved ? ConfigLoader.resolvedYaml(config) : summary(options.file().toString(), config));
    out.flush();
  }

  private static String summary(String file, RunConfig config) {
    var model = config.model();
    var data = config.data();
    var optimizer = config.optimizer();
    var train = config.train();
    return """
        %s is valid.
          run        %s, seed %d, backend %s, %s
          model      %s %d, width %d, %d classes, %s stem
          data       %s, images of %dx%d
          optimizer  %s, lr %s for a batch of %d, %s
          train      %d epoch(s), batch %d in micro-batches of %d
        """
        .formatted(
            file,
            config.name(),
            config.seed(),
            spelling(config.backend()),
            config.threads() == 0 ? "all cores" : config.threads() + " thread(s)",
            spelling(model.network()),
            model.depth(),
            model.width(),
            model.classes(),
            spelling(model.stem()),
            spelling(data.dataset()),
            data.imageSize(),
            data.imageSize(),
            spelling(optimizer.type()),
            optimizer.lr(),
            optimizer.referenceBatch(),
            spelling(config.schedule().type()),
            train.epochs(),
            train.batch(),
            train.microBatch());
  }
}
