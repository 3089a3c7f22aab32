package bireal.backend;

import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * One slab that is planned tensor by tensor and allocated once. Tensors made before {@link
 * #allocate} become usable with it, so a whole network is planned, counted and, if it does not fit,
 * refused before a byte is taken.
 */
public final class Arena implements Buffer {
  private static final long ALIGNMENT = 64;

  private final String what;
  private final int lanes;
  private long plannedBytes;
  private long next;
  private Buffer slab;

  public Arena(String what) {
    this(what, 1);
  }

  /** A slab for each of {@code lanes}: to each of their threads the tensors lie in its own. */
  public Arena(String what, int lanes) {
    this.what = what;
    this.lanes = lanes;
  }

  public String what() {
    return what;
  }

  /** A view of fresh, zero-filled memory, 64-byte aligned. */
  public Tensor reserve(Shape shape, DType dtype) {
    if (slab != null) {
      throw new IllegalStateException(
          "arena '" + what + "' is allocated: nothing can be planned any more");
    }
    long offset = next;
    next = Math.addExact(offset, (dtype.bytes(shape) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    plannedBytes = Math.max(plannedBytes, next);
    return new Tensor(this, offset, shape, dtype);
  }

  /** What was reserved so far is dead by the time that what follows is written: may lie there. */
  public void reuse() {
    next = 0;
  }

  /**
   * A view from the start of the arena, which grows to the largest such view: for tensors that are
   * never alive together. An arena is used either through this method or through {@link #reserve}.
   */
  public Tensor overlay(Shape shape, DType dtype) {
    if (slab != null) {
      throw new IllegalStateException(
          "arena '" + what + "' is allocated: nothing can be planned any more");
    }
    plannedBytes =
        Math.max(plannedBytes, (dtype.bytes(shape) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    return new Tensor(this, 0, shape, dtype);
  }

  /** Takes the planned bytes from {@code backend}. */
  public void allocate(Backend backend) {
    if (slab != null) {
      throw new IllegalStateException("arena '" + what + "' is allocated already");
    }
    slab = backend.allocate(Math.max(allBytes(), ALIGNMENT), what);
  }

  /** Of one lane. */
  @Override
  public long bytes() {
    return plannedBytes;
  }

  /** Of all lanes. */
  public long allBytes() {
    return lanes * plannedBytes;
  }

  @Override
  public long address() {
    if (slab == null) {
      throw new IllegalStateException("arena '" + what + "' is not allocated");
    }
    return slab.address() + (lanes == 1 ? 0 : Lanes.current() * plannedBytes);
  }

  /** The allocated memory beneath, for a backend that must know whose it is. */
  public Buffer slab() {
    return slab;
  }

  @Override
  public void close() {
    if (slab != null) {
      slab.close();
      slab = null;
    }
  }
}
