package bireal.train;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Random;

/** Random damage for fuzz tests: flipped bits, other bytes, cuts, insertions, pieces twice. */
final class Mutation {
  private static final byte[] TELLING =
      "{}[]\",:0123456789-.eE \\u\0\n".getBytes(StandardCharsets.US_ASCII);

  private Mutation() {}

  static byte[] of(byte[] content, Random random) {
    byte[] out = content.clone();
    int changes = 1 + random.nextInt(3);
    for (int i = 0; i < changes && out.length > 0; i++) {
      int at = random.nextInt(out.length);
      switch (random.nextInt(7)) {
        case 0 -> out[at] ^= (byte) (1 << random.nextInt(8));
        case 1 -> out[at] = (byte) random.nextInt(256);
        case 2, 3 -> out[at] = TELLING[random.nextInt(TELLING.length)];
        case 4 -> out = Arrays.copyOf(out, at);
        case 5 -> out = splice(out, at, new byte[] {TELLING[random.nextInt(TELLING.length)]});
        default ->
            out =
                splice(out, at, Arrays.copyOfRange(out, at, at + random.nextInt(out.length - at)));
      }
    }
    return out;
  }

  /** Rewrites a file in place: truncating it first costs ext4 a flush, 2 ms each time. */
  static void rewrite(Path file, byte[] content) throws IOException {
    try (RandomAccessFile out = new RandomAccessFile(file.toFile(), "rw")) {
      out.write(content);
      out.setLength(content.length);
    }
  }

  private static byte[] splice(byte[] content, int at, byte[] piece) {
    byte[] out = Arrays.copyOf(content, content.length + piece.length);
    System.arraycopy(piece, 0, out, at, piece.length);
    System.arraycopy(content, at, out, at + piece.length, content.length - at);
    return out;
  }
}
