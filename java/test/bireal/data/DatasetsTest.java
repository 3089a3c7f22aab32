package bireal.data;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.ImageSpec;
import java.util.List;
import org.junit.jupiter.api.Test;

class DatasetsTest {
  private static Dataset images(int height, int width, int channels) {
    return new ArrayDataset(
        "tiny", height, width, channels, 2, new byte[height * width * channels], new byte[1]);
  }

  private static DataConfig config(int imageSize, int cropPadding, int channels) {
    List<Double> values = List.of(0.5, 0.5, 0.5).subList(0, channels);
    return new DataConfig(
        DataConfig.Kind.CIFAR10,
        "",
        imageSize,
        cropPadding,
        true,
        values,
        values,
        1,
        1,
        120,
        1,
        1,
        1,
        2);
  }

  private static void assertRefused(DataConfig config, Dataset dataset, String message) {
    DataException error =
        assertThrows(DataException.class, () -> Datasets.imageSpec(config, dataset));
    assertEquals(message, error.getMessage());
  }

  @Test
  void imagenetIsRefusedUntilItsReaderExists() {
    DataConfig config = TestData.config(DataConfig.Kind.IMAGENET, "/data", 224, 3);
    DataException error =
        assertThrows(DataException.class, () -> Datasets.open(config, Split.TRAIN, 0));
    assertTrue(
        error
            .getMessage()
            .contains("data.dataset: the reader of imagenet is not part of this version yet"),
        error.getMessage());
  }

  @Test
  void smallImagesArePaddedToTheImageSize() {
    assertEquals(
        new ImageSpec(28, 28, 1, 32, 32, 2),
        Datasets.imageSpec(config(32, 0, 1), images(28, 28, 1)));
  }

  @Test
  void cropPaddingComesOnTop() {
    assertEquals(
        new ImageSpec(32, 32, 3, 32, 32, 4),
        Datasets.imageSpec(config(32, 4, 3), images(32, 32, 3)));
    assertEquals(
        new ImageSpec(28, 28, 1, 32, 32, 6),
        Datasets.imageSpec(config(32, 4, 1), images(28, 28, 1)));
  }

  @Test
  void imagesThatDoNotFitAreRefusedWithTheKey() {
    assertRefused(
        config(32, 0, 1),
        images(28, 30, 1),
        "data.image_size: images of tiny are 28x30, expected square ones");
    assertRefused(
        config(31, 0, 1),
        images(28, 28, 1),
        "data.image_size is 31 but images of tiny are 28x28: the padding must be the same on each"
            + " side; set it to 30 or 32");
    assertRefused(
        config(26, 4, 1),
        images(28, 28, 1),
        "data.image_size is 26 but images of tiny are 28x28; set it to 28 or more");
  }

  @Test
  void aMeanForAnotherNumberOfChannelsIsRefused() {
    assertRefused(
        config(32, 0, 3),
        images(28, 28, 1),
        "data.mean and data.std have 3 values but images of tiny have 1 channels");
  }

  @Test
  void arraysOfDifferentCountsAreRefused() {
    assertThrows(
        IllegalArgumentException.class,
        () -> new ArrayDataset("tiny", 2, 2, 1, 2, new byte[7], new byte[2]));
  }
}
