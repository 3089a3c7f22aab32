package bireal.cli;

import bireal.backend.Backend;
import bireal.backend.Profile;
import bireal.config.ConfigLoader;
import bireal.config.Recipe;
import bireal.config.Trajectory;
import bireal.runtime.DeviceException;
import bireal.train.CheckpointException;
import bireal.train.RunFolder;
import bireal.train.SaveException;
import bireal.train.Trainer;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code bireal train}: a run from its config, in its folder. */
@Command(
    name = "train",
    description = "Train a network as a config says; the run lies in RUNS_FOLDER/NAME.",
    footer = {
      "",
      "Ctrl-C or SIGTERM saves a checkpoint and ends with 130 or 143; --resume goes on from it, to"
          + " the bit."
    })
final class TrainCommand implements Runnable {
  /** Longest wait for the running step and its checkpoint after a signal. */
  private static final long STOP_LIMIT_SECONDS = 600;

  @Spec private CommandSpec spec;
  @Mixin private ConfigOptions options;

  @Option(names = "--resume", description = "Go on with the run from its newest checkpoint.")
  private boolean resume;

  @Option(
      names = "--from-step",
      paramLabel = "STEP",
      description =
          "With --resume: go on from the checkpoint of this step, and delete those after it.")
  private Long fromStep;

  @Option(
      names = "--profile",
      description =
          "Print time by op at the end and write trace.json, for a browser's trace viewer, into the"
              + " run.")
  private boolean profiled;

