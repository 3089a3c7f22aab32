package bireal.tensor;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class RngTest {
  /** The first outputs of SplitMix64 seeded with 0, as published with the algorithm. */
  @Test
  void bitsOfStateZeroAreThePublishedSequence() {
    assertEquals(0xE220A8397B1DCDAFL, Rng.bits(0, 0));
    assertEquals(0x6E789E6AA1B965F4L, Rng.bits(0, 1));
    assertEquals(0x06C45D188009454FL, Rng.bits(0, 2));
    assertEquals(0xF88BB8A8724C81ECL, Rng.bits(0, 3));
  }

  @Test
  void statesStartFromPublishedFnv1aHashes() {
    assertEquals(0xCBF29CE484222325L, Rng.state(0, ""));
    assertEquals(0xAF63DC4C8601EC8CL, Rng.state(0, "a"));
    assertEquals(0x85944171F73967E8L, Rng.state(0, "foobar"));
    assertEquals(0x85944171F73967E8L ^ 0x9E3779B97F4A7C15L, Rng.state(1, "foobar"));
    assertEquals(0x85944171F73967E8L ^ 0xDAA66D2C7DDF743FL, Rng.state(3, "foobar"));
    // Worked out apart from this code, from the definition in the reference cases' README.
    assertEquals(0xD2815C3F22574B57L, Rng.state(7, "input/0"));
    assertEquals(0x03008077D4BF8928L, Rng.bits(Rng.state(7, "input/0"), 5));
    assertEquals(0x030080 / 16777216.0, Rng.uniform(Rng.state(7, "input/0"), 5));
  }

  @Test
  void statesRefuseNamesThatAreNotAscii() {
    assertThrows(IllegalArgumentException.class, () -> Rng.state(0, "caf\u00e9"));
  }

  @Test
  void uniformIsTheUpper24BitsOverTwoToThe24() {
    assertEquals(0xE220A8 / 16777216.0, Rng.uniform(0, 0));
    assertEquals(0x06C45D / 16777216.0, Rng.uniform(0, 2));
  }

  @Test
  void boundedIsTheUpper32BitsScaled() {
    assertEquals((int) ((0xE220A839L * 10) >> 32), Rng.bounded(0, 0, 10));
    assertEquals(
        (int) ((0xF88BB8A8L * Integer.MAX_VALUE) >> 32), Rng.bounded(0, 3, Integer.MAX_VALUE));
    assertEquals(0, Rng.bounded(0, 3, 1));
    assertThrows(IllegalArgumentException.class, () -> Rng.bounded(0, 0, 0));
  }

  @Test
  void boundedReachesEveryValueEquallyOften() {
    int[] seen = new int[7];
    for (int i = 0; i < 70_000; i++) {
      seen[Rng.bounded(99, i, 7)]++;
    }
    // Expected 10000 with a deviation of 93; five deviations are allowed.
    for (int count : seen) {
      assertTrue(Math.abs(count - 10_000) < 465, Arrays.toString(seen));
    }
  }

  @Test
  void aPermutationHoldsEachNumberOnce() {
    for (int count : new int[] {0, 1, 2, 3, 64, 1000}) {
      int[] sorted = Rng.permutation(count, 5);
      Arrays.sort(sorted);
      assertArrayEquals(IntStream.range(0, count).toArray(), sorted);
    }
    assertThrows(IllegalArgumentException.class, () -> Rng.permutation(-1, 0));
  }

  @Test
  void aPermutationDependsOnItsStateOnly() {
    int[] again = new int[100];
    Rng.permute(again, 5);
    assertArrayEquals(Rng.permutation(100, 5), again);
    assertFalse(Arrays.equals(Rng.permutation(100, 5), Rng.permutation(100, 6)));
  }

  @Test
  void permutationsOfThreeAreEquallyLikely() {
    int[] seen = new int[9];
    for (int state = 0; state < 6000; state++) {
      int[] order = Rng.permutation(3, Rng.bits(1, state));
      seen[order[0] * 3 + order[1]]++;
    }
    // Six of the nine codes occur, each 1000 times with a deviation of 29.
    for (int code = 0; code < 9; code++) {
      int expected = code % 4 == 0 ? 0 : 1000;
      assertTrue(Math.abs(seen[code] - expected) < 145, Arrays.toString(seen));
    }
  }
}
