package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Plan;
import bireal.backend.WeightGradient;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * Binary convolution: float master weights, their bits and scales alpha
 * (native/ops/weight_binarize), and the integer convolution of bits (native/ops/binary_conv). The
 * scale is applied by the batch normalisation behind it.
 */
final class BinaryConv2d implements AutoCloseable {
  /** So that the exact sum behind the scale fits 64 bits (native/ops/weight_binarize). */
  private static final long MAX_FILTER_WEIGHTS = (1 << 14) - 1;

  private final Planner planner;
  private final Backend backend;
  private final Plan.BinaryConv plan;
  private final WeightGradient rule;
  private final Parameter weight;
  private final Tensor bits;
  private final Tensor alpha;
  private final Tensor prepared;

  /**
   * {@code name} is the published one: flat {@code (n, 1)} dims where it ends in "weights", else
   * OIHW.
   */
  BinaryConv2d(
      Planner planner, String name, Conv2dSpec spec, WeightGradient rule, NetworkConfig.Init init) {
    this.planner = planner;
    this.backend = planner.backend();
    this.rule = rule;
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
    this.plan = backend.planBinaryConv(spec, planner.maxImages(), planner.gradientOrNull());
    long[] dims =
        name.endsWith("weights")
            ? new long[] {shape.count(), 1}
            : new long[] {spec.K(), spec.C(), spec.R(), spec.S()};
    double bound = Math.sqrt(3.0 / shape.innerCount());
    weight =
        planner.parameter(
            init == NetworkConfig.Init.PUBLISHED
                ? new Parameter(name, dims, shape, State.Order.KRSC, 0, 0.001)
                : new Parameter(name, dims, shape, State.Order.KRSC, -bound, bound));
    bits = planner.persist(shape, DType.BITS);
    alpha = planner.persist(Shape.of(spec.K()), DType.F32);
    prepared = planner.persist(Shape.of(plan.preparedBytes()), DType.U8);
    planner.needWorkspace(plan.workspaceBytes());
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

  /** As {@link Plan.BinaryConv#fallbacks}. */
  long fallbacks() {
    return plan.fallbacks();
  }

  long parameterCount() {
    return weight.shape().count();
  }

  /** Bits, scales and the kernel's own layout follow the masters. */
  void refresh() {
    backend.weightBinarizeFwd(bits, alpha, weight.value());
    backend.binaryConvPrepare(plan, prepared, bits);
  }

  void forward(int n, Tensor v, Tensor sumsOrNull, Tensor xBits) {
    backend.binaryConvFwd(plan, n, v, sumsOrNull, xBits, prepared, planner.workspace());
  }

  /** dL/dWb; the rule is applied once, after the last micro-batch. */
  void backwardWeight(int n, Tensor xBits, Tensor dz, GradMode mode) {
    backend.binaryConvBwdWeight(plan, n, weight.gradient(), xBits, dz, mode, planner.workspace());
  }

  void backwardInput(int n, Tensor db, Tensor dz) {
    backend.binaryConvBwdInput(plan, n, db, dz, alpha, bits, planner.workspace());
  }

  void applyWeightGradientRule() {
    backend.weightGradient(weight.gradient(), weight.value(), alpha, rule);
  }

  @Override
  public void close() {
    plan.close();
  }
}
