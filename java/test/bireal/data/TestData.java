package bireal.data;

import bireal.tensor.Rng;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.zip.GZIPOutputStream;

/** Configurations and file contents for the tests of this package. */
final class TestData {
  private TestData() {}

  static DataConfig config(DataConfig.Kind kind, String path, int imageSize, int channels) {
    return new DataConfig(
        kind,
        path,
        imageSize,
        0,
        false,
        List.of(0.5, 0.5, 0.5, 0.5).subList(0, channels),
        List.of(0.25, 0.25, 0.25, 0.25).subList(0, channels),
        1,
        2,
        120,
        40,
        20,
        channels,
        4);
  }

  /** A training configuration of the loader's tests. */
  static DataConfig augmented(int cropPadding, boolean flip, int loaderThreads, int batchesAhead) {
    return new DataConfig(
        DataConfig.Kind.SYNTHETIC,
        "",
        6,
        cropPadding,
        flip,
        List.of(0.5, 0.5),
        List.of(0.25, 0.25),
        loaderThreads,
        batchesAhead,
        120,
        23,
        10,
        2,
        3);
  }

  /** An IDX file before compression: magic, dimensions, data. */
  static byte[] idx(int magic, int[] dimensions, byte[] data) {
    ByteBuffer file = ByteBuffer.allocate(4 + 4 * dimensions.length + data.length);
    file.putInt(magic);
    for (int dimension : dimensions) {
      file.putInt(dimension);
    }
    return file.put(data).array();
  }

  static byte[] gzip(byte[] content) throws IOException {
    var out = new ByteArrayOutputStream();
    try (var gzip = new GZIPOutputStream(out)) {
      // In arrays of their own: under -Xcheck:jni each call of the deflater copies its whole array.
      for (int from = 0; from < content.length; from += 1 << 16) {
        int end = Math.min(content.length, from + (1 << 16));
        gzip.write(Arrays.copyOfRange(content, from, end));
      }
    }
    return out.toByteArray();
  }

  /** Bytes that do not repeat soon and differ with the seed. */
  static byte[] noise(int count, long seed) {
    byte[] bytes = new byte[count];
    for (int i = 0; i < count; i++) {
      bytes[i] = (byte) Rng.bits(seed, i);
    }
    return bytes;
  }

  static byte[] pixels(Dataset dataset, int index) {
    ByteBuffer image = ByteBuffer.allocate(dataset.height() * dataset.width() * dataset.channels());
    dataset.copyPixels(index, image, 0);
    return image.array();
  }
}
