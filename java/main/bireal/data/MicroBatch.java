package bireal.data;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Images of one forward and backward pass, as a slot of a BatchLoader's ring. Owned by the loader
 * and lent to its consumer from {@code next()} to {@code release()} or the following {@code
 * next()}, whichever comes first; afterwards the loader overwrites it.
 *
 * <p>The buffers are direct and little endian; position is 0, limit is the data's end.
 */
public final class MicroBatch {
  /** FREE, being filled by {@link #worker}, filled, failed, or with the consumer. */
  enum State {
    FREE,
    FILLING,
    READY,
    FAILED,
    LENT
  }

  private static final int CROP_INTS = 3;

  private final BatchLoader loader;
  private final int imageBytes;
  private final ByteBuffer pixels;
  private final ByteBuffer labels;
  private final ByteBuffer crops;
  private final int[] indices;

  private long step;
  private int epoch;
  private int microIndex;
  private int microCount;
  private int batchImages;
  private int images;

  /** These three are guarded by the loader's lock. */
  State state = State.FREE;

  Thread worker;
  Throwable failure;

  /** Place of the image that the worker is at; it is read for messages only. */
  volatile int progress;

  MicroBatch(BatchLoader loader, int capacity, int imageBytes) {
    this.loader = loader;
    this.imageBytes = imageBytes;
    pixels = direct((long) capacity * imageBytes);
    labels = direct((long) capacity * Integer.BYTES);
    crops = direct((long) capacity * CROP_INTS * Integer.BYTES);
    indices = new int[capacity];
  }

  private static ByteBuffer direct(long bytes) {
    return ByteBuffer.allocateDirect(Math.toIntExact(bytes)).order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Makes the slot stand for a micro-batch whose data are still to come. */
  void assign(long step, int epoch, int microIndex, int microCount, int batchImages, int images) {
    this.step = step;
    this.epoch = epoch;
    this.microIndex = microIndex;
    this.microCount = microCount;
    this.batchImages = batchImages;
    this.images = images;
    pixels.clear().limit(images * imageBytes);
    labels.clear().limit(images * Integer.BYTES);
    crops.clear().limit(images * CROP_INTS * Integer.BYTES);
    progress = 0;
  }

  /** Index in the dataset of the image at {@code place}. */
  int index(int place) {
    return indices[place];
  }

  void setIndex(int place, int index) {
    indices[place] = index;
  }

  void setLabel(int place, int label) {
    labels.putInt(place * Integer.BYTES, label);
  }

  void setCrop(int place, int top, int left, int flip) {
    int at = place * CROP_INTS * Integer.BYTES;
    crops.putInt(at, top);
    crops.putInt(at + Integer.BYTES, left);
    crops.putInt(at + 2 * Integer.BYTES, flip);
  }

  void copyPixels(Dataset dataset, int place) {
    dataset.copyPixels(indices[place], pixels, place * imageBytes);
  }

  /** Optimizer step that this belongs to, from 0, counted over epochs. */
  public long step() {
    return step;
  }

  public int epoch() {
    return epoch;
  }

  /** Place within the step, 0..microCount-1. */
  public int microIndex() {
    return microIndex;
  }

  /** Micro-batches of this step; fewer for the last one of an epoch. */
  public int microCount() {
    return microCount;
  }

  /** Images of the whole step: what gradients divide by. */
  public int batchImages() {
    return batchImages;
  }

  /** Images of this micro-batch, the n below; at least 1. */
  public int images() {
    return images;
  }

  /** uint8 [n,H0,W0,C]. */
  public ByteBuffer pixels() {
    return pixels;
  }

  /** int32 [n]. */
  public ByteBuffer labels() {
    return labels;
  }

  /** int32 [n,3]: top, left, flip (native/ops/image). */
  public ByteBuffer crops() {
    return crops;
  }

  /** Gives the slot back early; does nothing if it is no longer lent. */
  public void release() {
    loader.release(this);
  }
}
