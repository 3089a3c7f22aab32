package bireal.data;

import java.nio.ByteBuffer;
import java.util.Objects;

/** A dataset held in two arrays, which it takes over: pixels [count,H0,W0,C] and labels [count]. */
final class ArrayDataset implements Dataset {
  private final String name;
  private final int height;
  private final int width;
  private final int channels;
  private final int classes;
  private final byte[] pixels;
  private final byte[] labels;

  ArrayDataset(
      String name, int height, int width, int channels, int classes, byte[] pixels, byte[] labels) {
    if (pixels.length != (long) labels.length * height * width * channels) {
      throw new IllegalArgumentException(
          labels.length + " labels but " + pixels.length + " bytes of pixels");
    }
    this.name = name;
    this.height = height;
    this.width = width;
    this.channels = channels;
    this.classes = classes;
    this.pixels = pixels;
    this.labels = labels;
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public int count() {
    return labels.length;
  }

  @Override
  public int height() {
    return height;
  }

  @Override
  public int width() {
    return width;
  }

  @Override
  public int channels() {
    return channels;
  }

  @Override
  public int classes() {
    return classes;
  }

  @Override
  public int label(int index) {
    return Byte.toUnsignedInt(labels[index]);
  }

  @Override
  public void copyPixels(int index, ByteBuffer target, int offsetBytes) {
    Objects.checkIndex(index, labels.length);
    int imageBytes = height * width * channels;
    target.put(offsetBytes, pixels, index * imageBytes, imageBytes);
  }
}
