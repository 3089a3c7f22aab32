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
import java.util.List;

/**
 * Brings uint8 micro-batches of one dataset into a network: upload, crop, flip, normalisation
 * (native/ops/image).
 */
final class ImageInput {
  private final Network network;
  private final Backend backend;
  private final ImageSpec spec;
  private final Tensor pixels;
  private final Tensor crops;
  private final Tensor mean;
  private final Tensor std;
  private final double[] meanValues;
  private final double[] stdValues;
  private boolean written;

  /** Plans its buffers; before the network's memory is allocated. */
  ImageInput(Network network, ImageSpec spec, List<Double> mean, List<Double> std) {
    Planner planner = network.planner();
    this.network = network;
    this.backend = planner.backend();
    this.spec = spec;
    int n = planner.maxImages();
    this.pixels = planner.persist(Shape.of(n, spec.H0(), spec.W0(), spec.C()), DType.U8);
    this.crops = planner.persist(Shape.of(n, 3), DType.I32);
    this.mean = planner.persist(Shape.of(spec.C()), DType.F64);
    this.std = planner.persist(Shape.of(spec.C()), DType.F64);
    this.meanValues = mean.stream().mapToDouble(Double::doubleValue).toArray();
    this.stdValues = std.stream().mapToDouble(Double::doubleValue).toArray();
  }

  /** Fills the network's input and labels with the images of {@code batch}. */
  void load(MicroBatch batch) {
    if (!written) {
      Tensors.write(backend, mean, meanValues);
      Tensors.write(backend, std, stdValues);
      written = true;
    }
    backend.write(pixels, batch.pixels());
    backend.write(crops, batch.crops());
    backend.write(network.labels(), batch.labels());
    backend.imageNormalize(spec, batch.images(), network.input(), pixels, crops, mean, std);
  }
}
