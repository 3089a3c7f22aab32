package bireal.train;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Objects;

/**
 * A tensor on its way to or from a file. Immutable but for the bytes, which are shared with the
 * buffer that was given. Not meant for tensors beyond 2 GB.
 */
public final class NamedTensor {
  private final String name;
  private final String dtype;
  private final long[] shape;
  private final ByteBuffer data;

  /**
   * Takes the bytes between position and limit, little-endian, row-major. Throws
   * IllegalArgumentException if the dtype is not one of {@link Safetensors}, a dimension is
   * negative, the bytes are not what dtype and shape need, or the buffer's order is big-endian
   * (Java's default, which would have filled it in the wrong order).
   */
  public NamedTensor(String name, String dtype, long[] shape, ByteBuffer data) {
    this.name = Objects.requireNonNull(name);
    this.dtype = Objects.requireNonNull(dtype);
    this.shape = shape.clone();
    Integer elementBytes = Safetensors.ELEMENT_BYTES.get(dtype);
    check(
        elementBytes != null,
        "dtype must be one of " + Safetensors.ELEMENT_BYTES.keySet() + ", got " + dtype);
    long bytes = Safetensors.bytes(this.shape, elementBytes);
    check(
        bytes == data.remaining(),
        "data must have "
            + (bytes < 0 ? "(no such shape)" : bytes)
            + " bytes for "
            + dtype
            + " "
            + Arrays.toString(shape)
            + ", got "
            + data.remaining());
    check(
        data.order() == ByteOrder.LITTLE_ENDIAN,
        "data must be a little-endian buffer: set order(LITTLE_ENDIAN) before filling it");
    this.data = data.slice();
  }

  public static NamedTensor ofFloats(String name, long[] shape, float... values) {
    ByteBuffer data = allocate((long) values.length * Float.BYTES);
    data.asFloatBuffer().put(values);
    return new NamedTensor(name, "F32", shape, data);
  }

  public static NamedTensor ofLongs(String name, long[] shape, long... values) {
    ByteBuffer data = allocate((long) values.length * Long.BYTES);
    data.asLongBuffer().put(values);
    return new NamedTensor(name, "I64", shape, data);
  }

  private static ByteBuffer allocate(long bytes) {
    return ByteBuffer.allocate(Math.toIntExact(bytes)).order(ByteOrder.LITTLE_ENDIAN);
  }

  public String name() {
    return name;
  }

  /** As safetensors writes it: F32, I64, ... */
  public String dtype() {
    return dtype;
  }

  public long[] shape() {
    return shape.clone();
  }

  /** A little-endian view of all bytes; its position is the caller's own. */
  public ByteBuffer data() {
    return data.duplicate().order(ByteOrder.LITTLE_ENDIAN);
  }

  /** A copy of the values; throws IllegalStateException if the dtype is not F32. */
  public float[] floats() {
    require("F32");
    float[] values = new float[data.remaining() / Float.BYTES];
    data().asFloatBuffer().get(values);
    return values;
  }

  /** A copy of the values; throws IllegalStateException if the dtype is not I64. */
  public long[] longs() {
    require("I64");
    long[] values = new long[data.remaining() / Long.BYTES];
    data().asLongBuffer().get(values);
    return values;
  }

  private void require(String wanted) {
    if (!dtype.equals(wanted)) {
      throw new IllegalStateException("tensor " + this + " is not " + wanted);
    }
  }

  /** Name, dtype, shape and bytes. */
  @Override
  public boolean equals(Object other) {
    return other instanceof NamedTensor that
        && name.equals(that.name)
        && dtype.equals(that.dtype)
        && Arrays.equals(shape, that.shape)
        && data.equals(that.data);
  }

  @Override
  public int hashCode() {
    return Objects.hash(name, dtype, Arrays.hashCode(shape), data);
  }

  @Override
  public String toString() {
    return name + " " + dtype + " " + Arrays.toString(shape);
  }

  private static void check(boolean condition, String message) {
    if (!condition) {
      throw new IllegalArgumentException(message);
    }
  }
}
