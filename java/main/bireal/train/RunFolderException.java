package bireal.train;

import bireal.runtime.InputException;

/** A run's folder or log cannot be used; the message names it and says what to do. */
public final class RunFolderException extends InputException {
  private static final long serialVersionUID = 1L;

  RunFolderException(String message) {
    super(message);
  }

  RunFolderException(String message, Throwable cause) {
    super(message, cause);
  }
}
