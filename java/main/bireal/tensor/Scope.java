package bireal.tensor;

import java.util.ArrayDeque;
import java.util.Deque;

/**
 * Closes its members in reverse order of their adding; a failing member does not keep the others
 * open.
 */
public final class Scope implements AutoCloseable {
  private final Deque<AutoCloseable> members = new ArrayDeque<>();

  public <C extends AutoCloseable> C add(C member) {
    members.push(member);
    return member;
  }

  /** Closes everything because of {@code cause}, to which failures are added. */
  public void closeAfter(Throwable cause) {
    try {
      close();
    } catch (RuntimeException e) {
      cause.addSuppressed(e);
    }
  }

  @Override
  public void close() {
    RuntimeException failure = null;
    while (!members.isEmpty()) {
      try {
        members.pop().close();
      } catch (Exception e) {
        RuntimeException wrapped =
            e instanceof RuntimeException runtime
                ? runtime
                : new IllegalStateException("closing failed", e);
        if (failure == null) {
          failure = wrapped;
        } else {
          failure.addSuppressed(wrapped);
        }
      }
    }
    if (failure != null) {
      throw failure;
    }
  }
}
