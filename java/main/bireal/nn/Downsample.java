package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.tensor.DType;
import bireal.tensor.Tensor;

/**
 * The shortcut where a block changes shape: 2x2 average pooling, real 1x1 convolution, batch
 * normalisation (networks.md 1A.1). The normalisation is applied by the block's fused pass.
 */
final class Downsample implements AutoCloseable {
  private final Backend backend;
  private final Conv2dSpec pool;
  private final Conv2d conv;
  private final BatchNorm2d norm;
  private final Tensor pooled;
  private final Tensor value;
  private final Tensor valueGradient;
  private final Tensor pooledGradient;

  /** {@code name} is the published prefix, e.g. {@code layer2.0.downsample}. */
  Downsample(Planner planner, String name, Activation input, int K, int stride) {
    backend = planner.backend();
    int H = (int) input.image().dim(0);
    int W = (int) input.image().dim(1);
    if (H % stride != 0 || W % stride != 0) {
      // The convolution rounds up, the pooling down: the sum would not fit (docs/decisions.md, row
      // 11).
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
    pool = new Conv2dSpec(H, W, input.channels(), input.channels(), stride, stride, stride, 0);
    int n = planner.maxImages();
    pooled = planner.keep(pool.output(n), DType.F32);
    Conv2dSpec spec = new Conv2dSpec(pool.P(), pool.Q(), input.channels(), K, 1, 1, 1, 0);
    conv = new Conv2d(planner, name + ".1.weight", spec);
    norm = new BatchNorm2d(planner, name + ".2", K, DType.F64);
    value = planner.keep(spec.output(n), DType.F32);
    valueGradient = planner.outputGradient(spec.output(n));
    pooledGradient = planner.pooledGradient(pool.output(n));
    planner.layer(
        new Planner.LayerRow(
            name,
            "avg-pool, conv 1x1, bn",
            spec.output(1),
            conv.parameterCount() + norm.parameterCount(),
            0,
            spec.macs(),
            conv.kernelName()));
  }

  /** The convolution's output, before its normalisation. */
  Tensor value() {
    return value;
  }

  Tensor affine() {
    return norm.affine();
  }

  void forward(int n, Tensor x, Pass pass) {
    backend.avgPoolFwd(pool, n, pooled, x);
    conv.forward(n, value, pooled);
    norm.prepareReal(n, value, pass);
  }

  /** dx = the shortcut's part of the input gradient. */
  void backward(int n, Tensor dx, Tensor dy, GradMode mode) {
    norm.backward(n, valueGradient, dy, value, null, mode);
    conv.backwardWeight(n, pooled, valueGradient, mode);
    conv.backwardInput(n, pooledGradient, valueGradient);
    backend.avgPoolBwd(pool, n, dx, pooledGradient);
  }

  void commitStatistics(int microBatchCount) {
    norm.commitStatistics(microBatchCount);
  }

  @Override
  public void close() {
    conv.close();
  }
}
