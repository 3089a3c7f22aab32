package bireal.data;

/**
 * Counter-based random numbers: element {@code index} of stream {@code state} is a pure function of
 * the two (SplitMix64; the same numbers as native/core/rng.h). It holds no state, so any thread may
 * compute any element in any order, and a resumed run needs to store no generator.
 *
 * <p>Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", fig. 17.
 */
public final class Rng {
  private static final long GOLDEN = 0x9E3779B97F4A7C15L;
  private static final long FNV_BASIS = 0xCBF29CE484222325L;
  private static final long FNV_PRIME = 0x100000001B3L;

  private Rng() {}

  /** The stream called {@code name}: fnv1a64(name) XOR seed * 0x9E3779B97F4A7C15; ASCII only. */
  public static long state(long seed, String name) {
    long hash = FNV_BASIS;
    for (int i = 0; i < name.length(); i++) {
      char c = name.charAt(i);
      if (c > 0x7F) {
        throw new IllegalArgumentException("stream names are ASCII, got '" + name + "'");
      }
      hash = (hash ^ c) * FNV_PRIME;
    }
    return hash ^ (seed * GOLDEN);
  }

  /** 64 random bits; {@code index} counts from 0. */
  public static long bits(long state, long index) {
    long z = state + (index + 1) * GOLDEN;
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }

  /** Uniform in [0, 1): the upper 24 bits, so the value is exact in a float too. */
  public static double uniform(long state, long index) {
    return (bits(state, index) >>> 40) * 0x1p-24;
  }

  /**
   * Integer in [0, bound): the upper 32 bits times bound, shifted. No value's probability is off by
   * more than 2^-32, and one element of the stream is used whatever the bound.
   */
  public static int bounded(long state, long index, int bound) {
    if (bound < 1) {
      throw new IllegalArgumentException("bound must be >= 1, got " + bound);
    }
    return (int) (((bits(state, index) >>> 32) * bound) >>> 32);
  }

  /** The permutation of 0..count-1 that belongs to {@code state}. */
  public static int[] permutation(int count, long state) {
    if (count < 0) {
      throw new IllegalArgumentException("count must be >= 0, got " + count);
    }
    int[] order = new int[count];
    permute(order, state);
    return order;
  }

  /**
   * Overwrites {@code order} with {@code permutation(order.length, state)}: Fisher-Yates from the
   * end, with element i of the stream deciding what comes to place i.
   */
  public static void permute(int[] order, long state) {
    for (int i = 0; i < order.length; i++) {
      order[i] = i;
    }
    for (int i = order.length - 1; i > 0; i--) {
      int j = bounded(state, i, i + 1);
      int swapped = order[i];
      order[i] = order[j];
      order[j] = swapped;
    }
  }
}
