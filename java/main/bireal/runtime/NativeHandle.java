package bireal.runtime;

import java.lang.ref.Cleaner;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongConsumer;

/**
 * A native object behind a pointer. Owned by whoever created it; close() frees it and may be called
 * twice. A handle that is dropped without close() is reported on stderr, not freed: freeing from a
 * garbage collector's thread would need the right device and idle streams. Not thread-safe for
 * concurrent use and close.
 */
public class NativeHandle implements AutoCloseable {
  private static final Cleaner CLEANER = Cleaner.create();
  private static final boolean TRACK = Boolean.getBoolean("bireal.trackHandles");

  private final State state;
  private final Cleaner.Cleanable cleanable;
  private final LongConsumer free;

  /** {@code free} is called once with the pointer. */
  @SuppressWarnings("this-escape") // the cleaner keeps the reference, it calls nothing on it
  protected NativeHandle(String what, long pointer, LongConsumer free) {
    if (pointer == 0) {
      throw new NativeException(what + ": native code returned no object");
    }
    this.state = new State(what, pointer);
    this.free = free;
    this.cleanable = CLEANER.register(this, state);
  }

  /** The pointer; throws IllegalStateException after close(). */
  public final long pointer() {
    long pointer = state.pointer.get();
    if (pointer == 0) {
      throw new IllegalStateException(state.what + " is closed");
    }
    return pointer;
  }

  @Override
  public final void close() {
    long pointer = state.pointer.getAndSet(0);
    if (pointer != 0) {
      free.accept(pointer);
      cleanable.clean();
    }
  }

  /** Must not refer to the handle, or it would never become unreachable. */
  private static final class State implements Runnable {
    final String what;
    final AtomicLong pointer;
    final Throwable created;

    State(String what, long pointer) {
      this.what = what;
      this.pointer = new AtomicLong(pointer);
      this.created = TRACK ? new Throwable("created here") : null;
    }

    @Override
    public void run() {
      if (pointer.get() != 0) {
        System.err.println(
            "bireal: leaked native handle: "
                + what
                + (TRACK ? "" : " (-Dbireal.trackHandles=true shows where it was created)"));
        if (created != null) {
          created.printStackTrace();
        }
      }
    }
  }
}
