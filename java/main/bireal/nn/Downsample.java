package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.tensor.Tensor;

/**
 * The shortcut where a block changes shape: a real 1x1 convolution and batch normalisation, which
 * the block's fused pass applies. {@code pooled} says what strides: 2x2 average pooling before the
 * convolution (Bi-Real Net, networks.md 1A.1), or the convolution itself (ResNet's type B).
 */
final class Downsample {
  private final Backend backend;
  private final Activation in;
  private final Conv2dSpec pool; // or null
  private final Conv2d conv;
  private final BatchNorm2d norm;
  private final Tensor pooled;
  private final Tensor value;
  private final Tensor valueGradient;
  private final Tensor pooledGradient;

  /** {@code name} is the published prefix, e.g. {@code layer2.0.downsample}. */
  Downsample(
      Planner planner,
      NetworkConfig config,
      String name,
      Activation in,
      int K,
      int stride,
      boolean poolFirst) {
    backend = planner.passBackend();
    this.in = in;
    int n = planner.passImages();
    int H = (int) in.image().dim(0);
    int W = (int) in.image().dim(1);
    int C = in.channels();
    Conv2dSpec spec;
    if (poolFirst && stride > 1) {
      requireEven(name, H, W, stride);
      pool = new Conv2dSpec(H, W, C, C, stride, stride, stride, 0);
      pooled = planner.keep(pool.output(n), planner.real());
      pooledGradient = planner.pooledGradient(pool.output(n));
      spec = new Conv2dSpec(pool.P(), pool.Q(), C, K, 1, 1, 1, 0);
    } else {
      pool = null;
      pooled = null;
      pooledGradient = null;
      spec = new Conv2dSpec(H, W, C, K, 1, 1, stride, 0);
    }
    // The published modules count the pooling, as torchvision's do not.
    conv = new Conv2d(planner, name + (poolFirst ? ".1.weight" : ".0.weight"), spec, config);
    norm = new BatchNorm2d(planner, name + (poolFirst ? ".2" : ".1"), spec.output(n), null);
    value = planner.keep(spec.output(n), planner.real());
    // Shares the memory of the gradients of convolution inputs, which nobody needs before it is
    // used.
    valueGradient = planner.inputGradient(spec.output(n));
    planner.layer(
        new Planner.LayerRow(
            name,
            (pool == null ? "" : "avg-pool, ")
                + "conv 1x1"
                + (pool == null && stride > 1 ? "/" + stride : "")
                + ", bn",
            spec.output(1),
            conv.parameterCount() + norm.parameterCount(),
            0,
            spec.macs(),
            conv.kernelName()));
  }

  /**
   * Where the convolution rounds up and the pooling down, their sum would not fit
   * (docs/decisions.md, row 11).
   */
  private static void requireEven(String name, int H, int W, int stride) {
    if (H % stride != 0 || W % stride != 0) {
      throw new IllegalArgumentException(
          name
              + ": a stride-"
              + stride
              + " block needs an even input, got "
              + H
              + "x"
              + W
              + "; choose data.image_size so that every stage halves evenly (a multiple of 8 for the cifar stem, of 32 for the imagenet stem)");
    }
  }

  /** The convolution's output, before its normalisation. */
  Tensor value() {
    return value;
  }

  Tensor affine() {
    return norm.affine();
  }

  void forward(int n, Pass pass) {
    Tensor x = in.real();
    if (pool != null) {
      backend.avgPoolFwd(pool, n, pooled, x);
      x = pooled;
    }
    conv.forward(n, value, x);
    norm.prepare(n, value, pass);
  }

  BatchNorm2d norm() {
    return norm;
  }

  /** Of {@link #value}; alive until {@link #backwardConvolution} has run. */
  Tensor valueGradient() {
    return valueGradient;
  }

  /**
   * The shortcut's part of the input's gradient, from {@link #valueGradient}: pooled where the
   * shortcut pools and the caller takes it so ({@link ConvUnit#takesPooled}), else in the input's
   * gradient.
   */
  Tensor backwardConvolution(int n, boolean takesPooled, GradMode mode) {
    conv.backwardWeight(n, pool == null ? in.real() : pooled, valueGradient, mode);
    if (pool == null) {
      conv.backwardInput(n, in.gradient(), valueGradient);
      return in.gradient();
    }
    conv.backwardInput(n, pooledGradient, valueGradient);
    if (takesPooled && pool.stride() == 2) {
      return pooledGradient;
    }
    backend.avgPoolBwd(pool, n, in.gradient(), pooledGradient);
    return in.gradient();
  }
}
