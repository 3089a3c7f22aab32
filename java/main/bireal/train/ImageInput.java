package bireal.train;

import bireal.backend.Backend;
import bireal.backend.ImageSpec;
import bireal.backend.Tensors;
import bireal.data.MicroBatch;
import bireal.nn.Network;
import bireal.nn.Planner;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * Brings uint8 micro-batches of one dataset into a network: upload, crop, flip, normalisation
 * (native/ops/image). On a GPU the upload of the next one travels while the last one is at work.
 */
final class ImageInput {
  private final Network network;
  private final Backend backend;
  private final ImageSpec spec;
  private final Tensor pixels;
  private final Tensor crops;
  private final Tensor labels;
  private final Tensor mean;
  private final Tensor std;
  private final double[] meanValues;
  private final double[] stdValues;
  private boolean written;
  private int images;

  /** Plans its buffers; before the network's memory is allocated. */
  ImageInput(Network network, ImageSpec spec, List<Double> mean, List<Double> std) {
    Planner planner = network.planner();
    this.network = network;
    this.backend = planner.backend();
    this.spec = spec;
    int n = planner.maxImages();
    this.pixels = planner.persist(Shape.of(n, spec.H0(), spec.W0(), spec.C()), DType.U8);
    this.crops = planner.persist(Shape.of(n, 3), DType.I32);
    this.labels = planner.persist(Shape.of(n), DType.I32);
    this.mean = planner.persist(Shape.of(spec.C()), DType.F64);
    this.std = planner.persist(Shape.of(spec.C()), DType.F64);
    this.meanValues = mean.stream().mapToDouble(Double::doubleValue).toArray();
    this.stdValues = std.stream().mapToDouble(Double::doubleValue).toArray();
  }

  /**
   * Starts to bring {@code batch}, whose buffers may change when this returns. Throws
   * IllegalArgumentException if a crop lies outside its padded image: on a GPU nothing else would
   * notice.
   */
  void upload(MicroBatch batch) {
    checkCrops(batch.crops(), batch.images(), spec);
    if (!written) {
      Tensors.write(backend, mean, meanValues);
      Tensors.write(backend, std, stdValues);
      written = true;
    }
    backend.upload(pixels, batch.pixels());
    backend.upload(crops, batch.crops());
    backend.upload(labels, batch.labels());
    images = batch.images();
  }

  static void checkCrops(ByteBuffer crops, int images, ImageSpec spec) {
    for (int i = 0; i < images; i++) {
      int at = crops.position() + 3 * i * Integer.BYTES;
      int top = crops.getInt(at);
      int left = crops.getInt(at + Integer.BYTES);
      int flip = crops.getInt(at + 2 * Integer.BYTES);
      if (top < 0
          || top > spec.H0() + 2 * spec.pad() - spec.H()
          || left < 0
          || left > spec.W0() + 2 * spec.pad() - spec.W()
          || (flip & ~1) != 0) {
        throw new IllegalArgumentException(
            String.format(
                "image %d of the micro-batch: crop at row %d, column %d, flip %d, is not one of %s",
                i, top, left, flip, spec));
      }
    }
  }

  /** Fills the network's input and labels with the images that were uploaded last. */
  void load() {
    backend.awaitUploads();
    backend.imageNormalize(spec, images, network.input(), pixels, crops, mean, std);
    backend.copy(network.labels(), labels);
    backend.releaseUploads();
  }
}
