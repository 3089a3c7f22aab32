package bireal.nn;

import bireal.backend.ActivationKind;
import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.RPRelu;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * One 3x3 convolution under its own shortcut: y = BN(conv(f(x), W)) + shortcut(x). Bi-Real Net: f
 * is the sign, W binary (Liu et al. 2018, fig. 2; networks.md 1A.1). Its real-valued twin: f and W
 * real. ReActNet: f is the sign of x + threshold, and RPReLU follows the sum (Liu et al. 2020;
 * networks.md 2.1). BN, addition, RPReLU and the next block's sign are one pass.
 */
final class BiRealBlock implements Block {
  private final NetworkConfig config;
  private final String name;
  private final int K;
  private final int stride;
  private final Sign sign;
  private Planner planner;
  private Backend backend;
  private Activation in;
  private Activation out;
  private Sign next;
  private ConvUnit unit;
  private Shortcut shortcut;
  private Parameter bias1;
  private Parameter slope;
  private Parameter bias2;
  private RPRelu rprelu;
  private RPRelu rpreluGradients;

  /** {@code name} is the published prefix, e.g. {@code layer1.0}; C channels in, K out. */
  BiRealBlock(NetworkConfig config, String name, int C, int K, int stride) {
    this.config = config;
    this.name = name;
    this.K = K;
    this.stride = stride;
    sign =
        config.nonlinearity() != NetworkConfig.Nonlinearity.SIGN
            ? null
            : react() ? new Sign(channelBias("move0", C)) : Sign.PLAIN;
  }

  private boolean react() {
    return config.network() == NetworkConfig.Family.REACTNET;
  }

  private Parameter channelBias(String module, int channels) {
    return perChannel(module + ".bias", new long[] {1, channels, 1, 1}, channels, 0);
  }

  private Parameter perChannel(String key, long[] published, int channels, double initial) {
    return new Parameter(
        name + "." + key,
        published,
        Shape.of(channels),
        State.Order.AS_PUBLISHED,
        initial,
        initial);
  }

  @Override
  public Sign consumes() {
    return sign;
  }

  @Override
  public Activation plan(Planner planner, Activation input, Sign nextSign) {
    this.planner = planner;
    backend = planner.passBackend();
    in = input;
    next = nextSign;
    Conv2dSpec spec = Conv2dSpec.square(in.image(), K, 3, stride, 1);
    String normName = name + ".bn1";
    long more = 0;
    if (sign == null) {
      ActivationKind kind =
          switch (config.nonlinearity()) {
            case RELU -> ActivationKind.RELU;
            case LEAKY_CLIP -> ActivationKind.LEAKY_CLIP;
            case CLIP -> ActivationKind.CLIP;
            case SIGN, AUTO -> throw new IllegalStateException("no real nonlinearity");
          };
      unit =
          ConvUnit.real(planner, config, name + ".binary_conv.weights", normName, in, spec, kind);
    } else if (react()) {
      planner.parameter(sign.threshold());
      unit =
          ConvUnit.behindSign(
              planner, config, name + ".binary_conv.weight", normName, in, spec, sign);
      bias1 = planner.parameter(channelBias("move1", K));
      slope = planner.parameter(perChannel("prelu.weight", new long[] {K}, K, 0.25));
      bias2 = planner.parameter(channelBias("move2", K));
      more = in.channels() + 3L * K;
    } else {
      unit =
          ConvUnit.behindSign(
              planner, config, name + ".binary_conv.weights", normName, in, spec, sign);
    }
    unit.row(name, ", shortcut" + (react() ? ", rprelu" : ""), more);
    shortcut = new Shortcut(planner, config, name, in, K, stride, true);
    out =
        Activation.keep(planner, spec.output(planner.passImages()), next, shortcut.gradientSlot());
    if (!react()) { // where RPReLU lies between, its backward pass sums
      out = out.summedFor(unit.norm(), unit.v(), shortcut.norm(), shortcut.value());
    }
    return out;
  }

  /** Null without one. Made once: the parameters have their memory only after planning. */
  private RPRelu rprelu() {
    if (react() && rprelu == null) {
      rprelu = new RPRelu(bias1.value(), slope.value(), bias2.value());
      rpreluGradients = new RPRelu(bias1.gradient(), slope.gradient(), bias2.gradient());
    }
    return rprelu;
  }

  @Override
  public void forward(int n, Pass pass) {
    shortcut.forward(n, pass);
    unit.forward(n, pass, out, shortcut.value(), shortcut.affine(), rprelu(), next);
  }

  @Override
  public void backward(int n, GradMode mode) {
    Tensor dy = out.gradient();
    if (react()) {
      backend.batchNormRPReluBwd(
          n,
          dy,
          unit.norm().backwardSums(),
          rpreluGradients,
          dy,
          unit.v(),
          unit.affine(),
          shortcut.value(),
          shortcut.affine(),
          rprelu(),
          mode,
          planner.workspace());
      shortcut.backwardSums(n, dy);
    } else if (out.sums() == null) { // else the next block has filled them
      unit.backwardSums(n, dy, shortcut);
    }
    unit.backwardNorms(n, dy, shortcut, mode);
    Tensor part = shortcut.backwardConvolution(n, unit.takesPooled(), mode);
    unit.backwardConvolution(n, in.gradient(), part, mode);
  }
}
