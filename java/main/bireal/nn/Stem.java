package bireal.nn;

import bireal.backend.ActivationKind;
import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * First layers, real: IMAGENET is a 7x7/2 convolution, BN and 3x3/2 max-pool (networks.md 1A.1),
 * CIFAR a 3x3 convolution and BN. Bi-Real Net and its kin have no activation behind the
 * normalisation, ResNet and XNOR-Net a ReLU. The image needs no gradient.
 */
final class Stem implements Block {
  private final NetworkConfig config;
  private final boolean imagenet;
  private final boolean relu;
  private Backend backend;
  private Tensor images;
  private Activation out;
  private Sign next;
  private Conv2d conv;
  private BatchNorm2d norm;
  private Conv2dSpec pool;
  private boolean fuses; // all of it in one pass, where nothing is kept of it: evaluation
  private Tensor v;
  private Tensor vmax; // what is normalised: of the imagenet stem the winners of v, else v
  private Tensor index;
  private Tensor dv;

  Stem(NetworkConfig config) {
    this.config = config;
    imagenet = config.stem() == NetworkConfig.Stem.IMAGENET;
    relu =
        config.network() == NetworkConfig.Family.RESNET
            || config.network() == NetworkConfig.Family.XNORNET;
  }

  @Override
  public Sign consumes() {
    return null;
  }

  @Override
  public Activation plan(Planner planner, Activation input, Sign nextSign) {
    backend = planner.passBackend();
    images = input.real();
    next = nextSign;
    int n = planner.passImages();
    int width = config.width();
    Conv2dSpec spec =
        imagenet
            ? Conv2dSpec.square(input.image(), width, 7, 2, 3)
            : Conv2dSpec.square(input.image(), width, 3, 1, 1);
    conv = new Conv2d(planner, "conv1.weight", spec, config);
    norm = new BatchNorm2d(planner, "bn1", spec.output(n), null);
    pool = imagenet ? new Conv2dSpec(spec.P(), spec.Q(), width, width, 3, 3, 2, 1) : null;
    fuses = imagenet && conv.fusesMaxPool(pool);
    boolean keeps = !fuses || planner.training();
    v = keeps ? planner.keep(spec.output(n), planner.real()) : null;
    vmax = v;
    dv = planner.outputGradient(spec.output(n));
    Shape outShape = spec.output(n);
    planner.layer(
        new Planner.LayerRow(
            "conv1",
            (imagenet ? "conv 7x7/2, bn" : "conv 3x3, bn") + (relu && !imagenet ? ", relu" : ""),
            spec.output(1),
            conv.parameterCount() + norm.parameterCount(),
            0,
            spec.macs(),
            conv.kernelName()));
    if (imagenet) {
      outShape = pool.output(n);
      if (keeps) {
        vmax = planner.keep(outShape, planner.real());
        index = planner.keep(outShape, DType.U8);
      }
      planner.layer(
          new Planner.LayerRow(
              "maxpool", "max-pool 3x3/2" + (relu ? ", relu" : ""), pool.output(1), 0, 0, 0, ""));
    }
    out =
        new Activation(
            planner.keep(outShape, planner.real()),
            next == null ? null : planner.keep(outShape, DType.BITS),
            planner.gradient(outShape, 0),
            0);
    if (!relu) {
      out = out.summedFor(norm, vmax);
    }
    return out;
  }

  @Override
  public void forward(int n, Pass pass) {
    forward(n, pass, images);
  }

  /** Of some of the images planned for. */
  void forward(int n, Pass pass, Tensor images) {
    if (fuses && pass == Pass.EVALUATE) {
      norm.prepare(n, null, pass);
      conv.forwardPooled(pool, n, out, images, norm, Sign.thresholdOf(next));
    } else {
      conv.forward(n, v, images);
      if (imagenet) {
        norm.prepareMaxPool(pool, n, vmax, index, v, pass);
      } else {
        norm.prepare(n, v, pass);
      }
      backend.batchNormApply(
          n,
          out.real(),
          out.bits(),
          vmax,
          norm.affine(),
          null,
          null,
          null,
          null,
          Sign.thresholdOf(next));
    }
    if (relu) { // behind the pooling, where there is a quarter of the values: the maximum is the
      // same
      backend.activationFwd(n, out.real(), out.real(), ActivationKind.RELU, 0);
    }
  }

  @Override
  public void backward(int n, GradMode mode) {
    Tensor dy = out.gradient();
    if (relu) {
      backend.activationBwd(n, dy, dy, out.real(), null, ActivationKind.RELU, 0);
    }
    if (out.sums() == null) { // else the first block has filled them
      norm.backwardSums(n, dy, vmax);
    }
    if (imagenet) {
      norm.backwardMaxPool(pool, n, dv, dy, index, v, mode);
    } else {
      norm.backwardFromSums(n, dv, dy, v, mode);
    }
    conv.backwardWeight(n, images, dv, mode);
  }
}
