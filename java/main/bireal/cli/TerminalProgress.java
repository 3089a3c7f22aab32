package bireal.cli;

import bireal.train.Metrics;
import bireal.train.Progress;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Locale;
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** A progress bar on a terminal; where stderr is a file or pipe, a line every ten seconds. */
final class TerminalProgress implements Progress, AutoCloseable {
  private static final long LINE_NS = 10_000_000_000L;
  private static final int BAR_MS = 500;

  private final PrintStream err = System.err;
  private final boolean terminal = isTerminal();
  private ProgressBar bar;
  private long totalSteps;
  private long stepsPerEpoch;
  private long firstStep;
  private long startNs;
  private long images;
  private long lastLineNs;

  private static boolean isTerminal() {
    try {
      String target = Files.readSymbolicLink(Path.of("/proc/self/fd/2")).toString();
      return target.startsWith("/dev/pts/") || target.startsWith("/dev/tty");
    } catch (IOException e) {
      return false; // no such link: lines are always readable
    }
  }

  @Override
  public void started(long step, long total, long perEpoch) {
    totalSteps = total;
    stepsPerEpoch = perEpoch;
    firstStep = step;
    startNs = System.nanoTime();
    lastLineNs = startNs;
    if (terminal) {
      bar =
          new ProgressBarBuilder()
              .setTaskName("train")
              .setStyle(ProgressBarStyle.ASCII)
              .setInitialMax(total)
              .startsFrom(step, Duration.ZERO)
              .setConsumer(new ConsoleProgressBarConsumer(err))
              .setUpdateIntervalMillis(BAR_MS)
              .build();
    }
  }

  @Override
  public void step(long step, Metrics last, Metrics epochSoFar, double lr) {
    images += last.images();
    long now = System.nanoTime();
    if (bar != null) {
      bar.stepTo(step);
    }
    // Text is made as often as it is shown, not at every step.
    if (now - lastLineNs < (bar != null ? BAR_MS * 1_000_000L : LINE_NS) && step != totalSteps) {
      return;
    }
    lastLineNs = now;
    double seconds = (now - startNs) / 1e9;
    double rate = images / seconds;
    long leftSeconds = (long) (seconds / (step - firstStep) * (totalSteps - step));
    // The epoch's mean is empty on its last step: then the step itself is shown.
    Metrics shown = epochSoFar.images() == 0 ? last : epochSoFar;
    String text =
        String.format(
            Locale.ROOT,
            "epoch %d/%d  loss %.4f  top-1 %.2f%%  %.0f images/s",
            (step - 1) / stepsPerEpoch + 1,
            totalSteps / stepsPerEpoch,
            shown.loss(),
            shown.top1Percent(),
            rate);
    if (bar != null) {
      bar.setExtraMessage(" " + text);
    } else {
      err.printf(
          Locale.ROOT,
          "step %d/%d  %s  %d:%02d left%n",
          step,
          totalSteps,
          text,
          leftSeconds / 60,
          leftSeconds % 60);
    }
  }

  @Override
  public void evaluating(long done, long total) {
    if (bar != null) {
      bar.setExtraMessage(" evaluating " + done + "/" + total);
    }
  }

  @Override
  public void evaluated(int epoch, Metrics metrics, boolean best) {
    line(
        String.format(
            Locale.ROOT,
            "epoch %d: test loss %.4f, top-1 %.2f%%, top-5 %.2f%%%s",
            epoch,
            metrics.loss(),
            metrics.top1Percent(),
            metrics.top5Percent(),
            best ? " (best so far)" : ""));
  }

  @Override
  public void saved(long step, Path folder) {
    if (bar == null) {
      line("checkpoint " + folder);
    }
  }

  @Override
  public void notSaved(long step, String reason) {
    line("bireal: warning: " + reason + "; going on, as train.on_checkpoint_failure says");
  }

  private void line(String text) {
    if (bar != null) {
      err.print("\r\u001b[K");
    }
    err.println(text);
  }

  /** Ends the bar, so that what follows starts on its own line. */
  void finish() {
    if (bar != null) {
      bar.close();
      bar = null;
    }
  }

  @Override
  public void close() {
    finish();
  }
}
