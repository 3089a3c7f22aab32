package bireal.nn;

import bireal.runtime.InputException;

/**
 * The planned step does not fit into the memory of the backend. The message is a table of who
 * wanted what.
 */
public final class MemoryException extends InputException {
  private static final long serialVersionUID = 1L;

  MemoryException(Planner planner, long availableBytes) {
    super(
        String.format(
            "a micro-batch of %d images needs %,d MB but only %,d MB are free:%n%s",
            planner.maxImages(),
            planner.memoryBytes() >> 20,
            availableBytes >> 20,
            table(planner, availableBytes)));
  }

  /** Where the backend refused what it said it had: others took it, or it lies in pieces. */
  MemoryException(Planner planner, long availableBytes, OutOfMemoryError refusal) {
    super(
        String.format(
            "a micro-batch of %d images needs %,d MB of the %,d MB that were free, but %s:%n%s",
            planner.maxImages(),
            planner.memoryBytes() >> 20,
            availableBytes >> 20,
            refusal.getMessage(),
            table(planner, Math.min(availableBytes, planner.memoryBytes() / 2))));
    initCause(refusal);
  }

  /** Who wanted what, and the batch that fits into {@code availableBytes}. */
  private static String table(Planner planner, long availableBytes) {
    StringBuilder text = new StringBuilder();
    for (Planner.MemoryRow row : planner.memory()) {
      text.append(String.format("  %-40s %,12.1f MB%n", row.what(), row.bytes() / 1048576.0));
    }
    // All but parameters grows with the images; the estimate is a hint, so it is rounded down.
    long fits =
        Math.max(1, (long) (planner.maxImages() * 0.95 * availableBytes / planner.memoryBytes()));
    text.append(
        String.format(
            "set train.micro_batch to about %d: the batch stays as it is, its gradients are accumulated",
            fits));
    return text.toString();
  }
}
