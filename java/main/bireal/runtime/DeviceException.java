package bireal.runtime;

/** A call into a device or its library failed. */
public final class DeviceException extends NativeException {
  private static final long serialVersionUID = 1L;
  private final String op;
  private final int code;
  private final boolean fatal;

  /** Called by native/jni/jni_guard.h; the signature is looked up in JNI_OnLoad. */
  public DeviceException(String op, int code, String message, boolean fatal) {
    super(message);
    this.op = op;
    this.code = code;
    this.fatal = fatal;
  }

  public String op() {
    return op;
  }

  public int code() {
    return code;
  }

  /** True if the device cannot be used any more in this process. */
  public boolean fatal() {
    return fatal;
  }
}
