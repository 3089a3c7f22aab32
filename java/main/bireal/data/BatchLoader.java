package bireal.data;

import bireal.backend.ImageSpec;
import bireal.tensor.Rng;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * Prepares micro-batches ahead of the step. Threads take numbered tickets, one per micro-batch, and
 * fill the slots of a ring; the consumer, one thread, takes the slots in ticket order. All memory
 * is allocated at construction.
 *
 * <p>What a micro-batch holds is a function of (seed, epoch, batch, micro) alone, whatever the
 * number of threads: the order of an epoch is a permutation drawn from (seed, epoch), and the crop
 * and flip of an image are drawn from (seed, epoch, index of the image in the dataset), so they do
 * not depend on the batch size either.
 *
 * <p>A failure in a thread reaches the consumer at the {@code next()} that would have returned the
 * micro-batch; those before it are still delivered.
 */
public final class BatchLoader implements AutoCloseable {
  /** Which images come when. */
  public enum Order {
    /** Training: a new order each epoch without end, random crop, random flip if configured. */
    SHUFFLED,
    /** Evaluation: one pass in the dataset's order, centre crop, no flip. */
    SEQUENTIAL
  }

  /**
   * Where a loader starts.
   *
   * @param batch within the epoch
   */
  public record Position(int epoch, long batch) {
    public static final Position START = new Position(0, 0);

    public Position {
      if (epoch < 0 || batch < 0) {
        throw new IllegalArgumentException(
            "position must not be negative, got epoch " + epoch + ", batch " + batch);
      }
    }

    /** The position of the global step {@code step}, that is, after {@code step} finished steps. */
    public static Position at(long step, long stepsPerEpoch) {
      return new Position(Math.toIntExact(step / stepsPerEpoch), step % stepsPerEpoch);
    }
  }

  private static final long CLOSE_LIMIT_MS = 5_000;

  /** Longest wait before looking again whether threads are alive. */
  private static final long WAIT_MS = 1_000;

  /** Random numbers per image: top, left, flip. */
  private static final int DRAWS = 3;

  private final Dataset dataset;
  private final boolean shuffled;
  private final boolean flip;
  private final int batch;
  private final int microBatch;
  private final int maxTop;
  private final int maxLeft;
  private final long orderState;
  private final long augmentState;
  private final long stepsPerEpoch;
  private final long stallLimitMs;
  private final MicroBatch[] slots;

  /** An array, because an iterator would be an allocation in the step. */
  private final Thread[] threads;

  /** Set once; threads look at it between images. */
  private volatile boolean closed;

  private final Object lock = new Object();

  // All below are guarded by lock. First the next ticket and what it stands for:
  private long claimed;
  private int epoch;
  private long batchIndex;
  private int microIndex;

  /** The order of {@code permutationEpoch}. Tickets are claimed in order, so one is enough. */
  private final int[] permutation;

  private long permutationEpoch = -1;

  /** No further tickets: the pass is complete, or a thread failed. */
  private boolean exhausted;

  /** A failure outside any ticket. */
  private Throwable strayFailure;

  private long taken;
  private MicroBatch lent;

  /**
   * Starts loading at once.
   *
   * @param spec of {@link Datasets#imageSpec}
   * @param batch images of a step; the last one of an epoch has the rest
   * @param microBatch images of a micro-batch; the last one of a step has the rest
   * @param start a training run's position; an evaluation starts at {@code Position.START}
   */
  public BatchLoader(
      Dataset dataset,
      DataConfig config,
      ImageSpec spec,
      Order order,
      int batch,
      int microBatch,
      long seed,
      Position start) {
    this(
        dataset,
        config,
        spec,
        order,
        batch,
        microBatch,
        seed,
        start,
        config.stallLimitSeconds() * 1000L);
  }

  /** As above, with the time after which {@code next()} gives up on an image. */
  BatchLoader(
      Dataset dataset,
      DataConfig config,
      ImageSpec spec,
      Order order,
      int batch,
      int microBatch,
      long seed,
      Position start,
      long stallLimitMs) {
    if (batch < 1 || microBatch < 1 || microBatch > batch) {
      throw new IllegalArgumentException(
          "micro_batch must be in 1..batch, got " + microBatch + " and " + batch);
    }
    if (spec.H0() != dataset.height()
        || spec.W0() != dataset.width()
        || spec.C() != dataset.channels()) {
      throw new IllegalArgumentException(
          String.format(
              "%s is of another dataset: %s has images of %dx%dx%d",
              spec, dataset.name(), dataset.height(), dataset.width(), dataset.channels()));
    }
    maxTop = spec.H0() + 2 * spec.pad() - spec.H();
    maxLeft = spec.W0() + 2 * spec.pad() - spec.W();
    if (maxTop < 0 || maxLeft < 0) {
      throw new IllegalArgumentException("the crop is larger than the padded image: " + spec);
    }
    this.dataset = dataset;
    this.shuffled = order == Order.SHUFFLED;
    this.flip = shuffled && config.flip();
    this.batch = batch;
    this.microBatch = microBatch;
    this.stallLimitMs = stallLimitMs;
    orderState = Rng.state(seed, "data/order");
    augmentState = Rng.state(seed, "data/augment");
    int count = dataset.count();
    stepsPerEpoch = ceilDiv(count, batch);
    if (start.batch() >= stepsPerEpoch) {
      throw new IllegalArgumentException(
          String.format(
              "cannot start at batch %d: an epoch has %d (%d images, batch %d)",
              start.batch(), stepsPerEpoch, count, batch));
    }
    epoch = start.epoch();
    batchIndex = start.batch();
    permutation = new int[shuffled ? count : 0];
    slots = allocate(config.batchesAhead());
    threads = new Thread[Math.min(config.loaderThreads(), slots.length)];
    for (int i = 0; i < threads.length; i++) {
      threads[i] = new Thread(this::work, "bireal-loader-" + i);
      threads[i].setDaemon(true);
    }
    try {
      for (Thread thread : threads) {
        thread.start();
      }
    } catch (Throwable e) {
      close();
      throw e;
    }
  }

