package bireal.data;

import bireal.runtime.InputException;

/**
 * Data cannot be read or do not fit the configuration. The message names the file or key, what was
 * expected and found, and the fix.
 */
public final class DataException extends InputException {
  private static final long serialVersionUID = 1L;

  public DataException(String message) {
    super(message);
  }

  public DataException(String message, Throwable cause) {
    super(message, cause);
  }
}
