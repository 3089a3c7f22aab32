package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Plan;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/** Real convolution without bias (native/ops/conv2d). */
final class Conv2d implements Layer {
  private final Planner planner;
  private final Backend backend;
  private final Plan.Conv2d plan;
  private final Parameter weight;

  /** Initialised within {@link #initialBound}. */
  Conv2d(Planner planner, String name, Conv2dSpec spec, NetworkConfig config) {
    this.planner = planner;
    this.backend = planner.passBackend();
    this.plan = backend.planConv2d(spec, planner.passImages(), planner.real());
    double bound = initialBound(spec.weights(), config);
    weight =
        planner.parameter(
            new Parameter(
                name, publishedDims(name, spec), spec.weights(), State.Order.KRSC, -bound, bound));
    planner.fit(weight, plan, null);
    planner.needWorkspace(plan.workspaceBytes());
    planner.own(this);
  }

  /**
   * Weights [K,R,S,C] start uniform within it: 1/sqrt(fan_in), as PyTorch does by default, or for a
   * ResNet sqrt(6/fan_out), which has the deviation of torchvision's normal distribution.
   */
  static double initialBound(Shape weights, NetworkConfig config) {
    return config.network() == NetworkConfig.Family.RESNET
        ? Math.sqrt(6.0 / (weights.dim(0) * weights.dim(1) * weights.dim(2)))
        : 1 / Math.sqrt((double) weights.innerCount());
  }

  /** OIHW, or flat, (n, 1), where the published name ends in "weights". */
  static long[] publishedDims(String name, Conv2dSpec spec) {
    return name.endsWith(".weights")
        ? new long[] {spec.weights().count(), 1}
        : new long[] {spec.K(), spec.C(), spec.R(), spec.S()};
  }

  Conv2dSpec spec() {
    return plan.spec();
  }

  String kernelName() {
    return plan.kernelName();
  }

  long parameterCount() {
    return weight.shape().count();
  }

  void forward(int n, Tensor y, Tensor x) {
    backend.conv2dFwd(plan, n, y, x, weight.operand(), planner.workspace());
  }

  boolean fusesMaxPool(Conv2dSpec pool) {
    return plan.fusesMaxPool(pool);
  }

  /** See {@link Backend#conv2dMaxPoolBatchNormFwd}. */
  void forwardPooled(
      Conv2dSpec pool, int n, Activation out, Tensor x, BatchNorm2d norm, Tensor thresholdOrNull) {
    backend.conv2dMaxPoolBatchNormFwd(
        plan,
        pool,
        n,
        out.real(),
        out.bits(),
        x,
        weight.operand(),
        norm.gamma(),
        norm.affine(),
        thresholdOrNull,
        planner.workspace());
  }

  void backwardWeight(int n, Tensor x, Tensor dy, GradMode mode) {
    backend.conv2dBwdWeight(
        plan, n, weight.passGradient(), x, dy, weight.passMode(mode), planner.workspace());
  }

  void backwardInput(int n, Tensor dx, Tensor dy) {
    backend.conv2dBwdInput(plan, n, dx, dy, weight.operand(), planner.workspace());
  }

  @Override
  public void close() {
    plan.close();
  }
}
