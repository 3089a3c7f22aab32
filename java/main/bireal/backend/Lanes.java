package bireal.backend;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntConsumer;

/**
 * Threads that take passes through a network side by side, a lane each: what ops write on the way
 * has a place for each lane ({@link Arena}), so lanes share nothing but what they read. The thread
 * that calls {@link #run} is lane 0.
 */
public final class Lanes implements AutoCloseable {
  private static final class Worker extends Thread {
    final int lane;

    Worker(Runnable work, int lane) {
      super(work, "bireal-lane-" + lane);
      this.lane = lane;
      setDaemon(true);
    }
  }

  private final int count;
  private final ExecutorService workers; // null: lane 0 is all there is

  public Lanes(int count) {
    this.count = count;
    AtomicInteger next = new AtomicInteger(1);
    workers =
        count == 1
            ? null
            : Executors.newFixedThreadPool(
                count - 1, work -> new Worker(work, next.getAndIncrement()));
  }

  /** The lane of the thread that asks. */
  public static int current() {
    return Thread.currentThread() instanceof Worker worker ? worker.lane : 0;
  }

  public int count() {
    return count;
  }

  /**
   * Calls {@code pass} with 0 to {@code passes} - 1, each lane the next one as soon as it is free,
   * and returns when all have ended. What a pass throws is rethrown then; no new one begins after
   * it.
   */
  public void run(int passes, IntConsumer pass) {
    AtomicInteger next = new AtomicInteger();
    Runnable lane =
        () -> {
          try {
            for (int i = next.getAndIncrement(); i < passes; i = next.getAndIncrement()) {
              pass.accept(i);
            }
          } catch (Throwable e) {
            next.set(passes);
            throw e;
          }
        };
    List<Future<?>> others = new ArrayList<>();
    Throwable failure = null;
    try {
      for (int i = 1; i < Math.min(count, passes); i++) {
        others.add(workers.submit(lane));
      }
      lane.run();
    } catch (Throwable e) {
      next.set(passes);
      failure = e;
    }
    for (Future<?> other : others) {
      Throwable theirs = awaited(other);
      failure = failure == null ? theirs : failure;
    }
    if (failure instanceof Error error) {
      throw error;
    }
    if (failure instanceof RuntimeException exception) {
      throw exception;
    }
  }

  /** What it has thrown, or null. Waits even where this thread is interrupted: memory is in use. */
  private static Throwable awaited(Future<?> other) {
    boolean interrupted = false;
    try {
      while (true) {
        try {
          other.get();
          return null;
        } catch (ExecutionException e) {
          return e.getCause();
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  @Override
  public void close() {
    if (workers != null) {
      workers.shutdown();
    }
  }
}