  private static long ceilDiv(long a, long b) {
    return (a + b - 1) / b;
  }

  /** Slots for {@code batchesAhead} batches, and one for the consumer. */
  private MicroBatch[] allocate(int batchesAhead) {
    int largestBatch = Math.min(batch, dataset.count());
    int capacity = Math.min(microBatch, largestBatch);
    long slotCount = batchesAhead * ceilDiv(largestBatch, microBatch) + 1;
    long imageBytes = (long) dataset.height() * dataset.width() * dataset.channels();
    if (capacity * imageBytes > Integer.MAX_VALUE || slotCount > Integer.MAX_VALUE) {
      throw new IllegalArgumentException(
          String.format(
              "%d micro-batches of %d images of %d bytes do not fit; change train.micro_batch",
              slotCount, capacity, imageBytes));
    }
    try {
      MicroBatch[] ring = new MicroBatch[(int) slotCount];
      for (int i = 0; i < ring.length; i++) {
        ring[i] = new MicroBatch(this, capacity, (int) imageBytes);
      }
      return ring;
    } catch (OutOfMemoryError e) {
      throw new DataException(
          String.format(
              "no memory for %d micro-batches of %d images of %d bytes ahead of the step; lower"
                  + " data.batches_ahead",
              slotCount, capacity, imageBytes),
          e);
    }
  }

  /** Steps of an epoch, the short last one included. */
  public long stepsPerEpoch() {
    return stepsPerEpoch;
  }

