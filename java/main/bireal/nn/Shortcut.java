package bireal.nn;

import bireal.backend.GradMode;
import bireal.tensor.Tensor;

/**
 * What a block adds to its convolution: its input, or, where the shape changes, a {@link
 * Downsample} of it. {@link #gradientSlot} is the slot of the block's output: that of the input
 * where the gradient is replaced in place, else the other.
 */
final class Shortcut {
  private final Activation in;
  private final Downsample downsample;

  Shortcut(
      Planner planner,
      NetworkConfig config,
      String block,
      Activation in,
      int K,
      int stride,
      boolean poolFirst) {
    this.in = in;
    boolean reshapes = stride > 1 || K != in.channels();
    downsample =
        reshapes
            ? new Downsample(planner, config, block + ".downsample", in, K, stride, poolFirst)
            : null;
  }

  int gradientSlot() {
    return downsample == null ? in.slot() : 1 - in.slot();
  }

  void forward(int n, Pass pass) {
    if (downsample != null) {
      downsample.forward(n, pass);
    }
  }

  /** Added as it is, or normalised by {@link #affine} where that is not null. */
  Tensor value() {
    return downsample == null ? in.real() : downsample.value();
  }

  Tensor affine() {
    return downsample == null ? null : downsample.affine();
  }

  /**
   * Leaves the shortcut's part in the input's gradient, from the gradient {@code dy} of the sum,
   * which lies in the block's output slot. Before the block adds its own part.
   */
  void backward(int n, Tensor dy, GradMode mode) {
    if (downsample != null) {
      downsample.backward(n, dy, mode);
    }
  }
}
