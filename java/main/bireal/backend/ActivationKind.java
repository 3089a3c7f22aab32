package bireal.backend;

/** Elementwise nonlinearities of the real-valued twins (native/ops/activation). */
public enum ActivationKind {
  RELU(0),
  LEAKY_CLIP(1),
  CLIP(2);

  /** Wire code of the C++ enum of the same name. */
  public final int code;

  ActivationKind(int code) {
    this.code = code;
  }
}
