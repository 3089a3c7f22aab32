package bireal.data;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Reader of CIFAR-10, "binary version": records of one label byte and 3x32x32 bytes of planar RGB,
 * no header. Files with fewer records than the published 10000 are accepted.
 *
 * <p>Source: cs.toronto.edu/~kriz/cifar.html.
 */
final class Cifar10 {
  static final String FIX =
      "unpack cifar-10-binary.tar.gz and set data.path to its folder cifar-10-batches-bin";
  private static final int SIDE = 32;
  private static final int CHANNELS = 3;
  private static final int CLASSES = 10;
  private static final int PLANE_BYTES = SIDE * SIDE;
  private static final int IMAGE_BYTES = CHANNELS * PLANE_BYTES;
  private static final int RECORD_BYTES = 1 + IMAGE_BYTES;
  private static final int FILE_RECORDS_LIMIT = 10_000;

  private Cifar10() {}

  static Dataset read(String path, Split split) {
    Path folder = DataFiles.folder("CIFAR-10", path, FIX);
    List<Path> files = new ArrayList<>();
    if (split == Split.TRAIN) {
      for (int i = 1; i <= 5; i++) {
        files.add(folder.resolve("data_batch_" + i + ".bin"));
      }
    } else {
      files.add(folder.resolve("test_batch.bin"));
    }
    List<byte[]> contents = new ArrayList<>();
    int count = 0;
    for (Path file : files) {
      byte[] content = DataFiles.read(file, (long) FILE_RECORDS_LIMIT * RECORD_BYTES, FIX);
      if (content.length == 0 || content.length % RECORD_BYTES != 0) {
        throw new DataException(
            String.format(
                "%s: truncated or trailing bytes: expected a multiple of %d bytes (a label and %d"
                    + " pixels), found %d; %s",
                file, RECORD_BYTES, IMAGE_BYTES, content.length, FIX));
      }
      count += content.length / RECORD_BYTES;
      contents.add(content);
    }
    byte[] pixels = new byte[count * IMAGE_BYTES];
    byte[] labels = new byte[count];
    int image = 0;
    for (int f = 0; f < files.size(); f++) {
      byte[] content = contents.get(f);
      byte[] fileLabels = new byte[content.length / RECORD_BYTES];
      for (int record = 0; record < fileLabels.length; record++) {
        fileLabels[record] = content[record * RECORD_BYTES];
        interleave(content, record * RECORD_BYTES + 1, pixels, (image + record) * IMAGE_BYTES);
      }
      DataFiles.checkLabels(files.get(f), fileLabels, CLASSES, FIX);
      System.arraycopy(fileLabels, 0, labels, image, fileLabels.length);
      image += fileLabels.length;
    }
    String name = "CIFAR-10 " + (split == Split.TRAIN ? "train" : "test");
    return new ArrayDataset(name, SIDE, SIDE, CHANNELS, CLASSES, pixels, labels);
  }

  /** [C,H,W] to [H,W,C]. */
  private static void interleave(byte[] planar, int from, byte[] pixels, int to) {
    for (int c = 0; c < CHANNELS; c++) {
      for (int i = 0; i < PLANE_BYTES; i++) {
        pixels[to + i * CHANNELS + c] = planar[from + c * PLANE_BYTES + i];
      }
    }
  }
}