  /**
   * The next micro-batch, waiting for it if need be; null after the last one of an evaluation.
   * Takes back the one that was lent before. Allocates nothing.
   *
   * @throws DataException with the cause if a thread failed, or if an image takes longer than the
   *     config's limit
   */
  public MicroBatch next() {
    synchronized (lock) {
      takeBack();
      MicroBatch slot = slots[(int) (taken % slots.length)];
      long startNs = System.nanoTime();
      int progress = -1;
      while (!closed && slot.state != MicroBatch.State.READY) {
        if (exhausted && taken == claimed && strayFailure == null) {
          return null;
        }
        checkAlive(slot);
        if (slot.progress != progress) {
          // Slow is not stalled: the limit is for one image.
          progress = slot.progress;
          startNs = System.nanoTime();
        }
        long leftMs = stallLimitMs - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - startNs);
        if (leftMs <= 0) {
          throw stalled(slot);
        }
        try {
          lock.wait(Math.min(leftMs, WAIT_MS));
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
          throw new DataException("interrupted while waiting for images of " + dataset.name(), e);
        }
      }
      if (closed) {
        throw new IllegalStateException("the loader of " + dataset.name() + " is closed");
      }
      taken++;
      slot.state = MicroBatch.State.LENT;
      lent = slot;
      return slot;
    }
  }

  void release(MicroBatch slot) {
    synchronized (lock) {
      if (slot == lent) {
        takeBack();
      }
    }
  }

  private void takeBack() {
    if (lent != null) {
      lent.state = MicroBatch.State.FREE;
      lent = null;
      lock.notifyAll();
    }
  }

  /** Throws if nobody is going to fill {@code slot}. */
  private void checkAlive(MicroBatch slot) {
    if (slot.state == MicroBatch.State.FAILED) {
      int place = slot.progress;
      throw new DataException(
          String.format(
              "loading image %d of %s failed (epoch %d, step %d): %s",
              slot.index(place), dataset.name(), slot.epoch(), slot.step(), slot.failure),
          slot.failure);
    }
    if (slot.state == MicroBatch.State.FILLING) {
      if (!slot.worker.isAlive()) {
        throw new DataException(
            slot.worker.getName() + " died while loading images of " + dataset.name());
      }
      return;
    }
    if (strayFailure != null) {
      throw new DataException(
          "loading images of " + dataset.name() + " failed: " + strayFailure, strayFailure);
    }
    for (Thread thread : threads) {
      if (thread.isAlive()) {
        return;
      }
    }
    throw new DataException("all threads that load images of " + dataset.name() + " died");
  }

  private DataException stalled(MicroBatch slot) {
    String waited =
        String.format("no image of %s for %.1f s: ", dataset.name(), stallLimitMs / 1000.0);
    Thread worker = slot.worker;
    if (slot.state != MicroBatch.State.FILLING) {
      return new DataException(
          waited + "no loader thread took them up (data.stall_limit_seconds is the limit)");
    }
    Exception where = new Exception("stack of " + worker.getName());
    where.setStackTrace(worker.getStackTrace());
    return new DataException(
        String.format(
            "%s%s does not return from image %d; is its storage reachable? (data.stall_limit_seconds is the limit)",
            waited, worker.getName(), slot.index(slot.progress)),
        where);
  }

  /** Body of a thread. */
  private void work() {
    MicroBatch slot = null;
    try {
      while (true) {
        slot = null;
        slot = claim();
        if (slot == null) {
          return;
        }
        fill(slot);
        synchronized (lock) {
          slot.state = MicroBatch.State.READY;
          lock.notifyAll();
        }
      }
    } catch (Throwable e) {
      synchronized (lock) {
        // The tickets before this one are all taken and get finished; there are no new ones.
        exhausted = true;
        if (slot == null) {
          strayFailure = e;
        } else {
          slot.failure = e;
          slot.state = MicroBatch.State.FAILED;
        }
        lock.notifyAll();
      }
    }
  }

  /** The slot of the next ticket, with the indices of its images; null if there is none. */
  private MicroBatch claim() throws InterruptedException {
    synchronized (lock) {
      MicroBatch slot = slots[(int) (claimed % slots.length)];
      while (!closed && !exhausted && slot.state != MicroBatch.State.FREE) {
        lock.wait();
        slot = slots[(int) (claimed % slots.length)];
      }
      if (closed || exhausted) {
        return null;
      }
      if (shuffled && permutationEpoch != epoch) {
        Rng.permute(permutation, Rng.bits(orderState, epoch));
        permutationEpoch = epoch;
      }
      long batchStart = batchIndex * batch;
      int batchImages = (int) Math.min(batch, dataset.count() - batchStart);
      int microCount = (int) ceilDiv(batchImages, microBatch);
      int microStart = microIndex * microBatch;
      int images = Math.min(microBatch, batchImages - microStart);
      slot.assign(
          epoch * stepsPerEpoch + batchIndex, epoch, microIndex, microCount, batchImages, images);
      for (int i = 0; i < images; i++) {
        int place = (int) batchStart + microStart + i;
        slot.setIndex(i, shuffled ? permutation[place] : place);
      }
      slot.worker = Thread.currentThread();
      slot.state = MicroBatch.State.FILLING;
      claimed++;
      advance(microCount);
      return slot;
    }
  }

  private void advance(int microCount) {
    microIndex++;
    if (microIndex == microCount) {
      microIndex = 0;
      batchIndex++;
    }
    if (batchIndex == stepsPerEpoch) {
      batchIndex = 0;
      epoch++;
      exhausted |= !shuffled;
    }
  }

  private void fill(MicroBatch slot) {
    long state = Rng.bits(augmentState, slot.epoch());
    for (int i = 0; i < slot.images() && !closed; i++) {
      slot.progress = i;
      int index = slot.index(i);
      int label = dataset.label(index);
      if (label < 0 || label >= dataset.classes()) {
        throw new DataException("label " + label + ", expected 0.." + (dataset.classes() - 1));
      }
      slot.setLabel(i, label);
      if (shuffled) {
        long draw = (long) index * DRAWS;
        slot.setCrop(
            i,
            Rng.bounded(state, draw, maxTop + 1),
            Rng.bounded(state, draw + 1, maxLeft + 1),
            flip ? Rng.bounded(state, draw + 2, 2) : 0);
      } else {
        slot.setCrop(i, maxTop / 2, maxLeft / 2, 0);
      }
      slot.copyPixels(dataset, i);
    }
  }

  /** The loader's threads, for tests. */
  List<Thread> threads() {
    return List.of(threads);
  }

  /**
   * Ends the threads and whoever waits in {@code next()}. A thread that does not end within five
   * seconds, because the dataset does not return, is named in a DataException; it is a daemon and
   * does not keep the process alive.
   */
  @Override
  public void close() {
    synchronized (lock) {
      closed = true;
      lock.notifyAll();
    }
    for (Thread thread : threads) {
      thread.interrupt();
    }
    long limitMs = Math.min(CLOSE_LIMIT_MS, stallLimitMs);
    long endNs = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(limitMs);
    for (Thread thread : threads) {
      try {
        // At least 1: a join of 0 would wait without end.
        thread.join(Math.max(1, TimeUnit.NANOSECONDS.toMillis(endNs - System.nanoTime())));
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return;
      }
      if (thread.isAlive()) {
        throw new DataException(
            thread.getName() + " did not end: it does not return from " + dataset.name());
      }
    }
  }
}
