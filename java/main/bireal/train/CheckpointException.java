package bireal.train;

import bireal.runtime.InputException;
import java.nio.file.Path;
import java.util.OptionalLong;

/**
 * A checkpoint or tensor file cannot be read or written; the message names the file, the place in
 * it, what was found and what to do.
 */
public final class CheckpointException extends InputException {
  private static final long serialVersionUID = 1L;
  private static final int LONGEST_QUOTE = 120;
  private static final long NONE = -1;

  private final long goodStep;

  CheckpointException(String message) {
    super(message);
    this.goodStep = NONE;
  }

  CheckpointException(String message, Throwable cause) {
    this(message, cause, NONE);
  }

  private CheckpointException(String message, Throwable cause, long goodStep) {
    super(message, cause);
    this.goodStep = goodStep;
  }

  /** Damage, with a good checkpoint of an earlier step beside it. */
  static CheckpointException withGood(String message, Throwable cause, long goodStep) {
    return new CheckpointException(message, cause, goodStep);
  }

  /** Step of the newest good checkpoint before a damaged one, if there is one. */
  public OptionalLong goodStep() {
    return goodStep == NONE ? OptionalLong.empty() : OptionalLong.of(goodStep);
  }

  /** The same, with what the user may do about it. */
  public CheckpointException withAdvice(String advice) {
    return new CheckpointException(getMessage() + "; " + advice, this, goodStep);
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
