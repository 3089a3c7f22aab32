package bireal.nn;

import bireal.backend.ActivationKind;
import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * Bi-Real Net-50's bottleneck of two streams, narrow x1 (M channels) and wide x2 (P = 4M), each
 * binary convolution under its own shortcut (networks.md 1B):
 *
 * <pre>
 *   out1 = BN(conv1x1(sign x2)) + x1, or the real 1x1 convolution of x1 where the block reshapes
 *   out2 = BN(conv3x3(sign out1)) + out1, average-pooled where it strides
 *   out3 = BN(conv1x1(sign out2)) + shortcut(x2)
 * </pre>
 *
 * out2 is the next x1, out3 the next x2. The network's first block sees x2 through a leaky clip and
 * a real convolution, and adds no x1; its down_conv1x1 is published, but never used or trained.
 */
final class BottleneckBlock implements Block {
  private static final int NARROW = 2; // the slots of the narrow stream's gradients are 2 and 3

  private final NetworkConfig config;
  private final String name;
  private final BottleneckBlock before;
  private final int M;
  private final int P;
  private final int stride;
  private final boolean reshapes;
  private Backend backend;
  private Activation in;
  private Activation narrowIn;
  private Activation out1;
  private Activation out2;
  private Activation out;
  private Sign next;
  private ConvUnit unit1;
  private ConvUnit unit2;
  private ConvUnit unit3;
  private Conv2d narrowConv;
  private Tensor narrowValue;
  private Conv2dSpec pool;
  private Tensor pooled;
  private Shortcut shortcut;
  private boolean narrowIsConsumed;

  /**
   * {@code name} is the published prefix, e.g. {@code layers.3}; {@code before} the block before,
   * whose narrow stream comes in, or null. P channels out.
   */
  BottleneckBlock(NetworkConfig config, String name, BottleneckBlock before, int P, int stride) {
    this.config = config;
    this.name = name;
    this.before = before;
    this.M = P / 4;
    this.P = P;
    this.stride = stride;
    this.reshapes = before == null || before.P != P;
  }

  @Override
  public Sign consumes() {
    return before == null ? null : Sign.PLAIN;
  }

  @Override
  public Activation plan(Planner planner, Activation input, Sign nextSign) {
    backend = planner.passBackend();
    in = input;
    next = nextSign;
    int n = planner.passImages();
    Conv2dSpec spec1 = Conv2dSpec.square(in.image(), M, 1, 1, 0);
    String conv = name + ".conv";
    String bn = name + ".bn";
    String add1 = "";
    long more = 0;
    if (before == null) {
      unit1 =
          ConvUnit.real(
              planner, config, conv + "1.weight", bn + "1", in, spec1, ActivationKind.LEAKY_CLIP);
    } else {
      narrowIn = before.out2;
      before.narrowIsConsumed = true;
      unit1 =
          ConvUnit.behindSign(planner, config, conv + "1.weight", bn + "1", in, spec1, Sign.PLAIN);
      add1 = ", shortcut";
    }
    // Backward goes d2, d1, gradient of x1. Where it strides, d1 has another shape and takes the
    // other
    // slot; x1's comes back to the first, where d2 is no longer needed.
    int slot2 = narrowIn == null ? NARROW : narrowIn.slot();
    out1 =
        Activation.keep(
            planner, spec1.output(n), Sign.PLAIN, stride > 1 ? 2 * NARROW + 1 - slot2 : slot2);
    Conv2dSpec spec2 = Conv2dSpec.square(out1.image(), M, 3, stride, 1);
    unit2 =
        ConvUnit.behindSign(planner, config, conv + "2.weight", bn + "2", out1, spec2, Sign.PLAIN);
    out2 = Activation.keep(planner, spec2.output(n), Sign.PLAIN, slot2);
    Conv2dSpec spec3 = Conv2dSpec.square(out2.image(), P, 1, 1, 0);
    unit3 =
        ConvUnit.behindSign(planner, config, conv + "3.weight", bn + "3", out2, spec3, Sign.PLAIN);
    if (reshapes) {
      String down = name + ".down_conv1x1.weight";
      int C = in.channels() / 4;
      if (before == null) {
        Shape shape = Shape.of(M, 1, 1, C);
        double bound = Conv2d.initialBound(shape, config);
        planner.parameter(
            new Parameter(down, new long[] {M, C, 1, 1}, shape, State.Order.KRSC, -bound, bound));
        more = shape.count();
      } else {
        Conv2dSpec spec = Conv2dSpec.square(narrowIn.image(), M, 1, 1, 0);
        narrowConv = new Conv2d(planner, down, spec, config);
        narrowValue = planner.forwardScratch(spec.output(n));
        planner.layer(
            new Planner.LayerRow(
                name + ".down_conv1x1",
                "conv 1x1",
                spec.output(1),
                narrowConv.parameterCount(),
                0,
                spec.macs(),
                narrowConv.kernelName()));
      }
    }
    unit1.row(conv + "1", add1, 0);
    unit2.row(conv + "2", stride > 1 ? ", avg-pool shortcut" : ", shortcut", 0);
    unit3.row(conv + "3", ", shortcut", more);
    if (stride > 1) {
      pool = new Conv2dSpec(spec2.H(), spec2.W(), M, M, stride, stride, stride, 0);
      pooled = planner.forwardScratch(spec2.output(n));
    }
    shortcut = new Shortcut(planner, config, name, in, P, stride, true);
    out = Activation.keep(planner, spec3.output(n), next, shortcut.gradientSlot());
    return out;
  }

  @Override
  public void forward(int n, Pass pass) {
    Tensor add1 = narrowIn == null ? null : narrowIn.real();
    if (narrowConv != null) {
      narrowConv.forward(n, narrowValue, narrowIn.real());
      add1 = narrowValue;
    }
    unit1.forward(n, pass, out1, add1, null, null, Sign.PLAIN);
    Tensor add2 = out1.real();
    if (pool != null) {
      backend.avgPoolFwd(pool, n, pooled, out1.real());
      add2 = pooled;
    }
    unit2.forward(n, pass, out2, add2, null, null, Sign.PLAIN);
    shortcut.forward(n, pass);
    unit3.forward(n, pass, out, shortcut.value(), shortcut.affine(), null, next);
  }

  @Override
  public void backward(int n, GradMode mode) {
    Tensor d1 = out1.gradient();
    Tensor d2 = out2.gradient();
    Tensor d3 = out.gradient();
    unit3.backwardSums(n, d3, shortcut);
    unit3.backwardNorms(n, d3, shortcut, mode);
    Tensor part = shortcut.backwardConvolution(n, unit1.takesPooled(), mode);
    unit3.backwardConvolution(n, d2, narrowIsConsumed ? d2 : null, mode);
    unit2.backward(n, d1, d2, d2, mode); // of the shortcut pooled, or d1 lies where d2 does
    unit1.backward(n, in.gradient(), d1, part, mode);
    if (narrowConv != null) {
      narrowConv.backwardWeight(n, narrowIn.real(), d1, mode);
      narrowConv.backwardInput(n, narrowIn.gradient(), d1);
    }
  }
}