  @Override
  public void run() {
    if (fromStep != null && !resume) {
      throw new ParameterException(
          spec.commandLine(), "--from-step " + fromStep + " needs --resume");
    }
    Recipe recipe = options.load();
    PrintWriter out = spec.commandLine().getOut();
    Path folder = Path.of(recipe.runsFolder(), recipe.name());
    AtomicBoolean stop = new AtomicBoolean();
    CountDownLatch ended = new CountDownLatch(1);
    // The JVM runs this on SIGINT and SIGTERM and then exits with 130 or 143 by itself.
    Thread onSignal =
        new Thread(
            () -> {
              stop.set(true);
              System.err.println("\nstopping after this step; a checkpoint follows");
              try {
                if (!ended.await(STOP_LIMIT_SECONDS, TimeUnit.SECONDS)) {
                  System.err.println(
                      "bireal: error: the step did not end within "
                          + STOP_LIMIT_SECONDS
                          + " s; the newest checkpoint stays as it was");
                }
              } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
              }
            },
            "signal");
    Runtime.getRuntime().addShutdownHook(onSignal);
    Profile profile = profiled ? new Profile() : null;
    try (Backend opened =
            Backends.open(
                recipe.backend(), recipe.device(), recipe.cudaGraphs(), recipe.threads());
        RunFolder run =
            resume
                ? RunFolder.resume(folder)
                : RunFolder.create(folder, ConfigLoader.resolvedYaml(recipe));
        TerminalProgress progress = new TerminalProgress()) {
      Backend backend = profile == null ? opened : profile.wrap(opened);
      Trainer.Setup setup =
          new Trainer.Setup(
              recipe.toTrain(), recipe.seed(), Trajectory.of(recipe), Trajectory::isDefault);
      Trainer.Summary summary;
      try (Trainer trainer = open(setup, backend, run, progress)) {
        run.appendEnvironment(
            trainer.step(), Map.of("bireal", Version.text(), "backend", backend.description()));
        out.println((resume ? "resuming " : "training ") + folder + " on " + backend.description());
        out.flush();
        summary = run(trainer, stop);
      } catch (SaveException e) {
        throw new SaveException(e.getMessage() + "; " + goOn(), e);
      }
      progress.finish();
      report(out, recipe, folder, summary);
      if (profile != null) {
        report(out, profile, folder);
      }
      requireSaved(summary);
    } finally {
      ended.countDown();
      try {
        Runtime.getRuntime().removeShutdownHook(onSignal);
      } catch (IllegalStateException e) {
        // A signal came: the hook runs already, and has been let go above.
        stop.set(true);
      }
    }
  }

  private Trainer.Summary run(Trainer trainer, AtomicBoolean stop) {
    try {
      return trainer.run(stop::get);
    } catch (DeviceException e) {
      if (!e.fatal()) {
        throw e;
      }
      DeviceException lost =
          new DeviceException(
              e.op(),
              e.code(),
              e.getMessage() + "; the device is lost, the newest checkpoint is good: " + goOn(),
              true);
      lost.initCause(e);
      throw lost;
    }
  }

  /** A fresh run that cannot begin leaves no folder behind. */
  private Trainer open(
      Trainer.Setup setup, Backend backend, RunFolder run, TerminalProgress progress) {
    try {
      return new Trainer(
          setup,
          backend,
          run,
          resume,
          fromStep == null ? OptionalLong.empty() : OptionalLong.of(fromStep),
          progress);
    } catch (RuntimeException e) {
      if (!resume) {
        run.discard();
      } else if (e instanceof CheckpointException damage && damage.goodStep().isPresent()) {
        throw damage.withAdvice(goOn() + " --from-step " + damage.goodStep().getAsLong());
      }
      throw e;
    }
  }

  private String goOn() {
    return "go on with: scripts/bireal train " + options.commandLine() + " --resume";
  }

  /** A run that could not write all it should ends with an error, however well it trained. */
  private void requireSaved(Trainer.Summary summary) {
    if (!summary.failures().isEmpty()) {
      throw new SaveException(
          (summary.savedStep() == summary.step()
                  ? "the last checkpoint is good, but before it"
                  : "step "
                      + summary.step()
                      + " is lost: the newest good checkpoint is "
                      + summary.checkpoint()
                      + ", and")
              + " writing failed "
              + summary.failures().size()
              + " times, at last: "
              + summary.failures().get(summary.failures().size() - 1)
              + (summary.savedStep() == summary.step() ? "" : "; " + goOn()),
          null);
    }
  }

  private static void report(PrintWriter out, Profile profile, Path folder) {
    Table table = new Table(1, "op", "calls", "ms a call", "total ms", "% of the run");
    for (Profile.Row row : profile.rows()) {
      table.row(
          row.op(),
          Long.toString(row.calls()),
          String.format(Locale.ROOT, "%.3f", row.totalMs() / row.calls()),
          String.format(Locale.ROOT, "%.1f", row.totalMs()),
          String.format(Locale.ROOT, "%.1f", 100 * row.totalMs() / profile.elapsedMs()));
    }
    Path trace = folder.resolve("trace.json");
    try {
      profile.writeTrace(trace);
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write " + trace, e);
    }
    out.println();
    table.print(out);
    out.println("\ntrace: " + trace + " (open it in chrome://tracing or ui.perfetto.dev)");
    out.flush();
  }

  private void report(PrintWriter out, Recipe recipe, Path folder, Trainer.Summary summary) {
    if (!summary.complete()) {
      out.println("stopped after step " + summary.step() + "; checkpoint " + summary.checkpoint());
      out.println(goOn());
    } else {
      out.printf(
          Locale.ROOT,
          "%n%s is trained: %d steps, %d epochs%n",
          recipe.name(),
          summary.step(),
          recipe.stages().values().stream().mapToInt(c -> c.train().epochs()).sum());
      if (recipe.staged()) {
        Table table =
            new Table(1, "stage", "last step", "top-1 %", "top-5 %", "loss", "best top-1 %");
        for (Trainer.StageResult stage : summary.stages()) {
          table.row(
              stage.name(),
              Long.toString(stage.lastStep()),
              number("%.2f", stage.lastEvaluation().top1Percent()),
              number("%.2f", stage.lastEvaluation().top5Percent()),
              number("%.4f", stage.lastEvaluation().loss()),
              number("%.2f", stage.bestTop1Percent()));
        }
        table.print(out);
      }
      out.printf(
          Locale.ROOT,
          "  test accuracy   top-1 %.2f%%  top-5 %.2f%%  (loss %.4f, %d images)%n",
          summary.lastEvaluation().top1Percent(),
          summary.lastEvaluation().top5Percent(),
          summary.lastEvaluation().loss(),
          summary.lastEvaluation().images());
      out.printf(Locale.ROOT, "  best            top-1 %.2f%%%n", summary.bestTop1Percent());
      out.println("  run             " + folder.toAbsolutePath());
      out.println("  checkpoint      " + summary.checkpoint());
      out.println("  evaluate again  scripts/bireal eval " + folder);
    }
    for (String failure : summary.failures()) {
      out.println("  NOT WRITTEN     " + failure);
    }
    out.flush();
  }

  private static String number(String format, double value) {
    return String.format(Locale.ROOT, format, value);
  }
}
