package bireal.backend;

/**
 * Rule for the gradient of binary weights (docs/decisions.md, row 3; native/ops/weight_binarize).
 */
public enum WeightGradient {
  CLIPPED(0),
  MAGNITUDE_AWARE(1),
  STRAIGHT_THROUGH(2),
  XNOR(3);

  /** Wire code of the C++ enum of the same name. */
  public final int code;

  WeightGradient(int code) {
    this.code = code;
  }
}
