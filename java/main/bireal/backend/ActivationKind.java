package bireal.backend;

/** Elementwise nonlinearities of the real-valued networks (native/ops/activation). */
public enum ActivationKind {
  RELU(0),
  LEAKY_CLIP(1),
  CLIP(2),
  IDENTITY(3);

  /** Wire code of the C++ enum of the same name. */
  public final int code;

  ActivationKind(int code) {
    this.code = code;
  }
}
