package bireal.data;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class Cifar10Test {
  private static final int RECORD = 3073;

  @TempDir Path folder;

  /** File f of 1..5 has f records, the test file has 2; labels are f. */
  @BeforeEach
  void writeIntactFiles() throws IOException {
    for (int f = 1; f <= 5; f++) {
      Files.write(train(f), records(f, f));
    }
    Files.write(folder.resolve("test_batch.bin"), records(2, 6));
  }

  private Path train(int f) {
    return folder.resolve("data_batch_" + f + ".bin");
  }

  private static byte[] records(int count, int label) {
    byte[] file = TestData.noise(count * RECORD, label);
    for (int i = 0; i < count; i++) {
      file[i * RECORD] = (byte) label;
    }
    return file;
  }

  private DataException refused(Split split) {
    DataException error =
        assertThrows(DataException.class, () -> Cifar10.read(folder.toString(), split));
    assertTrue(error.getMessage().contains("unpack cifar-10-binary.tar.gz"), error.getMessage());
    return error;
  }

  private static void assertContains(DataException error, String part) {
    assertTrue(error.getMessage().contains(part), error.getMessage() + "\nlacks: " + part);
  }

  @Test
  void planarRecordsBecomeNhwcImagesInFileOrder() throws IOException {
    DataConfig config = TestData.config(DataConfig.Kind.CIFAR10, folder.toString(), 32, 3);
    Dataset dataset = Datasets.open(config, Split.TRAIN, 0);
    assertEquals("CIFAR-10 train", dataset.name());
    assertEquals(15, dataset.count());
    assertEquals(32, dataset.height());
    assertEquals(32, dataset.width());
    assertEquals(3, dataset.channels());
    assertEquals(10, dataset.classes());
    int image = 0;
    for (int f = 1; f <= 5; f++) {
      byte[] file = Files.readAllBytes(train(f));
      for (int record = 0; record < f; record++, image++) {
        assertEquals(f, dataset.label(image));
        byte[] pixels = TestData.pixels(dataset, image);
        for (int h = 0; h < 32; h++) {
          for (int w = 0; w < 32; w++) {
            for (int c = 0; c < 3; c++) {
              assertEquals(
                  file[record * RECORD + 1 + c * 1024 + h * 32 + w], pixels[(h * 32 + w) * 3 + c]);
            }
          }
        }
      }
    }
    assertEquals(2, Datasets.open(config, Split.TEST, 0).count());
  }

  @Test
  void aMissingFolderOrFileIsNamed() throws IOException {
    Files.delete(train(4));
    assertContains(refused(Split.TRAIN), train(4) + ": no such file");
    Files.delete(folder.resolve("test_batch.bin"));
    assertContains(refused(Split.TEST), "test_batch.bin: no such file");
    DataException error =
        assertThrows(
            DataException.class, () -> Cifar10.read(folder.resolve("none").toString(), Split.TEST));
    assertContains(error, "none does not exist");
  }

  @Test
  void filesThatAreNotWholeRecordsAreRefused() throws IOException {
    byte[] whole = records(2, 2);
    for (int bytes : new int[] {0, 1, RECORD - 1, RECORD + 1, 2 * RECORD - 1}) {
      Files.write(train(2), Arrays.copyOf(whole, bytes));
      assertContains(
          refused(Split.TRAIN),
          train(2)
              + ": truncated or trailing bytes: expected a multiple of 3073 bytes (a label and 3072"
              + " pixels), found "
              + bytes);
    }
  }

  @Test
  void aLabelOutOfRangeIsRefused() throws IOException {
    byte[] file = records(3, 3);
    file[2 * RECORD] = 10;
    Files.write(train(3), file);
    assertContains(refused(Split.TRAIN), train(3) + ": record 2 has label 10, expected 0..9");
  }

  @Test
  void aFileOfMoreThanTheRecordsPublishedIsNotRead() throws IOException {
    try (var file = new RandomAccessFile(train(1).toFile(), "rw")) {
      file.setLength(10_001L * RECORD);
    }
    assertContains(
        refused(Split.TRAIN), train(1) + ": expected at most 30730000 bytes, found 30733073");
  }
}
