package bireal.nn;

import bireal.backend.ActivationKind;
import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/** y = relu(BN(x)): what ends a network whose blocks begin with their normalisation (XNOR-Net). */
final class NormReluBlock implements Block {
  private final String name;
  private Backend backend;
  private Activation in;
  private Activation out;
  private BatchNorm2d norm;

  NormReluBlock(String name) {
    this.name = name;
  }

  @Override
  public Sign consumes() {
    return null;
  }

  @Override
  public Activation plan(Planner planner, Activation input, Sign next) {
    backend = planner.passBackend();
    in = input;
    norm = new BatchNorm2d(planner, name, in.real().shape(), null);
    planner.layer(
        new Planner.LayerRow(
            name,
            "bn, relu",
            Shape.of(1, in.image().dim(0), in.image().dim(1), in.channels()),
            norm.parameterCount(),
            0,
            0,
            ""));
    out = Activation.keep(planner, in.real().shape(), null, in.slot());
    return out;
  }

  @Override
  public void forward(int n, Pass pass) {
    norm.prepare(n, in.real(), pass);
    backend.batchNormApply(
        n, out.real(), null, in.real(), norm.affine(), null, null, null, null, null);
    backend.activationFwd(n, out.real(), out.real(), ActivationKind.RELU, 0);
  }

  @Override
  public void backward(int n, GradMode mode) {
    Tensor dy = out.gradient();
    backend.activationBwd(n, dy, dy, out.real(), null, ActivationKind.RELU, 0);
    norm.backward(n, in.gradient(), dy, in.real(), mode);
  }
}
