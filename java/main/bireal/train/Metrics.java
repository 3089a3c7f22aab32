package bireal.train;

import bireal.backend.Backend;
import bireal.backend.StepState;
import bireal.backend.Tensors;

/** Sums over images: loss and hits. */
public record Metrics(double lossSum, long top1, long top5, long images) {
  public static final Metrics NONE = new Metrics(0, 0, 0, 0);

  /** What the loss op has added up. */
  static Metrics read(Backend backend, StepState state) {
    double[] values = Tensors.doubles(backend, state.metrics());
    return new Metrics(
        values[StepState.LOSS_SUM],
        (long) values[StepState.TOP1],
        (long) values[StepState.TOP5],
        (long) values[StepState.IMAGES]);
  }

  public Metrics plus(Metrics other) {
    return new Metrics(
        lossSum + other.lossSum, top1 + other.top1, top5 + other.top5, images + other.images);
  }

  public double loss() {
    return lossSum / images;
  }

  /** Percent. */
  public double top1Percent() {
    return 100.0 * top1 / images;
  }

  /** Percent. */
  public double top5Percent() {
    return 100.0 * top5 / images;
  }
}
