package bireal.nn;

import bireal.backend.GradMode;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * One trained tensor: a view into the flat parameter buffer, and its gradient, a view into the flat
 * gradient buffer at the same offset. Usable once the network's memory is planned.
 */
public final class Parameter extends State {
  private final double initLow;
  private final double initHigh;
  private final boolean binary;
  private Tensor gradient;
  private Tensor operand; // or null: the value
  private Tensor rounded; // or null: the gradient

  /**
   * Filled uniformly from [initLow, initHigh) when a network is initialised; equal bounds give a
   * constant.
   */
  public Parameter(
      String name,
      long[] publishedDims,
      Shape shape,
      Order order,
      double initLow,
      double initHigh) {
    this(name, publishedDims, shape, order, initLow, initHigh, false);
  }

  private Parameter(
      String name,
      long[] publishedDims,
      Shape shape,
      Order order,
      double initLow,
      double initHigh,
      boolean binary) {
    super(name, publishedDims, shape, order);
    this.initLow = initLow;
    this.initHigh = initHigh;
    this.binary = binary;
  }

  /** Masters of binary weights, [K,R,S,C] in memory. */
  static Parameter binary(
      String name, long[] publishedDims, Shape shape, double initLow, double initHigh) {
    return new Parameter(name, publishedDims, shape, Order.KRSC, initLow, initHigh, true);
  }

  /** Whether the network uses alpha times the signs of these weights. */
  public boolean binary() {
    return binary;
  }

  public double initLow() {
    return initLow;
  }

  public double initHigh() {
    return initHigh;
  }

  /** Gradient of the loss; layout of {@link #value}. */
  public Tensor gradient() {
    return gradient;
  }

  /** What passes take: the value, or a copy of another type that follows it. */
  Tensor operand() {
    return operand == null ? value() : operand;
  }

  /** Where passes write the gradient, in {@link #passMode}: itself, or a copy of another type. */
  Tensor passGradient() {
    return rounded == null ? gradient : rounded;
  }

  /** A copy is overwritten, and added to the gradient later. */
  GradMode passMode(GradMode mode) {
    return rounded == null ? mode : GradMode.OVERWRITE;
  }

  void bind(Tensor value, Tensor gradientOrNull) {
    bind(value);
    this.gradient = gradientOrNull;
  }

  void copies(Tensor operandOrNull, Tensor roundedGradientOrNull) {
    operand = operandOrNull;
    rounded = roundedGradientOrNull;
  }
}
