package bireal.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.config.ConfigLoader;
import bireal.runtime.DeviceException;
import bireal.runtime.InputException;
import bireal.runtime.NativeException;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.OptionSpec;

class MainTest {
  private static final String QUICKSTART = "configs/quickstart.yaml";

  @TempDir Path folder;

  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  /** A new command or option is a decision: it is made here. */
  @Test
  void theseAreAllCommandsAndOptions() {
    List<String> lines = new ArrayList<>();
    for (CommandLine command : withSubcommands(Main.commandLine()).toList()) {
      Stream<String> options =
          command.getCommandSpec().options().stream().map(OptionSpec::longestName).sorted();
      Stream<String> parameters =
          command.getCommandSpec().positionalParameters().stream().map(ArgSpec::paramLabel);
      lines.add(
          command.getCommandSpec().qualifiedName()
              + ": "
              + String.join(" ", Stream.concat(options, parameters).toList()));
    }
    assertEquals(
        List.of(
            "bireal: --help --stacktrace --version",
            "bireal train: --from-step --help --profile --resume --set --stacktrace --version CONFIG",
            "bireal eval: --help --set --stacktrace --stage --version --weights RUN|CONFIG",
            "bireal verify: --backend --device --failures --help --stacktrace --version CASE.json",
            "bireal fold: --help --set --stacktrace --stage --version --weights RUN|CONFIG OUT",
            "bireal info: --help --set --stacktrace --stage --version CONFIG",
            "bireal config: --help --resolved --set --stacktrace --version CONFIG",
            "bireal generate-completion: --help --stacktrace --version"),
        lines);
  }

  static List<String> commands() {
    return withSubcommands(Main.commandLine())
        .map(command -> command.getCommandSpec().qualifiedName())
        .toList();
  }

  @ParameterizedTest
  @MethodSource("commands")
  void helpDescribesTheCommandAndEachOfItsOptions(String command) {
    List<String> words = new ArrayList<>(List.of(command.split(" ", -1)));
    words.remove(0);
    CommandLine parser = Main.commandLine();
    for (String word : words) {
      parser = parser.getSubcommands().get(word);
    }
    words.add("--help");
    assertEquals(0, execute(words.toArray(String[]::new)));
    assertTrue(parser.getCommandSpec().usageMessage().description().length > 0);
    for (OptionSpec option : parser.getCommandSpec().options()) {
      assertTrue(out.toString().contains(option.longestName()), option.longestName());
      assertTrue(option.description().length > 0, option.longestName() + " has no description");
    }
    for (ArgSpec parameter : parser.getCommandSpec().positionalParameters()) {
      assertTrue(out.toString().contains(parameter.paramLabel()));
      assertTrue(parameter.description().length > 0);
    }
  }

  @Test
  void validConfigGivesASummaryAndZero() {
    assertEquals(0, execute("config", QUICKSTART));
    assertTrue(out.toString().startsWith(QUICKSTART + " is valid.\n"), out.toString());
    assertEquals("", err.toString());
  }

  @Test
  void resolvedPrintsYamlThatLoadsAgain() throws IOException {
    assertEquals(0, execute("config", "--resolved", QUICKSTART, "--set", "train.epochs=9"));
    Path file = Files.writeString(folder.resolve("resolved.yaml"), out.toString());
    assertEquals(
        ConfigLoader.load(Path.of(QUICKSTART), List.of("train.epochs=9")),
        ConfigLoader.load(file, List.of()));
    assertEquals("", err.toString());
  }

  @Test
  void overrideMayHoldAListWithCommas() {
    assertEquals(
        0,
        execute(
            "config",
            "--set=data.dataset=cifar10",
            "--set=data.mean=[0.5, 0.5,0.5]",
            "--set=data.std=[1,1,1]",
            QUICKSTART));
  }

