package bireal.data;

import bireal.tensor.Rng;
import java.nio.ByteBuffer;
import java.util.Objects;

/**
 * Images made from a seed, for trying out and for measuring without files: each class has a smooth
 * random pattern (bilinear between 4x4 random control points per channel), each image adds noise of
 * its own, uniform in -64..63. Classes are told apart easily, and both splits share the patterns.
 *
 * <p>An image is computed whenever it is asked for, in integers only, so it takes no memory and is
 * the same on every machine: a function of (seed, split, index). Labels are index mod classes.
 */
final class Synthetic implements Dataset {
  /** Control points per side. */
  private static final int GRID = 4;

  /** Interpolation weights are 0..ONE. */
  private static final int ONE = 256;

  private static final int PATTERN_BYTES_LIMIT = 1 << 28;

  private final String name;
  private final int count;
  private final int side;
  private final int channels;
  private final int classes;
  private final long noise;

  /** [classes][GRID][GRID][C] */
  private final byte[] patterns;

  /** Control point before each row (or column), and the weight of the one after it. */
  private final int[] cell;

  private final int[] weight;

  Synthetic(DataConfig config, Split split, long seed) {
    boolean train = split == Split.TRAIN;
    name = "synthetic " + (train ? "train" : "test");
    count = train ? config.syntheticTrainImages() : config.syntheticTestImages();
    side = config.imageSize();
    channels = config.syntheticChannels();
    classes = config.syntheticClasses();
    noise = Rng.state(seed, train ? "synthetic/train" : "synthetic/test");
    long patternBytes = (long) classes * GRID * GRID * channels;
    if (patternBytes > PATTERN_BYTES_LIMIT) {
      throw new DataException(
          String.format(
              "data.synthetic_classes: %d classes of %d channels need %d bytes of patterns, the"
                  + " limit is %d; use fewer classes",
              classes, channels, patternBytes, PATTERN_BYTES_LIMIT));
    }
    patterns = new byte[(int) patternBytes];
    long state = Rng.state(seed, "synthetic/patterns");
    for (int i = 0; i < patterns.length; i++) {
      patterns[i] = (byte) Rng.bounded(state, i, 256);
    }
    cell = new int[side];
    weight = new int[side];
    for (int i = 1; i < side; i++) {
      int position = i * (GRID - 1) * ONE / (side - 1);
      cell[i] = Math.min(position / ONE, GRID - 2);
      weight[i] = position - cell[i] * ONE;
    }
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public int count() {
    return count;
  }

  @Override
  public int height() {
    return side;
  }

  @Override
  public int width() {
    return side;
  }

  @Override
  public int channels() {
    return channels;
  }

  @Override
  public int classes() {
    return classes;
  }

  @Override
  public int label(int index) {
    return Objects.checkIndex(index, count) % classes;
  }

  @Override
  public void copyPixels(int index, ByteBuffer target, int offsetBytes) {
    int pattern = label(index) * GRID * GRID * channels;
    long state = Rng.bits(noise, index);
    long bits = 0;
    // Means of the control points left and right, 16 bits a channel: an array would be an
    // allocation
    // for each image.
    long leftEnds;
    long rightEnds;
    int i = 0;
    for (int h = 0; h < side; h++) {
      int upper = pattern + cell[h] * GRID * channels;
      int lower = upper + GRID * channels;
      int down = weight[h];
      // Between two columns of control points only the weights of their vertical means change.
      for (int w = 0; w < side; ) {
        int column = cell[w];
        leftEnds = ends(upper + column * channels, lower + column * channels, down);
        rightEnds = ends(upper + (column + 1) * channels, lower + (column + 1) * channels, down);
        for (; w < side && cell[w] == column; w++) {
          int right = weight[w];
          for (int c = 0; c < channels; c++, i++) {
            int leftEnd = (int) (leftEnds >>> (16 * c)) & 0xFFFF;
            int rightEnd = (int) (rightEnds >>> (16 * c)) & 0xFFFF;
            int smooth = (leftEnd * (ONE - right) + rightEnd * right) / (ONE * ONE);
            // One draw serves eight pixels.
            bits = (i & 7) == 0 ? Rng.bits(state, i >> 3) : bits >>> 8;
            int pixel = smooth + ((byte) bits >> 1);
            target.put(offsetBytes + i, (byte) Math.max(0, Math.min(255, pixel)));
          }
        }
      }
    }
  }

  /** {@link #mean} of every channel; at most 255 * ONE, which has 16 bits. */
  private long ends(int upper, int lower, int down) {
    long all = 0;
    for (int c = 0; c < channels; c++) {
      all |= (long) mean(upper + c, lower + c, down) << (16 * c);
    }
    return all;
  }

  private int mean(int upper, int lower, int down) {
    return (patterns[upper] & 0xFF) * (ONE - down) + (patterns[lower] & 0xFF) * down;
  }
}
