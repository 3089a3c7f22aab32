package bireal.backend.cuda;

/** IEEE half precision on the host (Java has it from version 20 on). */
public final class Half {
  private Half() {}

  /** Nearest half, ties to even; beyond 65504 infinite. */
  public static short of(float value) {
    int sign = Float.floatToRawIntBits(value) >>> 16 & 0x8000;
    float magnitude = Math.abs(value);
    if (Float.isNaN(value)) {
      return (short) (sign | 0x7e00);
    }
    if (magnitude >= 65520) {
      return (short) (sign | 0x7c00);
    }
    if (magnitude < 0x1p-14f) { // subnormal: units of 2^-24
      return (short) (sign | (int) Math.rint(magnitude * 0x1p24));
    }
    int exponent = Math.getExponent(magnitude);
    int units = (int) Math.rint(magnitude * powerOfTwo(10 - exponent)); // 1024 to 2048
    return (short) (sign | ((exponent + 15) << 10) + (units - 1024));
  }

  public static float value(short half) {
    int exponent = half >>> 10 & 31;
    int mantissa = half & 1023;
    float magnitude =
        exponent == 31
            ? (mantissa == 0 ? Float.POSITIVE_INFINITY : Float.NaN)
            : exponent == 0 ? mantissa * 0x1p-24f : (1024 + mantissa) * powerOfTwo(exponent - 25);
    return half < 0 ? -magnitude : magnitude;
  }

  private static float powerOfTwo(int exponent) {
    return Float.intBitsToFloat((exponent + 127) << 23);
  }
}
