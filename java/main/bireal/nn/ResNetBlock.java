package bireal.nn;

import bireal.backend.ActivationKind;
import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.tensor.Tensor;

/**
 * ResNet's basic block: y = relu(BN(conv3x3(relu(BN(conv3x3 x)))) + shortcut(x)), as torchvision
 * has it (He et al. 2016; networks.md 3.1).
 */
final class ResNetBlock implements Block {
  private final NetworkConfig config;
  private final String name;
  private final int K;
  private final int stride;
  private Backend backend;
  private Activation in;
  private Activation hidden;
  private Activation out;
  private ConvUnit first;
  private ConvUnit second;
  private Shortcut shortcut;

  /** {@code name} is torchvision's prefix, e.g. {@code layer1.0}; K channels out. */
  ResNetBlock(NetworkConfig config, String name, int K, int stride) {
    this.config = config;
    this.name = name;
    this.K = K;
    this.stride = stride;
  }

  @Override
  public Sign consumes() {
    return null;
  }

  @Override
  public Activation plan(Planner planner, Activation input, Sign next) {
    backend = planner.passBackend();
    in = input;
    int n = planner.passImages();
    Conv2dSpec spec1 = Conv2dSpec.square(in.image(), K, 3, stride, 1);
    first =
        ConvUnit.real(
            planner,
            config,
            name + ".conv1.weight",
            name + ".bn1",
            in,
            spec1,
            ActivationKind.IDENTITY);
    first.row(name + ".conv1", "", 0);
    // Its gradient lives where the second convolution puts that of its input.
    hidden =
        new Activation(
            planner.keep(spec1.output(n), planner.real()),
            null,
            planner.inputGradient(spec1.output(n)),
            -1);
    Conv2dSpec spec2 = Conv2dSpec.square(hidden.image(), K, 3, 1, 1);
    second =
        ConvUnit.real(
            planner,
            config,
            name + ".conv2.weight",
            name + ".bn2",
            hidden,
            spec2,
            ActivationKind.RELU);
    second.row(name + ".conv2", ", shortcut, relu", 0);
    shortcut = new Shortcut(planner, config, name, in, K, stride, false);
    out = Activation.keep(planner, spec2.output(n), null, shortcut.gradientSlot());
    return out;
  }

  @Override
  public void forward(int n, Pass pass) {
    first.forward(n, pass, hidden, null, null, null, null);
    shortcut.forward(n, pass);
    second.forward(n, pass, out, shortcut.value(), shortcut.affine(), null, null);
    backend.activationFwd(n, out.real(), out.real(), ActivationKind.RELU, 0);
  }

  @Override
  public void backward(int n, GradMode mode) {
    // relu(z) > 0 where z > 0, so its output says as much as its input.
    Tensor dy = out.gradient();
    backend.activationBwd(n, dy, dy, out.real(), null, ActivationKind.RELU, 0);
    second.backwardSums(n, dy, shortcut);
    second.backwardNorms(n, dy, shortcut, mode);
    Tensor part = shortcut.backwardConvolution(n, first.takesPooled(), mode);
    second.backwardConvolution(n, hidden.gradient(), null, mode);
    first.backward(n, in.gradient(), hidden.gradient(), part, mode);
  }
}
