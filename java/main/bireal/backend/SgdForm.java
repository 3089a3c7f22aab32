package bireal.backend;

/** What the momentum buffer holds (docs/decisions.md, row 17; native/ops/sgd). */
public enum SgdForm {
  PYTORCH(0),
  CAFFE(1);

  /** Wire code of the C++ enum of the same name. */
  public final int code;

  SgdForm(int code) {
    this.code = code;
  }
}