  @Test
  void wrongConfigIsOneLineAndTwo() {
    assertEquals(2, execute("config", QUICKSTART, "--set", "train.epochs=0"));
    assertEquals(
        "bireal: error: --set train.epochs=0: train.epochs must be >= 1, got 0\n", err.toString());
    assertEquals("", out.toString());
  }

  @Test
  void stackTraceIsPrintedOnRequest() {
    assertEquals(2, execute("config", "nowhere.yaml", "--stacktrace"));
    assertTrue(err.toString().contains("\tat bireal.config."), err.toString());
    assertEquals(2, execute("--stacktrace", "config", "nowhere.yaml"));
    assertTrue(err.toString().contains("\tat bireal.config."), err.toString());
  }

  @Test
  void wrongCommandLineIsTwoAndNamesTheHelp() {
    assertEquals(2, execute("config", "--resolve", QUICKSTART));
    assertTrue(err.toString().startsWith("bireal: error: Unknown option: '--resolve'\n"));
    assertTrue(err.toString().contains("--resolved"), err.toString());
    assertTrue(err.toString().endsWith("Try 'bireal config --help'.\n"), err.toString());
    assertEquals(2, execute("config"));
    assertTrue(err.toString().contains("Missing required parameter: 'CONFIG'"), err.toString());
    assertEquals(2, execute("confg"));
    assertTrue(err.toString().contains("bireal config"), err.toString());
    assertEquals(2, execute());
    assertTrue(err.toString().contains("Missing required subcommand"), err.toString());
    assertEquals(2, execute("config", QUICKSTART, "--set"));
    assertEquals(2, execute("config", QUICKSTART, "--resolved", "--resolved"));
  }

  @Test
  void eachKindOfExceptionHasItsExitCode() {
    assertThrowing(new InputException("bad file"), 2, false);
    assertThrowing(new IllegalArgumentException("C must be >= 1, got 0"), 2, false);
    assertThrowing(new DeviceException("conv", 700, "device gone", true), 3, false);
    assertThrowing(new DeviceException("conv", 2, "no memory", false), 1, false);
    assertThrowing(new NativeException("no library"), 1, false);
    assertThrowing(new IllegalStateException("a bug"), 1, true);
    assertThrowing(new IllegalArgumentException(), 2, true);
  }

  private void assertThrowing(RuntimeException thrown, int code, boolean stacktrace) {
    CommandLine parser = Main.commandLine().addSubcommand(new Throwing(thrown));
    assertEquals(code, execute(parser, "throwing"), thrown.toString());
    String firstLine = stacktrace ? thrown.toString() : thrown.getMessage();
    assertTrue(err.toString().startsWith("bireal: error: " + firstLine + "\n"), err.toString());
    assertEquals(stacktrace, err.toString().contains("\tat "), err.toString());
  }

  @Command(name = "throwing")
  static final class Throwing implements Runnable {
    private final RuntimeException thrown;

    Throwing(RuntimeException thrown) {
      this.thrown = thrown;
    }

    @Override
    public void run() {
      throw thrown;
    }
  }

  @Test
  void versionNamesTheProgram() {
    assertEquals(0, execute("--version"));
    assertTrue(out.toString().startsWith("bireal "), out.toString());
  }

  @Test
  void completionKnowsTheCommands() {
    assertEquals(0, execute("generate-completion"));
    assertTrue(out.toString().contains("--resolved"));
    assertFalse(out.toString().isBlank());
  }

  private int execute(String... args) {
    return execute(Main.commandLine(), args);
  }

  private int execute(CommandLine parser, String... args) {
    out.getBuffer().setLength(0);
    err.getBuffer().setLength(0);
    return parser.setOut(new PrintWriter(out)).setErr(new PrintWriter(err)).execute(args);
  }

  private static Stream<CommandLine> withSubcommands(CommandLine command) {
    return Stream.concat(
        Stream.of(command),
        command.getSubcommands().values().stream().flatMap(MainTest::withSubcommands));
  }
}
