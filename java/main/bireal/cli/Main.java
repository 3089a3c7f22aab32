package bireal.cli;

import bireal.runtime.DeviceException;
import bireal.runtime.InputException;
import bireal.runtime.NativeException;
import bireal.train.NonFiniteException;
import bireal.train.SaveException;
import java.io.PrintWriter;
import picocli.AutoComplete;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ScopeType;
import picocli.CommandLine.UnmatchedArgumentException;

/**
 * The program: finds the command, runs it, and turns what it throws into a message and exit code.
 */
@Command(
    name = "bireal",
    description = "Trains 1-bit convolutional networks.",
    mixinStandardHelpOptions = true,
    versionProvider = Version.class,
    scope = ScopeType.INHERIT,
    synopsisSubcommandLabel = "COMMAND",
    commandListHeading = "%nCommands:%n",
    optionListHeading = "%nOptions:%n",
    parameterListHeading = "%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:done",
      "1:failure",
      "2:wrong input",
      "3:device lost",
      "130, 143:stopped by SIGINT, SIGTERM"
    },
    subcommands = {
      TrainCommand.class,
      EvalCommand.class,
      VerifyCommand.class,
      FoldCommand.class,
      InfoCommand.class,
      ConfigCommand.class,
      AutoComplete.GenerateCompletion.class
    })
public final class Main {
  static final int DONE = 0;
  static final int FAILURE = 1;
  static final int WRONG_INPUT = 2;
  static final int DEVICE_LOST = 3;

  @Option(
      names = "--stacktrace",
      scope = ScopeType.INHERIT,
      description = "Print the stack trace of every error; so does BIREAL_STACKTRACE=1.")
  private boolean stacktrace = "1".equals(System.getenv("BIREAL_STACKTRACE"));

  /** Runs the command and ends the process with its exit code, whatever threads still run. */
  public static void main(String[] args) {
    CommandLine commandLine = commandLine();
    int code;
    try {
      code = commandLine.execute(args);
    } catch (Throwable e) { // an Error, which picocli lets through
      code = report(e, commandLine.getErr(), true);
    }
    System.exit(code);
  }

  /** The parser with all commands; its {@code execute} returns the exit code. */
  static CommandLine commandLine() {
    Main main = new Main();
    return new CommandLine(main)
        .setUsageHelpAutoWidth(true)
        .setCaseInsensitiveEnumValuesAllowed(true)
        .setParameterExceptionHandler((e, args) -> reportUsage(e))
        .setExecutionExceptionHandler(
            (e, commandLine, parsed) -> report(e, commandLine.getErr(), main.stacktrace));
  }

  /** Exit code of each kind of exception; NativeException and its kin come with a full message. */
  static int exitCode(Throwable e) {
    if (e instanceof InputException || e instanceof IllegalArgumentException) {
      return WRONG_INPUT;
    }
    return e instanceof DeviceException device && device.fatal() ? DEVICE_LOST : FAILURE;
  }

  private static int report(Throwable e, PrintWriter err, boolean stacktrace) {
    boolean expected =
        e.getMessage() != null
            && (exitCode(e) != FAILURE
                || e instanceof NativeException
                || e instanceof NonFiniteException
                || e instanceof SaveException);
    err.println("bireal: error: " + (expected ? e.getMessage() : e.toString()));
    if (stacktrace || !expected) {
      e.printStackTrace(err);
    }
    err.flush();
    return exitCode(e);
  }

  private static int reportUsage(ParameterException e) {
    PrintWriter err = e.getCommandLine().getErr();
    err.println("bireal: error: " + e.getMessage());
    UnmatchedArgumentException.printSuggestions(e, err);
    err.println("Try '" + e.getCommandLine().getCommandSpec().qualifiedName() + " --help'.");
    err.flush();
    return WRONG_INPUT;
  }
}
