package bireal.data;

import java.io.ByteArrayInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.zip.GZIPInputStream;
import java.util.zip.ZipException;

/**
 * Reader of Fashion-MNIST (and of MNIST, which has the same files): gzipped IDX files, a header of
 * big-endian int32 {magic, count, dimensions...} followed by bytes.
 *
 * <p>Nothing is allocated on the word of a header: it is held against the published counts and
 * against what a gzip file of that length can hold.
 */
final class FashionMnist {
  static final String FIX =
      "install dataset-fashion-mnist (folder /usr/share/datasets/fashion-mnist) or set data.path to"
          + " a folder with an intact copy";
  private static final int SIDE = 28;
  private static final int CLASSES = 10;
  private static final int IMAGES_MAGIC = 0x00000803;
  private static final int LABELS_MAGIC = 0x00000801;

  /** Deflate cannot shrink data by more (zlib.net/zlib_tech.html). */
  private static final long DEFLATE_MAX_RATIO = 1032;

  private FashionMnist() {}

  static Dataset read(String path, Split split) {
    Path folder = DataFiles.folder("Fashion-MNIST", path, FIX);
    String prefix = split == Split.TRAIN ? "train" : "t10k";
    int countLimit = split == Split.TRAIN ? 60_000 : 10_000;
    Path imageFile = folder.resolve(prefix + "-images-idx3-ubyte.gz");
    Path labelFile = folder.resolve(prefix + "-labels-idx1-ubyte.gz");
    byte[] labels = readIdx(labelFile, LABELS_MAGIC, countLimit);
    byte[] pixels = readIdx(imageFile, IMAGES_MAGIC, countLimit, SIDE, SIDE);
    if (pixels.length != labels.length * SIDE * SIDE) {
      throw new DataException(
          String.format(
              "%s has %d images but %s has %d labels; %s",
              imageFile, pixels.length / (SIDE * SIDE), labelFile, labels.length, FIX));
    }
    DataFiles.checkLabels(labelFile, labels, CLASSES, FIX);
    String name = "Fashion-MNIST " + (split == Split.TRAIN ? "train" : "test");
    return new ArrayDataset(name, SIDE, SIDE, 1, CLASSES, pixels, labels);
  }

  private static byte[] readIdx(Path file, int magic, int countLimit, int... dimensions) {
    long itemBytes = 1;
    for (int dimension : dimensions) {
      itemBytes *= dimension;
    }
    int headerBytes = 8 + 4 * dimensions.length;
    // Bytes that do not compress are stored with 5 more per block; 1 MiB covers that and the names.
    long fileLimit = headerBytes + countLimit * itemBytes + (1 << 20);
    byte[] compressed = DataFiles.read(file, fileLimit, FIX);
    try (var in = new WholeGzip(compressed)) {
      ByteBuffer header = ByteBuffer.wrap(in.readNBytes(headerBytes));
      if (header.remaining() < headerBytes) {
        throw error(
            file,
            "truncated: expected a header of "
                + headerBytes
                + " bytes, found "
                + header.remaining());
      }
      expect(file, "magic number", magic, header.getInt());
      long count = Integer.toUnsignedLong(header.getInt());
      if (count < 1 || count > countLimit) {
        throw error(file, "header: expected 1.." + countLimit + " records, found " + count);
      }
      for (int i = 0; i < dimensions.length; i++) {
        expect(file, "dimension " + (i + 1), dimensions[i], header.getInt());
      }
      long bytes = count * itemBytes;
      if (bytes > compressed.length * DEFLATE_MAX_RATIO) {
        throw error(
            file,
            String.format(
                "truncated: header promises %d bytes, more than a gzip file of %d bytes can hold",
                bytes, compressed.length));
      }
      byte[] content = new byte[(int) bytes];
      // One call for all: under -Xcheck:jni each call copies the inflater's whole input.
      int found = in.readNBytes(content, 0, content.length);
      if (found < bytes) {
        throw error(file, "truncated: expected " + bytes + " bytes of data, found " + found);
      }
      // Reading on to the end also checks the CRC.
      if (in.read() >= 0) {
        throw error(file, "trailing bytes after the " + bytes + " that the header promises");
      }
      if (in.trailingBytes() > 0) {
        throw error(file, in.trailingBytes() + " trailing bytes after the end of the gzip data");
      }
      return content;
    } catch (EOFException e) {
      throw new DataException(file + ": truncated: the gzip data end too early; " + FIX, e);
    } catch (ZipException e) {
      throw new DataException(file + ": corrupt gzip data (" + e.getMessage() + "); " + FIX, e);
    } catch (IOException e) {
      throw new DataException(file + ": cannot be read: " + e, e);
    }
  }

  private static void expect(Path file, String what, int expected, int found) {
    if (found != expected) {
      throw error(
          file,
          String.format(
              "header: expected %s %d (0x%08x), found %s (0x%08x)",
              what, expected, expected, Integer.toUnsignedString(found), found));
    }
  }

  private static DataException error(Path file, String problem) {
    return new DataException(file + ": " + problem + "; " + FIX);
  }

  /** Sees what GZIPInputStream ignores: bytes after the last member that are no gzip header. */
  private static final class WholeGzip extends GZIPInputStream {
    private static final int TRAILER_BYTES = 8;

    WholeGzip(byte[] file) throws IOException {
      // With a buffer as large as the file, all that follows the header is the inflater's input.
      super(new ByteArrayInputStream(file), Math.max(1, file.length));
    }

    /** Valid at the end of the stream. */
    int trailingBytes() {
      return inf.getRemaining() - TRAILER_BYTES;
    }
  }
}
