package bireal.data;

import bireal.backend.ImageSpec;

/** Opens the dataset that a configuration names, and fits its images to the network's input. */
public final class Datasets {
  private Datasets() {}

  /**
   * Reads a split into memory; throws DataException if a file is missing or not as published.
   *
   * @param seed decides the images of synthetic data, and nothing else
   */
  public static Dataset open(DataConfig config, Split split, long seed) {
    return switch (config.dataset()) {
      case FASHION_MNIST -> FashionMnist.read(config.path(), split);
      case CIFAR10 -> Cifar10.read(config.path(), split);
      case SYNTHETIC -> new Synthetic(config, split, seed);
      case IMAGENET ->
          throw new DataException(
              "data.dataset: the reader of imagenet is not part of this version yet; use"
                  + " fashion_mnist, cifar10 or synthetic");
    };
  }

  /**
   * How images become the square input of the network: pad = (image_size - H0) / 2 + crop_padding
   * zero pixels on each side, then a crop of image_size. Throws DataException, naming the key, if
   * the images do not fit.
   */
  public static ImageSpec imageSpec(DataConfig config, Dataset dataset) {
    int size = config.imageSize();
    String images =
        String.format("images of %s are %dx%d", dataset.name(), dataset.height(), dataset.width());
    if (dataset.height() != dataset.width()) {
      throw new DataException("data.image_size: " + images + ", expected square ones");
    }
    int margin = size - dataset.height();
    if (margin < 0) {
      throw new DataException(
          String.format(
              "data.image_size is %d but %s; set it to %d or more",
              size, images, dataset.height()));
    }
    if (margin % 2 != 0) {
      throw new DataException(
          String.format(
              "data.image_size is %d but %s: the padding must be the same on each side; set it to"
                  + " %d or %d",
              size, images, size - 1, size + 1));
    }
    // DataConfig has checked that mean and std agree.
    if (config.mean().size() != dataset.channels()) {
      throw new DataException(
          String.format(
              "data.mean and data.std have %d values but images of %s have %d channels",
              config.mean().size(), dataset.name(), dataset.channels()));
    }
    return new ImageSpec(
        dataset.height(),
        dataset.width(),
        dataset.channels(),
        size,
        size,
        margin / 2 + config.cropPadding());
  }
}
