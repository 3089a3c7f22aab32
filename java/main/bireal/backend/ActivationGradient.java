package bireal.backend;

/** Surrogate gradient of the activation sign (docs/decisions.md, row 4; native/ops/approx_sign). */
public enum ActivationGradient {
  APPROX_SIGN(0),
  CLIPPED_IDENTITY(1);

  /** Wire code of the C++ enum of the same name. */
  public final int code;

  ActivationGradient(int code) {
    this.code = code;
  }
}
