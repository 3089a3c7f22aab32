package bireal.tensor;

/** A dense view: where it lies, its shape and its element type. Owns nothing, is never closed. */
public final class Tensor {
  private final Buffer buffer;
  private final long offsetBytes;
  private final Shape shape;
  private final DType dtype;

  /** Throws IllegalArgumentException if the view leaves the buffer. */
  public Tensor(Buffer buffer, long offsetBytes, Shape shape, DType dtype) {
    if (offsetBytes < 0 || offsetBytes + dtype.bytes(shape) > buffer.bytes()) {
      throw new IllegalArgumentException(
          "tensor "
              + shape
              + " "
              + dtype
              + " at "
              + offsetBytes
              + " leaves its buffer of "
              + buffer.bytes()
              + " bytes");
    }
    this.buffer = buffer;
    this.offsetBytes = offsetBytes;
    this.shape = shape;
    this.dtype = dtype;
  }

  public Buffer buffer() {
    return buffer;
  }

  public long offsetBytes() {
    return offsetBytes;
  }

  public Shape shape() {
    return shape;
  }

  public DType dtype() {
    return dtype;
  }

  public long bytes() {
    return dtype.bytes(shape);
  }

  /** Address of the first element; throws IllegalStateException if the buffer is closed. */
  public long address() {
    return buffer.address() + offsetBytes;
  }

  @Override
  public String toString() {
    return dtype + " " + shape;
  }
}
