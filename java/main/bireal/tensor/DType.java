package bireal.tensor;

/** Element types; {@code code} is the wire code of {@code bireal::DType} (native/core/shapes.h). */
public enum DType {
  F32(0, 4),
  F64(1, 8),
  I16(2, 2),
  I32(3, 4),
  I64(4, 8),
  U8(5, 1),
  /** Packed signs, 32 channels a word (native/core/bits.h); the shape counts channels. */
  BITS(6, 4),
  /** IEEE half precision. */
  F16(7, 2),
  /** bfloat16: the upper half of F32. */
  BF16(8, 2);

  /** Channels in a packed word. */
  public static final int WORD_BITS = 32;

  public final int code;
  private final int elementBytes;

  DType(int code, int elementBytes) {
    this.code = code;
    this.elementBytes = elementBytes;
  }

  /** Whether it can hold activations and their gradients. */
  public boolean real() {
    return this == F32 || this == F16 || this == BF16;
  }

  /** Bytes of a dense tensor of this type: packed types round the innermost axis up to words. */
  public long bytes(Shape shape) {
    if (this != BITS) {
      return Math.multiplyExact(shape.count(), (long) elementBytes);
    }
    long channels = shape.dim(shape.rank() - 1);
    long words = (channels + WORD_BITS - 1) / WORD_BITS;
    return Math.multiplyExact(shape.count() / channels, words * elementBytes);
  }
}
