package bireal.train;

/**
 * A checkpoint or a log line could not be written, by no fault of the run: a full disk, a folder
 * without permission. The checkpoints before are as they were; the message says what to do.
 */
public final class SaveException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** {@code message} is for the user, with place and fix. */
  public SaveException(String message, Throwable cause) {
    super(message, cause);
  }
}
