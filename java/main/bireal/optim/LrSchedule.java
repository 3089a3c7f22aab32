package bireal.optim;

import java.util.List;

/**
 * Learning rate as a function of the step, a value from 0 to 1 times the base rate
 * (docs/decisions.md, row 6).
 *
 * @param type LINEAR: 1 - step/steps, from the full rate to 0; LINEAR_PUBLISHED: 1 -
 *     (epoch+1)/epochs, as the published code does it (the full rate is never used, the last epoch
 *     has 0); COSINE: (1 + cos(pi step/steps)) / 2; MULTI_STEP: times {@code factor} at each of
 *     {@code milestones}; CONSTANT
 * @param per whether LINEAR, COSINE and the warm-up follow each step, or stay as they are at the
 *     start of an epoch
 * @param warmupSteps the first steps rise linearly: factor (step+1)/warmupSteps
 * @param warmupEpochs the same length in epochs; one of the two is 0
 * @param milestones epochs from the start, rising; MULTI_STEP only
 * @param factor of MULTI_STEP
 */
public record LrSchedule(
    Type type,
    Per per,
    int warmupSteps,
    double warmupEpochs,
    List<Double> milestones,
    double factor) {
  /** Shapes of the schedule. */
  public enum Type {
    LINEAR,
    LINEAR_PUBLISHED,
    COSINE,
    MULTI_STEP,
    CONSTANT
  }

  /** How often the rate changes. */
  public enum Per {
    STEP,
    EPOCH
  }

  public LrSchedule {
    milestones = List.copyOf(milestones);
    check(warmupSteps >= 0, "warmup_steps must be >= 0, got " + warmupSteps);
    check(warmupEpochs >= 0, "warmup_epochs must be >= 0, got " + warmupEpochs);
    check(
        warmupSteps == 0 || warmupEpochs == 0,
        "warmup_epochs must be 0 where warmup_steps is given, got "
            + warmupEpochs
            + " and "
            + warmupSteps);
    check(
        (type == Type.MULTI_STEP) != milestones.isEmpty(),
        type == Type.MULTI_STEP
            ? "milestones must name the epochs at which a multi_step schedule drops, got none"
            : "milestones must be [] unless type is multi_step, got " + milestones);
    double before = 0;
    for (double milestone : milestones) {
      check(milestone > before, "milestones must be > 0 and rise, got " + milestones);
      before = milestone;
    }
    check(factor > 0 && factor <= 1, "factor must be in (0, 1], got " + factor);
  }

  /** Per step, without milestones. */
  public LrSchedule(Type type, int warmupSteps) {
    this(type, Per.STEP, warmupSteps, 0, List.of(), 0.1);
  }

  /**
   * Factor for {@code step} (from 0) of a run of {@code epochs} epochs of {@code stepsPerEpoch}.
   */
  public double at(long step, long stepsPerEpoch, int epochs) {
    long epoch = step / stepsPerEpoch;
    double done =
        per == Per.STEP
            ? (double) step / (stepsPerEpoch * epochs)
            : (double) epoch / epochs; // share of the run, [0, 1)
    double value =
        switch (type) {
          case CONSTANT -> 1.0;
          case LINEAR -> 1.0 - done;
          case LINEAR_PUBLISHED -> 1.0 - (epoch + 1) / (double) epochs;
          case COSINE -> 0.5 * (1 + Math.cos(Math.PI * done));
          case MULTI_STEP -> {
            double dropped = 1.0;
            for (double milestone : milestones) {
              dropped *= step >= Math.round(milestone * (double) stepsPerEpoch) ? factor : 1.0;
            }
            yield dropped;
          }
        };
    long warmup = warmup(stepsPerEpoch);
    if (step >= warmup) {
      return value;
    }
    long risen = per == Per.STEP ? step + 1 : Math.min(warmup, (epoch + 1) * stepsPerEpoch);
    return value * (double) risen / (double) warmup;
  }

  /**
   * Throws IllegalArgumentException, its message starting with the key, if the schedule is longer
   * than the run.
   */
  public void requireFits(long stepsPerEpoch, int epochs) {
    requireFits(epochs);
    check(
        warmup(stepsPerEpoch) <= stepsPerEpoch * epochs,
        "warmup_steps must be at most the steps of the run, "
            + stepsPerEpoch * epochs
            + " ("
            + epochs
            + " epochs of "
            + stepsPerEpoch
            + "), got "
            + warmup(stepsPerEpoch));
  }

  /** As above, for what needs no knowledge of the data. */
  public void requireFits(int epochs) {
    for (double milestone : milestones) {
      check(
          milestone < epochs,
          "milestones must be less than train.epochs, "
              + epochs
              + ": a drop after the end never comes; got "
              + milestones);
    }
    check(
        warmupEpochs <= epochs,
        "warmup_epochs must be at most train.epochs, " + epochs + ", got " + warmupEpochs);
  }

  private long warmup(long stepsPerEpoch) {
    return warmupSteps > 0 ? warmupSteps : Math.round(warmupEpochs * (double) stepsPerEpoch);
  }

  private static void check(boolean condition, String message) {
    if (!condition) {
      throw new IllegalArgumentException(message);
    }
  }
}
