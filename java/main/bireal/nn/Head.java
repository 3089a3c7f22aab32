package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Plan;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/** Last layers, real: global average pooling and a fully connected layer with bias. */
final class Head implements Layer {
  private final Planner planner;
  private final Backend backend;
  private final Activation in;
  private final Conv2dSpec pool;
  private final Plan.Linear plan;
  private final Parameter weight;
  private final Parameter bias;
  private final Tensor pooled;
  private final Tensor pooledGradient;
  private final Tensor logits;
  private final Tensor logitsGradient;

  Head(Planner planner, Activation input, int classes) {
    this.planner = planner;
    this.backend = planner.passBackend();
    this.in = input;
    int n = planner.passImages();
    int H = (int) in.image().dim(0);
    int W = (int) in.image().dim(1);
    int C = in.channels();
    pool = new Conv2dSpec(H, W, C, C, H, W, 1, 0);
    plan = backend.planLinear(C, classes, n, planner.real());
    double bound = 1 / Math.sqrt(C);
    weight =
        planner.parameter(
            new Parameter(
                "fc.weight",
                new long[] {classes, C},
                Shape.of(classes, C),
                State.Order.AS_PUBLISHED,
                -bound,
                bound));
    bias =
        planner.parameter(
            new Parameter(
                "fc.bias",
                new long[] {classes},
                Shape.of(classes),
                State.Order.AS_PUBLISHED,
                -bound,
                bound));
    pooled = planner.keep(Shape.of(n, 1, 1, C), planner.real());
    pooledGradient = planner.pooledGradient(Shape.of(n, 1, 1, C));
    Shape shape = Shape.of(planner.maxImages(), classes);
    logits = planner.outside(shape);
    logitsGradient = planner.training() ? planner.outside(shape) : null;
    planner.fit(weight, plan, null);
    planner.fit(bias, plan, null);
    planner.own(this);
    planner.needWorkspace(plan.workspaceBytes());
    planner.needWorkspace(backend.softmaxXentWorkspaceBytes(planner.maxImages()));
    planner.layer(new Planner.LayerRow("avgpool", "global average", Shape.of(1, C), 0, 0, 0, ""));
    planner.layer(
        new Planner.LayerRow(
            "fc",
            "linear",
            Shape.of(1, classes),
            weight.shape().count() + classes,
            0,
            (long) C * classes,
            plan.kernelName()));
  }

  Tensor logits() {
    return logits;
  }

  Tensor logitsGradient() {
    return logitsGradient;
  }

  /** {@code out} is {@link #logits}, or some images of it. */
  void forward(int n, Tensor out) {
    backend.avgPoolFwd(pool, n, pooled, in.real());
    backend.linearFwd(plan, n, out, pooled, weight.operand(), bias.operand(), planner.workspace());
  }

  void backward(int n, GradMode mode) {
    backend.linearBwdWeight(
        plan,
        n,
        weight.passGradient(),
        bias.passGradient(),
        pooled,
        logitsGradient,
        weight.passMode(mode),
        planner.workspace());
    backend.linearBwdInput(
        plan, n, pooledGradient, logitsGradient, weight.operand(), planner.workspace());
    backend.avgPoolBwd(pool, n, in.gradient(), pooledGradient);
  }

  @Override
  public void close() {
    plan.close();
  }
}
