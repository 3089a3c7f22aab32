package bireal.runtime;

/**
 * What the user gave - a file, a key, a shape - is wrong. The message names it and the fix, so it
 * is shown without a stack trace; the process ends with exit code 2.
 */
public class InputException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  public InputException(String message) {
    super(message);
  }

  public InputException(String message, Throwable cause) {
    super(message, cause);
  }
}
