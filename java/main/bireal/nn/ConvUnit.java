package bireal.nn;

import bireal.backend.ActivationGradient;
import bireal.backend.ActivationKind;
import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.RPRelu;
import bireal.tensor.Tensor;

/**
 * Nonlinearity, convolution, batch normalisation: BN(conv(f(x))). What every block is made of. f is
 * the sign, whose bits the producer of x has packed, or a real one, which is recomputed where it is
 * needed; the weights are binary or real. Shortcut, RPReLU and the next sign are part of the same
 * pass.
 */
final class ConvUnit {
  /** Outside -1..1, of the leaky clip (networks.md 1C.4, 1B). */
  private static final float LEAKY_SLOPE = 0.1f;

  private final Planner planner;
  private final Backend backend;
  private final Activation in;
  private final Sign sign; // or kind
  private final ActivationKind kind;
  private final ActivationGradient surrogate;
  private final BinaryConv2d binary; // or real
  private final Conv2d real;
  private final BatchNorm2d norm;
  private final Tensor v;
  private final Tensor dz;
  private final Tensor db;
  private final Tensor seen;

  private ConvUnit(
      Planner planner,
      NetworkConfig config,
      String convName,
      String normName,
      Activation in,
      Conv2dSpec spec,
      Sign sign,
      ActivationKind kind,
      boolean binaryWeights) {
    this.planner = planner;
    this.backend = planner.passBackend();
    this.in = in;
    this.sign = sign;
    this.kind = kind;
    this.surrogate = config.activationGradient();
    int n = planner.passImages();
    binary = binaryWeights ? new BinaryConv2d(planner, convName, spec, config) : null;
    real = binaryWeights ? null : new Conv2d(planner, convName, spec, config);
    norm =
        new BatchNorm2d(planner, normName, spec.output(n), binaryWeights ? binary.alpha() : null);
    if (binaryWeights) {
      planner.binaryUnit(binary.unit(normName));
    }
    v =
        binaryWeights && binary.fusesBatchNorm() && !planner.training()
            ? null
            : planner.keep(spec.output(n), binaryWeights ? binary.valueType() : planner.real());
    dz = planner.outputGradient(spec.output(n));
    db = planner.inputGradient(spec.input(n));
    // Shares the memory of db, which a backward pass writes when it needs these values no more.
    seen =
        binaryWeights || kind == ActivationKind.IDENTITY
            ? null
            : planner.forwardScratch(spec.input(n));
    if (sign != null) {
      planner.needWorkspace(
          backend.approxSignWorkspaceBytes(spec.inputCount(n) / spec.C(), spec.C()));
    }
  }

  /** Behind {@code sign}, with weights as the config says. */
  static ConvUnit behindSign(
      Planner planner,
      NetworkConfig config,
      String convName,
      String normName,
      Activation in,
      Conv2dSpec spec,
      Sign sign) {
    return new ConvUnit(
        planner,
        config,
        convName,
        normName,
        in,
        spec,
        sign,
        null,
        config.weights() == NetworkConfig.Weights.BINARY);
  }

  /** Behind a real nonlinearity, with real weights. */
  static ConvUnit real(
      Planner planner,
      NetworkConfig config,
      String convName,
      String normName,
      Activation in,
      Conv2dSpec spec,
      ActivationKind kind) {
    return new ConvUnit(planner, config, convName, normName, in, spec, null, kind, false);
  }

  /**
   * Adds a row to the planner's layers: {@code more} is what the block does behind the
   * normalisation, with {@code moreParameters}.
   */
  void row(String name, String more, long moreParameters) {
    Conv2dSpec spec = binary != null ? binary.spec() : real.spec();
    planner.layer(
        new Planner.LayerRow(
            name,
            (binary != null ? "binary conv " : sign != null ? "sign, conv " : "conv ")
                + spec.R()
                + "x"
                + spec.S()
                + (spec.stride() > 1 ? "/" + spec.stride() : "")
                + ", bn"
                + more,
            spec.output(1),
            spec.weights().count() + norm.parameterCount() + moreParameters,
            binary != null ? spec.macs() : 0,
            binary != null ? 0 : spec.macs(),
            binary != null ? binary.kernelName() : real.kernelName()));
  }

