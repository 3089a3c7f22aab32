package bireal.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FashionMnistTest {
  private static final String PUBLISHED = "/usr/share/datasets/fashion-mnist";
  private static final int IMAGES = 0x803;
  private static final int LABELS = 0x801;
  private static final int COUNT = 5;

  @TempDir Path folder;
  private Path imageFile;
  private Path labelFile;
  private final byte[] pixels = TestData.noise(COUNT * 784, 1);
  private final byte[] labels = {0, 9, 3, 3, 7};

  @BeforeEach
  void writeIntactFiles() throws IOException {
    imageFile = folder.resolve("train-images-idx3-ubyte.gz");
    labelFile = folder.resolve("train-labels-idx1-ubyte.gz");
    Files.write(imageFile, TestData.gzip(images(COUNT, 28, 28)));
    Files.write(labelFile, TestData.gzip(TestData.idx(LABELS, new int[] {COUNT}, labels)));
  }

  private byte[] images(int count, int height, int width) {
    return TestData.idx(IMAGES, new int[] {count, height, width}, pixels);
  }

  private Dataset open() {
    return FashionMnist.read(folder.toString(), Split.TRAIN);
  }

  /** Opening must fail with a message that has each of the parts and the fix. */
  private void assertRefused(String... parts) {
    DataException error = assertThrows(DataException.class, this::open);
    for (String part : parts) {
      assertTrue(error.getMessage().contains(part), error.getMessage() + "\nlacks: " + part);
    }
    assertTrue(
        error.getMessage().contains("install dataset-fashion-mnist")
            && error.getMessage().contains("set data.path"),
        error.getMessage());
  }

  @Test
  void intactFilesAreReadAsTheyAre() {
    Dataset dataset = open();
    assertEquals("Fashion-MNIST train", dataset.name());
    assertEquals(COUNT, dataset.count());
    assertEquals(28, dataset.height());
    assertEquals(28, dataset.width());
    assertEquals(1, dataset.channels());
    assertEquals(10, dataset.classes());
    for (int i = 0; i < COUNT; i++) {
      assertEquals(labels[i], dataset.label(i));
      assertArrayEquals(
          Arrays.copyOfRange(pixels, i * 784, (i + 1) * 784), TestData.pixels(dataset, i));
    }
  }

  @Test
  void copyPixelsWritesItsImageOnlyAndLeavesThePosition() {
    ByteBuffer target = ByteBuffer.allocateDirect(784 + 20).position(3);
    for (int i = 0; i < target.capacity(); i++) {
      target.put(i, (byte) 77);
    }
    open().copyPixels(2, target, 10);
    assertEquals(3, target.position());
    for (int i = 0; i < 10; i++) {
      assertEquals(77, target.get(i));
      assertEquals(77, target.get(794 + i));
    }
    assertEquals(pixels[2 * 784], target.get(10));
    assertEquals(pixels[3 * 784 - 1], target.get(793));
    assertThrows(IndexOutOfBoundsException.class, () -> open().copyPixels(COUNT, target, 0));
  }

  @Test
  void thePublishedFilesHoldBalancedClasses() {
    assertTrue(
        Files.isDirectory(Path.of(PUBLISHED)), PUBLISHED + " is missing: run scripts/setup.sh");
    for (Split split : Split.values()) {
      int count = split == Split.TRAIN ? 60_000 : 10_000;
      DataConfig config = TestData.config(DataConfig.Kind.FASHION_MNIST, PUBLISHED, 32, 1);
      Dataset dataset = Datasets.open(config, split, 0);
      assertEquals(count, dataset.count());
      int[] histogram = new int[10];
      for (int i = 0; i < count; i++) {
        histogram[dataset.label(i)]++;
      }
      for (int label = 0; label < 10; label++) {
        assertEquals(count / 10, histogram[label]);
      }
      // The first training image is an ankle boot, the first test image too: class 9.
      assertEquals(9, dataset.label(0));
    }
  }

  @Test
  void thePublishedPixelsHaveTheKnownMean() {
    Dataset dataset = FashionMnist.read(PUBLISHED, Split.TRAIN);
    long sum = 0;
    for (int i = 0; i < dataset.count(); i++) {
      for (byte pixel : TestData.pixels(dataset, i)) {
        sum += Byte.toUnsignedInt(pixel);
      }
    }
    // Widely used as the mean of Fashion-MNIST: 0.2860.
    assertEquals(0.2860, sum / (255.0 * 784 * dataset.count()), 5e-5);
  }

  @Test
  void anEmptyPathIsRefused() {
    DataException error =
        assertThrows(DataException.class, () -> FashionMnist.read("", Split.TRAIN));
    assertTrue(error.getMessage().contains("data.path is empty"), error.getMessage());
    assertTrue(error.getMessage().contains("install dataset-fashion-mnist"), error.getMessage());
  }

  @Test
  void aPathThatNoFileSystemTakesIsRefused() {
    DataException error =
        assertThrows(DataException.class, () -> FashionMnist.read("a\0b", Split.TRAIN));
    assertTrue(error.getMessage().contains("data.path is not a path"), error.getMessage());
  }

  @Test
  void aMissingFolderIsNamed() throws IOException {
    Path missing = folder.resolve("none");
    DataException error =
        assertThrows(DataException.class, () -> FashionMnist.read(missing.toString(), Split.TRAIN));
    assertTrue(error.getMessage().contains(missing + " does not exist"), error.getMessage());
    Files.createFile(missing);
    error =
        assertThrows(DataException.class, () -> FashionMnist.read(missing.toString(), Split.TRAIN));
    assertTrue(error.getMessage().contains(missing + " is not a folder"), error.getMessage());
  }

  @Test
  void aMissingFileIsNamed() throws IOException {
    Files.delete(imageFile);
    assertRefused(imageFile + ": no such file");
    Files.createDirectory(imageFile);
    assertRefused(imageFile + ": not a regular file");
  }

  @Test
  void theTestSplitReadsItsOwnFiles() {
    DataException error =
        assertThrows(DataException.class, () -> FashionMnist.read(folder.toString(), Split.TEST));
    assertTrue(
        error.getMessage().contains("t10k-labels-idx1-ubyte.gz: no such file"), error.getMessage());
  }

  @Test
  void aWrongMagicNumberIsRefused() throws IOException {
    Files.copy(imageFile, folder.resolve("copy"));
    Files.write(imageFile, TestData.gzip(TestData.idx(0x802, new int[] {COUNT, 28, 28}, pixels)));
    assertRefused(
        imageFile.toString(), "expected magic number 2051 (0x00000803), found 2050 (0x00000802)");
    Files.move(folder.resolve("copy"), labelFile, StandardCopyOption.REPLACE_EXISTING);
    assertRefused(labelFile.toString(), "expected magic number 2049");
  }

  @Test
  void wrongDimensionsAreRefused() throws IOException {
    Files.write(imageFile, TestData.gzip(images(COUNT, 14, 56)));
    assertRefused(imageFile.toString(), "expected dimension 1 28", "found 14");
    Files.write(imageFile, TestData.gzip(images(COUNT, 28, -1)));
    assertRefused(imageFile.toString(), "expected dimension 2 28", "found 4294967295");
  }

  @Test
  void aCountMismatchNamesBothFiles() throws IOException {
    Files.write(
        labelFile, TestData.gzip(TestData.idx(LABELS, new int[] {4}, Arrays.copyOf(labels, 4))));
    assertRefused(imageFile + " has 5 images but " + labelFile + " has 4 labels");
  }

  @Test
  void aLabelOutOfRangeIsRefused() throws IOException {
    for (int label : new int[] {10, 255}) {
      labels[3] = (byte) label;
      Files.write(labelFile, TestData.gzip(TestData.idx(LABELS, new int[] {COUNT}, labels)));
      assertRefused(labelFile + ": record 3 has label " + label + ", expected 0..9");
    }
  }

  @Test
  void aFileCutAnywhereIsRefused() throws IOException {
    byte[] whole = Files.readAllBytes(imageFile);
    for (int keep = 0; keep < whole.length; keep += keep < 40 ? 1 : 97) {
      Files.write(imageFile, Arrays.copyOf(whole, keep));
      assertRefused(imageFile + ": truncated");
    }
    // Within the checksum.
    for (int cut = 1; cut <= 8; cut++) {
      Files.write(imageFile, Arrays.copyOf(whole, whole.length - cut));
      assertRefused(imageFile + ": truncated");
    }
  }

  @Test
  void dataShorterThanTheHeaderPromisesAreRefused() throws IOException {
    Files.write(
        imageFile,
        TestData.gzip(
            TestData.idx(IMAGES, new int[] {5, 28, 28}, Arrays.copyOf(pixels, 4 * 784 + 3))));
    assertRefused(imageFile + ": truncated: expected 3920 bytes of data, found 3139");
    Files.write(imageFile, TestData.gzip(new byte[] {0, 0, 8}));
    assertRefused(imageFile + ": truncated: expected a header of 16 bytes, found 3");
  }

  @Test
  void trailingBytesAreRefusedInsideAndAfterTheCompressedData() throws IOException {
    byte[] content = images(COUNT, 28, 28);
    Files.write(imageFile, TestData.gzip(Arrays.copyOf(content, content.length + 1)));
    assertRefused(imageFile + ": trailing bytes after the 3920 that the header promises");
    byte[] whole = TestData.gzip(content);
    for (int extra : new int[] {1, 9, 18, 19, 100}) {
      Files.write(imageFile, Arrays.copyOf(whole, whole.length + extra));
      assertRefused(imageFile + ": " + extra + " trailing bytes after the end of the gzip data");
    }
  }

  @Test
  void aFileOfTwoGzipMembersIsRead() throws IOException {
    byte[] content = images(COUNT, 28, 28);
    var joined = new ByteArrayOutputStream();
    joined.write(TestData.gzip(Arrays.copyOf(content, 1000)));
    joined.write(TestData.gzip(Arrays.copyOfRange(content, 1000, content.length)));
    Files.write(imageFile, joined.toByteArray());
    assertArrayEquals(Arrays.copyOf(pixels, 784), TestData.pixels(open(), 0));
  }

  @Test
  void corruptGzipDataAreRefused() throws IOException {
    byte[] whole = Files.readAllBytes(imageFile);
    byte[] flipped = whole.clone();
    // Noise is stored, not compressed, so a flipped bit is seen by the checksum alone.
    flipped[whole.length / 2] ^= 4;
    Files.write(imageFile, flipped);
    assertRefused(imageFile + ": corrupt gzip data (Corrupt GZIP trailer)");
    byte[] checksum = whole.clone();
    checksum[whole.length - 8] ^= 1;
    Files.write(imageFile, checksum);
    assertRefused(imageFile + ": corrupt gzip data (Corrupt GZIP trailer)");
    Files.write(imageFile, images(COUNT, 28, 28));
    assertRefused(imageFile + ": corrupt gzip data (Not in GZIP format)");
  }

  @Test
  void headersThatClaimTooMuchAllocateNothing() throws IOException {
    byte[] zeros = new byte[64 << 20];
    ByteBuffer.wrap(zeros).putInt(IMAGES).putInt(2).putInt(28).putInt(28);
    byte[] bomb = TestData.gzip(zeros);
    long before = allocatedBytes();
    Files.write(imageFile, TestData.gzip(images(-1, 28, 28)));
    assertRefused(imageFile + ": header: expected 1..60000 records, found 4294967295");
    Files.write(imageFile, TestData.gzip(images(0, 28, 28)));
    assertRefused(imageFile + ": header: expected 1..60000 records, found 0");
    Files.write(imageFile, TestData.gzip(images(60_000, 28, 28)));
    assertRefused(imageFile + ": truncated: header promises 47040000 bytes, more than a gzip file");
    Files.write(imageFile, bomb);
    assertRefused(imageFile + ": trailing bytes after the 1568 that the header promises");
    assertTrue(allocatedBytes() - before < 8 << 20, "allocated " + (allocatedBytes() - before));
  }

  @Test
  void aFileTooLargeForTheDatasetIsNotRead() throws IOException {
    try (var file = new RandomAccessFile(labelFile.toFile(), "rw")) {
      file.setLength(3L << 30);
    }
    assertRefused(labelFile + ": expected at most 1108584 bytes, found 3221225472");
  }

  private static long allocatedBytes() {
    return ((com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean())
        .getCurrentThreadAllocatedBytes();
  }
}
