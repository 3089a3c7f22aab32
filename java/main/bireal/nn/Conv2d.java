package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Plan;
import bireal.tensor.Tensor;

/** Real convolution without bias (native/ops/conv2d). */
final class Conv2d implements AutoCloseable {
  private final Planner planner;
  private final Backend backend;
  private final Plan.Conv2d plan;
  private final Parameter weight;

  /** Initialised as PyTorch does: uniform in +-1/sqrt(fan_in). */
  Conv2d(Planner planner, String name, Conv2dSpec spec) {
    this.planner = planner;
    this.backend = planner.backend();
    this.plan = backend.planConv2d(spec, planner.maxImages());
    double bound = 1 / Math.sqrt((double) spec.weights().innerCount());
    weight =
        planner.parameter(
            new Parameter(
                name,
                new long[] {spec.K(), spec.C(), spec.R(), spec.S()},
                spec.weights(),
                State.Order.KRSC,
                -bound,
                bound));
    planner.needWorkspace(plan.workspaceBytes());
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
    backend.conv2dFwd(plan, n, y, x, weight.value(), planner.workspace());
  }

  void backwardWeight(int n, Tensor x, Tensor dy, GradMode mode) {
    backend.conv2dBwdWeight(plan, n, weight.gradient(), x, dy, mode, planner.workspace());
  }

  void backwardInput(int n, Tensor dx, Tensor dy) {
    backend.conv2dBwdInput(plan, n, dx, dy, weight.value(), planner.workspace());
  }

  @Override
  public void close() {
    plan.close();
  }
}