  /**
   * The convolution's output, before its scale and normalisation; null where no backward pass needs
   * it and none is written.
   */
  Tensor v() {
    return v;
  }

  Tensor affine() {
    return norm.affine();
  }

  BatchNorm2d norm() {
    return norm;
  }

  /**
   * {@code out} = the normalised output, plus a shortcut (normalised by its affine, where it has
   * one), through RPReLU, with the signs that {@code next} consumes. The shortcut's values must be
   * there.
   */
  void forward(
      int n,
      Pass pass,
      Activation out,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rpreluOrNull,
      Sign next) {
    Tensor threshold = Sign.thresholdOf(next);
    if (binary != null) {
      norm.prepare(n, v, pass);
      binary.forwardNormalised(
          n,
          out,
          pass == Pass.EVALUATE && binary.fusesBatchNorm() ? null : v,
          in.bits(),
          norm.affine(),
          norm.pending(pass),
          shortcutOrNull,
          shortcutAffineOrNull,
          rpreluOrNull,
          threshold);
      return;
    }
    real.forward(n, v, operand(n));
    norm.prepare(n, v, pass);
    backend.batchNormApply(
        n,
        out.real(),
        out.bits(),
        v,
        norm.affine(),
        norm.pending(pass),
        shortcutOrNull,
        shortcutAffineOrNull,
        rpreluOrNull,
        threshold);
  }

  /** What a real convolution sees. */
  private Tensor operand(int n) {
    if (sign != null) {
      backend.signUnpackFwd(n, seen, in.bits());
    } else if (kind == ActivationKind.IDENTITY) {
      return in.real();
    } else {
      backend.activationFwd(n, seen, in.real(), kind, LEAKY_SLOPE);
    }
    return seen;
  }

  /** Whether the shortcut's gradient may come pooled by 2x2. */
  boolean takesPooled() {
    return sign != null;
  }

  /**
   * {@code dx} = {@code shortcutOrNull} + the gradient of x, from the gradient {@code dy} of the
   * normalised output, and complete with it. dx may be shortcutOrNull, or {@link
   * Planner#inputGradient} of its shape.
   */
  void backward(int n, Tensor dx, Tensor dy, Tensor shortcutOrNull, GradMode mode) {
    norm.backwardSums(n, dy, v);
    norm.backwardFromSums(n, dz, dy, v, mode);
    backwardConvolution(n, dx, shortcutOrNull, mode);
  }

  /** Fills the sums of this normalisation and of the shortcut's, which have the same dy. */
  void backwardSums(int n, Tensor dy, Shortcut shortcut) {
    norm.backwardSums(n, dy, v);
    shortcut.backwardSums(n, dy);
  }

  /**
   * The first half of {@link #backward}, from known sums, together with the normalisation of {@code
   * shortcut}; then {@link Shortcut#backwardConvolution}, then {@link #backwardConvolution}.
   */
  void backwardNorms(int n, Tensor dy, Shortcut shortcut, GradMode mode) {
    shortcut.backwardNorms(n, norm, dz, dy, v, mode);
  }

  /** The second half of {@link #backward}. */
  void backwardConvolution(int n, Tensor dx, Tensor shortcutOrNull, GradMode mode) {
    if (binary != null) {
      binary.backwardWeight(n, in.bits(), dz, mode);
      binary.backwardInput(n, db, dz);
    } else {
      real.backwardWeight(n, operand(n), dz, mode);
      real.backwardInput(n, db, dz);
    }
    if (sign != null) {
      Parameter threshold = sign.threshold();
      backend.approxSignBwd(
          n,
          dx,
          threshold == null ? null : threshold.gradient(),
          in.sums(),
          db,
          in.real(),
          Sign.thresholdOf(sign),
          shortcutOrNull,
          in.v(),
          in.secondSums(),
          in.secondV(),
          surrogate,
          mode,
          planner.workspace());
    } else {
      backend.activationBwd(n, dx, db, in.real(), shortcutOrNull, kind, LEAKY_SLOPE);
    }
  }
}
