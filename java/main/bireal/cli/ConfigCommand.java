package bireal.cli;

import static bireal.config.ConfigLoader.spelling;

import bireal.config.ConfigLoader;
import bireal.config.Recipe;
import bireal.config.RunConfig;
import bireal.train.StartConfig;
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
    Recipe recipe = options.load();
    PrintWriter out = spec.commandLine().getOut();
    out.print(
        resolved ? ConfigLoader.resolvedYaml(recipe) : summary(options.file().toString(), recipe));
    out.flush();
  }

  private static String summary(String file, Recipe recipe) {
    StringBuilder text = new StringBuilder();
    text.append(
        """
        %s is valid.
          run        %s, seed %d, backend %s, %s
        """
            .formatted(
                file,
                recipe.name(),
                recipe.seed(),
                spelling(recipe.backend()),
                recipe.threads() == 0 ? "all cores" : recipe.threads() + " thread(s)"));
    recipe
        .stages()
        .forEach(
            (name, config) ->
                text.append(name.isEmpty() ? "" : "  stage " + name + "\n").append(stage(config)));
    return text.toString();
  }

  private static String stage(RunConfig config) {
    var model = config.model();
    var data = config.data();
    var optimizer = config.optimizer();
    var train = config.train();
    String start = config.start().from().equals(StartConfig.NOTHING) ? "" : from(config.start());
    String teacher =
        config.teacher().isEmpty()
            ? ""
            : "  teacher    %s %d, weights %s, temperature %s%n"
                .formatted(
                    spelling(config.teacher().get().model().network()),
                    config.teacher().get().model().depth(),
                    config.teacher().get().weights(),
                    config.teacher().get().temperature());
    return """
      model      %s %d, width %d, %d classes, %s stem
    %s%s  data       %s, images of %dx%d
      optimizer  %s, lr %s for a batch of %d, %s%s
      train      %d epoch(s), batch %d in micro-batches of %d
    """
        .formatted(
            spelling(model.network()),
            model.depth(),
            model.width(),
            model.classes(),
            spelling(model.stem()),
            start,
            teacher,
            spelling(data.dataset()),
            data.imageSize(),
            data.imageSize(),
            spelling(optimizer.type()),
            optimizer.lr(),
            optimizer.referenceBatch(),
            spelling(config.schedule().type()),
            optimizer.frozen().isEmpty() ? "" : ", frozen " + optimizer.frozen(),
            train.epochs(),
            train.batch(),
            train.microBatch());
  }

  private static String from(StartConfig start) {
    return "  start      from %s%s%s%s%n"
        .formatted(
            start.from().equals(StartConfig.PREVIOUS) ? "the stage before" : start.from(),
            start.fresh().isEmpty() ? "" : ", fresh " + start.fresh(),
            start.dropped().isEmpty() ? "" : ", dropped " + start.dropped(),
            start.binaryWeights() == StartConfig.BinaryWeights.KEPT
                ? ""
                : ", binary weights " + spelling(start.binaryWeights()));
  }
}
