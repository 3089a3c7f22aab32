package bireal.train;

import bireal.runtime.InputException;
import java.nio.file.Path;

/**
 * A checkpoint or tensor file cannot be read or written; the message names the file, the place in
 * it, what was found and what to do.
 */
public final class CheckpointException extends InputException {
  private static final long serialVersionUID = 1L;
  private static final int LONGEST_QUOTE = 120;

  CheckpointException(String message) {
    super(message);
  }

  CheckpointException(String message, Throwable cause) {
    super(message, cause);
  }

  /** The one form of message about the content of a file. */
  static CheckpointException at(
      Path file, String place, String found, String expected, String fix) {
    return new CheckpointException(
        file + ": " + place + ": found " + found + ", expected " + expected + "; " + fix);
  }

  /** Text from a file, made safe for a message: shortened, on one line, without control codes. */
  static String quote(String text) {
    StringBuilder out = new StringBuilder("'");
    for (int i = 0; i < text.length() && i < LONGEST_QUOTE; i++) {
      char c = text.charAt(i);
      boolean plain = !Character.isISOControl(c) && !Character.isSurrogate(c);
      out.append(plain ? String.valueOf(c) : String.format("\\u%04x", (int) c));
    }
    return out.append(text.length() > LONGEST_QUOTE ? "...'" : "'").toString();
  }
}
