package bireal.data;

import java.nio.ByteBuffer;

/**
 * Labelled uint8 images of one size. Immutable: any number of threads may read it, and an image is
 * the same at every reading.
 */
public interface Dataset {
  /** What messages call it, such as "Fashion-MNIST train". */
  String name();

  /** Images, at least 1. */
  int count();

  int height();

  int width();

  int channels();

  int classes();

  /** In 0..classes-1. */
  int label(int index);

  /**
   * Copies the pixels [H0,W0,C] of an image to {@code offsetBytes} of {@code target}, whose
   * position and limit stay.
   */
  void copyPixels(int index, ByteBuffer target, int offsetBytes);
}
