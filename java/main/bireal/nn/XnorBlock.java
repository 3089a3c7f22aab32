package bireal.nn;

import bireal.backend.ActivationKind;
import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * XNOR-Net's block: twice BN, sign, binary 3x3 convolution, under one shortcut (Rastegari et al.
 * 2016; docs/decisions.md, row 15). The normalisations come before the signs, so the last
 * convolution's scale is applied where the shortcut is added.
 */
final class XnorBlock implements Block {
  private final NetworkConfig config;
  private final String name;
  private final int K;
  private final int stride;
  private Planner planner;
  private Backend backend;
  private Activation in;
  private Activation out;
  private Half first;
  private Half second;
  private Shortcut shortcut;
  private Tensor dz;

  /** {@code name} is the prefix of the parameters, e.g. {@code layer1.0}; K channels out. */
  XnorBlock(NetworkConfig config, String name, int K, int stride) {
    this.config = config;
    this.name = name;
    this.K = K;
    this.stride = stride;
  }

  /** a = BN(z) and v = conv(sign a); z is x, or alpha v of the half before. */
  private final class Half {
    final BatchNorm2d norm;
    final BinaryConv2d conv;
    final Tensor a;
    final Tensor bits;
    final Tensor v;
    final Tensor da;

    Half(int number, Shape image, int step, Tensor alphaOfZ) {
      int n = planner.passImages();
      Conv2dSpec spec = Conv2dSpec.square(image, K, 3, step, 1);
      norm = new BatchNorm2d(planner, name + ".bn" + number, spec.input(n), alphaOfZ);
      conv = new BinaryConv2d(planner, name + ".conv" + number + ".weight", spec, config);
      planner.binaryUnit(conv.unit(number == 1 ? name + ".bn2" : null));
      a = planner.keep(spec.input(n), planner.real());
      bits = planner.keep(spec.input(n), DType.BITS);
      v = planner.keep(spec.output(n), conv.valueType());
      da = planner.inputGradient(spec.input(n));
      planner.layer(
          new Planner.LayerRow(
              name + ".conv" + number,
              "bn, binary conv 3x3"
                  + (step > 1 ? "/" + step : "")
                  + (number == 2 ? ", shortcut" : ""),
              spec.output(1),
              conv.parameterCount() + norm.parameterCount(),
              spec.macs(),
              0,
              conv.kernelName()));
    }

    void forward(int n, Tensor z, Tensor sumsOrNull, Pass pass) {
      norm.prepare(n, z, pass);
      backend.batchNormApply(
          n, a, bits, z, norm.affine(), norm.pending(pass), null, null, null, null);
      conv.forward(n, v, sumsOrNull, bits);
    }

    /** From the gradient {@code dv} of alpha v to that of z, which is left in {@code dz}. */
    void backward(int n, Tensor dz, Tensor dv, Tensor z, GradMode mode) {
      conv.backwardWeight(n, bits, dv, mode);
      conv.backwardInput(n, da, dv);
      backend.approxSignBwd(
          n,
          da,
          null,
          null,
          da,
          a,
          null,
          null,
          null,
          null,
          null,
          config.activationGradient(),
          mode,
          planner.workspace());
      norm.backward(n, dz, da, z, mode);
    }
  }

  @Override
  public Sign consumes() {
    return null;
  }

  @Override
  public Activation plan(Planner planner, Activation input, Sign next) {
    this.planner = planner;
    backend = planner.passBackend();
    in = input;
    first = new Half(1, in.image(), stride, null);
    Shape middle = first.v.shape();
    second = new Half(2, Shape.of(middle.dim(1), middle.dim(2), K), 1, first.conv.alpha());
    shortcut = new Shortcut(planner, config, name, in, K, stride, false);
    out = Activation.keep(planner, second.v.shape(), null, shortcut.gradientSlot());
    dz = planner.outputGradient(middle);
    return out;
  }

  @Override
  public void forward(int n, Pass pass) {
    first.forward(n, in.real(), pass == Pass.TRAIN ? second.norm.sums() : null, pass);
    second.forward(n, first.v, null, pass);
    shortcut.forward(n, pass);
    backend.batchNormApply(
        n,
        out.real(),
        null,
        second.v,
        second.conv.scaleOnly(),
        null,
        shortcut.value(),
        shortcut.affine(),
        null,
        null);
  }

  @Override
  public void backward(int n, GradMode mode) {
    Tensor dy = out.gradient();
    shortcut.backward(n, dy, mode);
    second.backward(n, dz, dy, first.v, mode);
    first.backward(n, first.da, dz, in.real(), mode);
    backend.activationBwd(
        n, in.gradient(), first.da, in.real(), in.gradient(), ActivationKind.IDENTITY, 0);
  }
}
