package bireal.train;

import bireal.backend.Backend;
import bireal.backend.StepState;
import java.nio.ByteBuffer;

/**
 * Sums over images: loss and hits. They are added up in place, because a step allocates nothing;
 * whoever keeps one takes a {@link #copy}. One thread.
 */
public final class Metrics {
  private double lossSum;
  private long top1;
  private long top5;
  private long images;

  /** Of no images. */
  public Metrics() {}

  public Metrics(double lossSum, long top1, long top5, long images) {
    this.lossSum = lossSum;
    this.top1 = top1;
    this.top5 = top5;
    this.images = images;
  }

  /** What the loss op has added up; {@code scratch} is direct, little-endian, of 32 bytes. */
  void read(Backend backend, StepState state, ByteBuffer scratch) {
    backend.read(scratch.clear(), state.metrics());
    lossSum = scratch.getDouble(StepState.LOSS_SUM * Double.BYTES);
    top1 = (long) scratch.getDouble(StepState.TOP1 * Double.BYTES);
    top5 = (long) scratch.getDouble(StepState.TOP5 * Double.BYTES);
    images = (long) scratch.getDouble(StepState.IMAGES * Double.BYTES);
  }

  void add(Metrics other) {
    lossSum += other.lossSum;
    top1 += other.top1;
    top5 += other.top5;
    images += other.images;
  }

  void clear() {
    set(0, 0, 0, 0);
  }

  void set(Metrics other) {
    set(other.lossSum, other.top1, other.top5, other.images);
  }

  private void set(double newLossSum, long newTop1, long newTop5, long newImages) {
    lossSum = newLossSum;
    top1 = newTop1;
    top5 = newTop5;
    images = newImages;
  }

  public Metrics copy() {
    return new Metrics(lossSum, top1, top5, images);
  }

  public double lossSum() {
    return lossSum;
  }

  public long top1() {
    return top1;
  }

  public long top5() {
    return top5;
  }

  public long images() {
    return images;
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

  /** For people and for comparisons in tests: every bit of the sums. */
  @Override
  public String toString() {
    return "loss "
        + Double.toHexString(lossSum)
        + ", top-1 "
        + top1
        + ", top-5 "
        + top5
        + " of "
        + images;
  }
}
