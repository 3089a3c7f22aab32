package bireal.cli;

import bireal.config.ConfigLoader;
import bireal.config.Recipe;
import bireal.config.RunConfig;
import bireal.train.Safetensors;
import bireal.train.WeightFiles;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Mixin of the commands that start from trained weights. */
final class WeightOptions {
  @Parameters(
      index = "0",
      paramLabel = "RUN|CONFIG",
      description = "A run folder, such as runs/quickstart, or a config file.")
  private Path target;

  @Option(
      names = "--weights",
      paramLabel = "FILE|CHECKPOINT",
      description =
          "A safetensors file or a checkpoint folder; default: the run's best checkpoint, else its"
              + " newest.")
  private Path weights;

  @Option(
      names = "--stage",
      paramLabel = "NAME",
      description =
          "The stage whose network and data are meant; default: that of the checkpoint, else the"
              + " last.")
  private String stage;

  @Option(
      names = "--set",
      paramLabel = "KEY=VALUE",
      description = "Override a key of the config; may be repeated.")
  private List<String> overrides = new ArrayList<>();

  /**
   * Open weights and the network they belong to.
   *
   * @param stage the name of the stage
   * @param config that stage's
   * @param file closed by the caller
   */
  record Trained(Recipe recipe, String stage, RunConfig config, Safetensors file) {}

  /** {@code command} names itself in errors. Throws ConfigException, InputException. */
  Trained open(String command) {
    boolean isRun = Files.isDirectory(target);
    Recipe recipe = ConfigLoader.load(isRun ? target.resolve("config.yaml") : target, overrides);
    Path run = isRun ? target : Path.of(recipe.runsFolder(), recipe.name());
    // Before the weights are opened: a wrong name is an error also where there are none.
    RunConfig named = stage == null ? null : recipe.stage(stage);
    WeightFiles.Found found =
        WeightFiles.open(weights == null ? command : "--weights", weights == null ? run : weights);
    // Of which stage the weights are, a checkpoint knows; a bare file is taken for the last one's.
    String last = recipe.names().get(recipe.names().size() - 1);
    String known = recipe.stages().containsKey(found.stage()) ? found.stage() : last;
    return named != null
        ? new Trained(recipe, stage, named, found.file())
        : new Trained(recipe, known, recipe.stage(known), found.file());
  }
}
