package bireal.cli;

import bireal.config.ConfigLoader;
import bireal.config.Recipe;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Mixin of the commands that start from a config file. */
final class ConfigOptions {
  @Parameters(
      paramLabel = "CONFIG",
      description = "The config file, such as configs/quickstart.yaml.")
  private Path file;

  @Option(
      names = "--set",
      paramLabel = "KEY=VALUE",
      description =
          "Override a key of the config, such as --set train.epochs=5; may be repeated, the last"
              + " one counts.")
  private List<String> overrides = new ArrayList<>();

  /** As the user named it. */
  Path file() {
    return file;
  }

  /** As the user would type it again. */
  String commandLine() {
    StringBuilder text = new StringBuilder(file.toString());
    overrides.forEach(override -> text.append(" --set ").append(override));
    return text.toString();
  }

  /** Reads and checks the config. Throws ConfigException. */
  Recipe load() {
    return ConfigLoader.load(file, overrides);
  }
}
