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

  /** Of {@link #value}, or null. */
  BatchNorm2d norm() {
    return downsample == null ? null : downsample.norm();
  }

  /** Fills the sums of {@link #norm}, if there is one; {@code dy} is the gradient of the sum. */
  void backwardSums(int n, Tensor dy) {
    if (downsample != null) {
      downsample.norm().backwardSums(n, dy, downsample.value());
    }
  }

  /**
   * From the gradient {@code dy} of the sum to {@code dz}, that of {@code v}, the input of the
   * block's {@code norm}, and to the gradient of {@link #value}. All sums are known.
   */
  void backwardNorms(int n, BatchNorm2d norm, Tensor dz, Tensor dy, Tensor v, GradMode mode) {
    if (downsample == null) {
      norm.backwardFromSums(n, dz, dy, v, mode);
    } else {
      norm.backwardFromSums(
          n, dz, dy, v, downsample.norm(), downsample.valueGradient(), downsample.value(), mode);
    }
  }

  /**
   * The shortcut's part of the input's gradient, from what {@link #backwardNorms} has left: in the
   * input's gradient, or pooled ({@link Downsample#backwardConvolution}). Before anything else of
   * the block, which may take the memory of that.
   */
  Tensor backwardConvolution(int n, boolean takesPooled, GradMode mode) {
    return downsample == null
        ? in.gradient()
        : downsample.backwardConvolution(n, takesPooled, mode);
  }

  /** All of it where nothing else is normalised at the sum. */
  void backward(int n, Tensor dy, GradMode mode) {
    if (downsample != null) {
      downsample.norm().backward(n, downsample.valueGradient(), dy, downsample.value(), mode);
      downsample.backwardConvolution(n, false, mode);
    }
  }
}
