package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.BatchNormStatistics;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Plan;
import bireal.backend.RPRelu;
import bireal.backend.UpdateSpec;
import bireal.backend.WeightGradient;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * Binary convolution: float master weights, their bits and scales alpha
 * (native/ops/weight_binarize), and the integer convolution of bits (native/ops/binary_conv). The
 * scale is applied by the batch normalisation behind it.
 */
final class BinaryConv2d implements Layer {
  /** So that the exact sum behind the scale fits 64 bits (native/ops/weight_binarize). */
  private static final long MAX_FILTER_WEIGHTS = (1 << 14) - 1;

  private final Planner planner;
  private final Backend backend;
  private final Plan.BinaryConv plan;
  private final WeightGradient rule;
  private final Parameter weight;
  private final Tensor bits;
  private final Tensor alpha;
  private final Tensor scaleOnly;
  private final Tensor prepared;

  /**
   * {@code name} is the published one, from which the published shape follows ({@link
   * Conv2d#publishedDims}).
   */
  BinaryConv2d(Planner planner, String name, Conv2dSpec spec, NetworkConfig config) {
    this.planner = planner;
    this.backend = planner.passBackend();
    this.rule = config.weightGradient();
    Shape shape = spec.weights();
    if (shape.innerCount() > MAX_FILTER_WEIGHTS) {
      throw new IllegalArgumentException(
          name
              + ": a binary filter has at most "
              + MAX_FILTER_WEIGHTS
              + " weights, got "
              + shape.innerCount()
              + "; choose a smaller model.width");
    }
    this.plan =
        backend.planBinaryConv(
            spec, planner.passImages(), planner.real(), planner.gradientOrNull());
    long[] dims = Conv2d.publishedDims(name, spec);
    double bound = Math.sqrt(3.0 / shape.innerCount());
    weight =
        planner.parameter(
            config.init() == NetworkConfig.Init.PUBLISHED
                ? Parameter.binary(name, dims, shape, 0, 0.001)
                : Parameter.binary(name, dims, shape, -bound, bound));
    bits = planner.persist(shape, DType.BITS);
    scaleOnly = planner.persist(Shape.of(2, spec.K()), DType.F32);
    alpha = new Tensor(scaleOnly.buffer(), scaleOnly.offsetBytes(), Shape.of(spec.K()), DType.F32);
    planner.fit(weight, plan, alpha);
    prepared =
        plan.preparedBytes() == 0
            ? bits
            : planner.persist(Shape.of(plan.preparedBytes()), DType.U8);
    planner.needWorkspace(plan.workspaceBytes());
    planner.own(this);
  }

  Conv2dSpec spec() {
    return plan.spec();
  }

  String kernelName() {
    return plan.kernelName();
  }

  /** I16 or I32. */
  DType valueType() {
    return plan.valueType();
  }

  Tensor alpha() {
    return alpha;
  }

  /** For {@link Planner#binaryUnit}; {@code norm} is the normalisation behind, or null. */
  BinaryUnit unit(String norm) {
    return new BinaryUnit(weight, alpha, norm, BatchNorm2d.EPS);
  }

  /** Scale and shift [2,K] that apply alpha alone: alpha and 0. */
  Tensor scaleOnly() {
    return scaleOnly;
  }

  @Override
  public long fallbacks() {
    return plan.fallbacks();
  }

  long parameterCount() {
    return weight.shape().count();
  }

  /** Bits, scales and the kernel's own layout follow the masters. */
  @Override
  public void refresh() {
    backend.weightBinarizeFwd(bits, alpha, weight.value());
    backend.binaryConvPrepare(plan, prepared, bits);
  }

  void forward(int n, Tensor v, Tensor sumsOrNull, Tensor xBits) {
    backend.binaryConvFwd(plan, n, v, sumsOrNull, xBits, prepared, planner.workspace());
  }

  boolean fusesBatchNorm() {
    return plan.fusesBatchNorm();
  }

  /** The normalised output {@code out}; see {@link Backend#binaryConvBatchNormFwd}. */
  void forwardNormalised(
      int n,
      Activation out,
      Tensor vOrNull,
      Tensor xBits,
      Tensor affine,
      BatchNormStatistics pending,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rpreluOrNull,
      Tensor thresholdOrNull) {
    backend.binaryConvBatchNormFwd(
        plan,
        n,
        out.real(),
        out.bits(),
        vOrNull,
        xBits,
        prepared,
        affine,
        pending,
        shortcutOrNull,
        shortcutAffineOrNull,
        rpreluOrNull,
        thresholdOrNull,
        planner.workspace());
  }

  /** dL/dWb; the rule is applied once, at the end of the step. */
  void backwardWeight(int n, Tensor xBits, Tensor dz, GradMode mode) {
    backend.binaryConvBwdWeight(
        plan, n, weight.passGradient(), xBits, dz, weight.passMode(mode), planner.workspace());
  }

  void backwardInput(int n, Tensor db, Tensor dz) {
    Tensor w = plan.weightType() == DType.BITS ? bits : weight.operand();
    backend.binaryConvBwdInput(plan, n, db, dz, alpha, w, planner.workspace());
  }

  @Override
  public UpdateSpec.BinaryParameter binaryParameter() {
    return new UpdateSpec.BinaryParameter(
        weight.value(), weight.gradient(), bits, alpha, rule, plan, prepared);
  }

  @Override
  public void close() {
    plan.close();
  }
}
