package bireal.train;

/** Loss or gradient of a step is NaN or infinite. The weights are those of the step before. */
public final class NonFiniteException extends RuntimeException {
  private static final long serialVersionUID = 1L;
  private final long step;

  public NonFiniteException(long step, double loss, double gradNorm) {
    super(
        "step "
            + step
            + ": the loss is "
            + loss
            + " and the gradient norm "
            + gradNorm
            + "; the step was not applied. Lower optimizer.lr, raise schedule.warmup_steps, or look at the data of this batch");
    this.step = step;
  }

  /** Number of the refused step, from 1. */
  public long step() {
    return step;
  }
}
