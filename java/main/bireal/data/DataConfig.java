package bireal.data;

import java.util.List;

/**
 * Where images come from and how they are prepared.
 *
 * @param dataset which reader
 * @param path folder of the data files; unused (empty) for synthetic data
 * @param imageSize side of the square that enters the network; smaller images are zero-padded to it
 * @param cropPadding further zero pixels on each side, of which training takes a random crop; 0 =
 *     none
 * @param flip training images are mirrored with probability 1/2
 * @param mean of each channel, pixels in 0..1
 * @param std deviation of each channel
 * @param loaderThreads threads that prepare batches
 * @param batchesAhead batches prepared ahead of the step
 * @param stallLimitSeconds longest wait for one image before the run ends with an error
 * @param syntheticTrainImages images per split, for synthetic data
 * @param syntheticTestImages likewise
 * @param syntheticChannels likewise, 1..4
 * @param syntheticClasses likewise
 */
public record DataConfig(
    Kind dataset,
    String path,
    int imageSize,
    int cropPadding,
    boolean flip,
    List<Double> mean,
    List<Double> std,
    int loaderThreads,
    int batchesAhead,
    int stallLimitSeconds,
    int syntheticTrainImages,
    int syntheticTestImages,
    int syntheticChannels,
    int syntheticClasses) {
  /** Readers. IMAGENET is named by its recipes; its reader is not built yet and says so. */
  public enum Kind {
    FASHION_MNIST,
    CIFAR10,
    SYNTHETIC,
    IMAGENET
  }

  public DataConfig {
    check(imageSize >= 1 && imageSize <= 4096, "image_size must be in 1..4096, got " + imageSize);
    check(
        cropPadding >= 0 && cropPadding <= 64, "crop_padding must be in 0..64, got " + cropPadding);
    check(
        loaderThreads >= 1 && loaderThreads <= 256,
        "loader_threads must be in 1..256, got " + loaderThreads);
    check(
        batchesAhead >= 1 && batchesAhead <= 64,
        "batches_ahead must be in 1..64, got " + batchesAhead);
    check(
        stallLimitSeconds >= 1 && stallLimitSeconds <= 86_400,
        "stall_limit_seconds must be in 1..86400, got " + stallLimitSeconds);
    check(
        syntheticTrainImages >= 1,
        "synthetic_train_images must be >= 1, got " + syntheticTrainImages);
    check(
        syntheticTestImages >= 1, "synthetic_test_images must be >= 1, got " + syntheticTestImages);
    check(
        syntheticChannels >= 1 && syntheticChannels <= 4,
        "synthetic_channels must be in 1..4, got " + syntheticChannels);
    check(syntheticClasses >= 2, "synthetic_classes must be >= 2, got " + syntheticClasses);
    check(
        mean.size() == std.size(), "mean has " + mean.size() + " values but std has " + std.size());
    for (double value : std) {
      check(value > 0 && Double.isFinite(value), "std must be positive, got " + value);
    }
    for (double value : mean) {
      check(Double.isFinite(value), "mean must be finite, got " + value);
    }
    mean = List.copyOf(mean);
    std = List.copyOf(std);
  }

  private static void check(boolean condition, String message) {
    if (!condition) {
      throw new IllegalArgumentException(message);
    }
  }
}
