package bireal.backend;

/** Whether a gradient output replaces what is there, or is added to it once it is complete. */
public enum GradMode {
  OVERWRITE(0),
  ACCUMULATE(1);

  /** Wire code of the C++ enum of the same name. */
  public final int code;

  GradMode(int code) {
    this.code = code;
  }
}
