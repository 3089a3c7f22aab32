package bireal.optim;

/**
 * Learning rate as a function of the step, a value from 0 to 1 times the base rate
 * (docs/decisions.md, row 6).
 *
 * @param type LINEAR: 1 - step/steps, from the full rate to 0, per step; LINEAR_PUBLISHED: 1 -
 *     (epoch+1)/epochs, as the published code does it (the full rate is never used, the last epoch
 *     has 0); CONSTANT
 * @param warmupSteps the first steps rise linearly: factor (step+1)/warmupSteps
 */
public record LrSchedule(Type type, int warmupSteps) {
  /** Shapes of the schedule. */
  public enum Type {
    LINEAR,
    LINEAR_PUBLISHED,
    CONSTANT
  }

  public LrSchedule {
    if (warmupSteps < 0) {
      throw new IllegalArgumentException("warmup_steps must be >= 0, got " + warmupSteps);
    }
  }

  /**
   * Factor for {@code step} (from 0) of a run of {@code epochs} epochs of {@code stepsPerEpoch}.
   */
  public double at(long step, long stepsPerEpoch, int epochs) {
    double factor =
        switch (type) {
          case CONSTANT -> 1.0;
          case LINEAR -> 1.0 - (double) step / (stepsPerEpoch * epochs);
          case LINEAR_PUBLISHED -> 1.0 - (step / stepsPerEpoch + 1) / (double) epochs;
        };
    return step < warmupSteps ? factor * (step + 1) / warmupSteps : factor;
  }
}
