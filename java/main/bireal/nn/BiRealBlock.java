package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.tensor.DType;
import bireal.tensor.Tensor;

/**
 * One binary 3x3 convolution under its own shortcut: y = BN(conv(sign x, sign W)) + shortcut(x)
 * (Liu et al. 2018, fig. 2; networks.md 1A.1). BN, addition and the next block's sign are one pass.
 */
final class BiRealBlock implements Block {
  private final NetworkConfig config;
  private final String name;
  private final int K;
  private final int stride;
  private Backend backend;
  private Activation in;
  private Activation out;
  private Sign next;
  private BinaryConv2d conv;
  private BatchNorm2d norm;
  private Downsample downsample;
  private Tensor v;
  private Tensor dz;
  private Tensor db;

  /** {@code name} is the published prefix, e.g. {@code layer1.0}; K channels out. */
  BiRealBlock(NetworkConfig config, String name, int K, int stride) {
    this.config = config;
    this.name = name;
    this.K = K;
    this.stride = stride;
  }

  @Override
  public Sign consumes() {
    return Sign.PLAIN;
  }

  @Override
  public Activation plan(Planner planner, Activation input, Sign nextSign) {
    backend = planner.backend();
    in = input;
    next = nextSign;
    int n = planner.maxImages();
    Conv2dSpec spec = Conv2dSpec.square(in.image(), K, 3, stride, 1);
    conv =
        new BinaryConv2d(
            planner, name + ".binary_conv.weights", spec, config.weightGradient(), config.init());
    norm = new BatchNorm2d(planner, name + ".bn1", K, DType.I64);
    v = planner.keep(spec.output(n), conv.valueType());
    dz = planner.outputGradient(spec.output(n));
    db = planner.inputGradient(spec.input(n));
    planner.layer(
        new Planner.LayerRow(
            name,
            "binary conv 3x3" + (stride > 1 ? "/" + stride : "") + ", bn, shortcut",
            spec.output(1),
            conv.parameterCount() + norm.parameterCount(),
            spec.macs(),
            0,
            conv.kernelName()));
    boolean reshapes = stride > 1 || K != in.channels();
    downsample = reshapes ? new Downsample(planner, name + ".downsample", in, K, stride) : null;
    int slot = reshapes ? 1 - in.slot() : in.slot();
    out =
        new Activation(
            planner.keep(spec.output(n), DType.F32),
            next == null ? null : planner.keep(spec.output(n), DType.BITS),
            planner.gradient(spec.output(n), slot),
            slot);
    return out;
  }

  @Override
  public void forward(int n, Pass pass) {
    conv.forward(n, v, pass == Pass.TRAIN ? norm.sums() : null, in.bits());
    norm.prepare(n, v, conv.alpha(), pass);
    if (downsample != null) {
      downsample.forward(n, in.real(), pass);
    }
    Tensor threshold = next == null || next.threshold() == null ? null : next.threshold().value();
    backend.batchNormApply(
        n,
        out.real(),
        out.bits(),
        v,
        norm.affine(),
        downsample == null ? in.real() : downsample.value(),
        downsample == null ? null : downsample.affine(),
        threshold);
  }

  @Override
  public void backward(int n, GradMode mode) {
    norm.backward(n, dz, out.gradient(), v, conv.alpha(), mode);
    conv.backwardWeight(n, in.bits(), dz, mode);
    conv.backwardInput(n, db, dz);
    // The shortcut's gradient: the output's own (same slot, replaced in place), or what the
    // downsample makes of it.
    if (downsample != null) {
      downsample.backward(n, in.gradient(), out.gradient(), mode);
    }
    backend.approxSignBwd(
        n, in.gradient(), db, in.real(), null, in.gradient(), config.activationGradient());
  }

  @Override
  public void refresh() {
    conv.refresh();
  }

  @Override
  public long gradientFallbacks() {
    return conv.fallbacks();
  }

  @Override
  public void applyWeightGradientRule() {
    conv.applyWeightGradientRule();
  }

  @Override
  public void commitStatistics(int microBatchCount) {
    norm.commitStatistics(microBatchCount);
    if (downsample != null) {
      downsample.commitStatistics(microBatchCount);
    }
  }

  @Override
  public void close() {
    if (conv != null) {
      conv.close();
    }
    if (downsample != null) {
      downsample.close();
    }
  }
}
