package bireal.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

class SyntheticTest {
  private static DataConfig config(int imageSize, int channels, int classes) {
    return new DataConfig(
        DataConfig.Kind.SYNTHETIC,
        "",
        imageSize,
        0,
        false,
        List.of(),
        List.of(),
        1,
        1,
        120,
        200,
        100,
        channels,
        classes);
  }

  private static Dataset open(Split split, long seed) {
    return Datasets.open(config(16, 3, 10), split, seed);
  }

  @Test
  void itHasTheConfiguredShapeAndBalancedLabels() {
    Dataset train = open(Split.TRAIN, 1);
    assertEquals("synthetic train", train.name());
    assertEquals(200, train.count());
    assertEquals(100, open(Split.TEST, 1).count());
    assertEquals(16, train.height());
    assertEquals(16, train.width());
    assertEquals(3, train.channels());
    assertEquals(10, train.classes());
    int[] histogram = new int[10];
    for (int i = 0; i < train.count(); i++) {
      histogram[train.label(i)]++;
    }
    for (int count : histogram) {
      assertEquals(20, count);
    }
  }

  @Test
  void anImageIsAFunctionOfSeedSplitAndIndex() {
    byte[] image = TestData.pixels(open(Split.TRAIN, 1), 13);
    assertArrayEquals(image, TestData.pixels(open(Split.TRAIN, 1), 13));
    assertFalse(Arrays.equals(image, TestData.pixels(open(Split.TRAIN, 1), 23)));
    assertFalse(Arrays.equals(image, TestData.pixels(open(Split.TRAIN, 2), 13)));
    assertFalse(Arrays.equals(image, TestData.pixels(open(Split.TEST, 1), 13)));
  }

  @Test
  void everySizeAndChannelCountIsFilledExactly() {
    for (int side : new int[] {1, 2, 3, 4, 5, 28, 33}) {
      for (int channels = 1; channels <= 4; channels++) {
        Dataset dataset = Datasets.open(config(side, channels, 2), Split.TEST, 7);
        int imageBytes = side * side * channels;
        ByteBuffer target = ByteBuffer.allocateDirect(imageBytes + 2);
        target.put(0, (byte) 77).put(imageBytes + 1, (byte) 77);
        dataset.copyPixels(99, target, 1);
        assertEquals(77, target.get(0));
        assertEquals(77, target.get(imageBytes + 1));
        byte[] image = new byte[imageBytes];
        target.get(1, image);
        assertArrayEquals(TestData.pixels(dataset, 99), image);
      }
    }
  }

  @Test
  void theMeanOfAClassIsItsSmoothPattern() {
    Dataset train = open(Split.TRAIN, 3);
    double[] mean = means(train)[4];
    // Neighbours differ by at most 255 * 3/15 = 51, and noise of deviation 37 over 20 images adds
    // 8.3 * sqrt(2) = 12 of which five are allowed.
    for (int i = 0; i + 3 < mean.length; i++) {
      boolean sameRow = i / (16 * 3) == (i + 3) / (16 * 3);
      assertTrue(!sameRow || Math.abs(mean[i] - mean[i + 3]) < 51 + 60);
    }
  }

  @Test
  void theNearestMeanOfTheTrainingImagesTellsTestImagesApart() {
    double[][] means = means(open(Split.TRAIN, 3));
    Dataset test = open(Split.TEST, 3);
    int right = 0;
    for (int i = 0; i < test.count(); i++) {
      byte[] image = TestData.pixels(test, i);
      int best = 0;
      for (int label = 1; label < 10; label++) {
        if (distance(image, means[label]) < distance(image, means[best])) {
          best = label;
        }
      }
      right += best == test.label(i) ? 1 : 0;
    }
    assertTrue(right >= 95, right + " of 100");
  }

  private static double[][] means(Dataset dataset) {
    double[][] sums = new double[dataset.classes()][16 * 16 * 3];
    for (int i = 0; i < dataset.count(); i++) {
      byte[] image = TestData.pixels(dataset, i);
      for (int p = 0; p < image.length; p++) {
        sums[dataset.label(i)][p] += Byte.toUnsignedInt(image[p]) / 20.0;
      }
    }
    return sums;
  }

  private static double distance(byte[] image, double[] mean) {
    double sum = 0;
    for (int p = 0; p < image.length; p++) {
      double difference = Byte.toUnsignedInt(image[p]) - mean[p];
      sum += difference * difference;
    }
    return sum;
  }

  @Test
  void anIndexOutOfRangeIsRefused() {
    Dataset train = open(Split.TRAIN, 1);
    assertThrows(IndexOutOfBoundsException.class, () -> train.label(200));
    assertThrows(IndexOutOfBoundsException.class, () -> TestData.pixels(train, -1));
  }

  @Test
  void classesBeyondTheMemoryLimitAreRefused() {
    DataException error =
        assertThrows(
            DataException.class,
            () -> Datasets.open(config(8, 4, Integer.MAX_VALUE), Split.TRAIN, 0));
    assertTrue(error.getMessage().contains("data.synthetic_classes"), error.getMessage());
  }
}
