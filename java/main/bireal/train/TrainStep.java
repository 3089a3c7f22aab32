package bireal.train;

import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.Segments;
import bireal.backend.StepState;
import bireal.backend.Tensors;
import bireal.nn.Network;
import bireal.nn.Parameter;
import bireal.nn.Pass;
import bireal.nn.Planner;
import bireal.optim.Optimizer;
import bireal.optim.OptimizerConfig;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/**
 * One optimizer step over micro-batches, on a network planned for training: {@link #begin}, {@link
 * #microBatch} for each, {@link #finish}. The caller fills {@link Network#input} and {@link
 * #labels} before each micro-batch. Owns network and optimizer.
 */
public final class TrainStep implements AutoCloseable {
  /** Loss mean and hits of a step; the gradient norm over all parameters. */
  public record Result(double loss, long top1, long top5, long images, double gradNorm) {}

  private final Backend backend;
  private final Network network;
  private final Optimizer optimizer;
  private final double labelSmoothing;
  private final StepState state;
  private final Tensor labels;
  private final ByteBuffer scalars = ByteBuffer.allocateDirect(32).order(ByteOrder.LITTLE_ENDIAN);
  private int microBatchCount;
  private long number;

  /** Plans labels and moments into the network's planner and takes all memory. */
  public TrainStep(Network network, OptimizerConfig optimizerConfig, double labelSmoothing) {
    this.network = network;
    this.labelSmoothing = labelSmoothing;
    Planner planner = network.planner();
    backend = planner.backend();
    state = planner.step();
    labels = planner.persist(Shape.of(planner.maxImages()), DType.I32);
    optimizer =
        new Optimizer(
            backend,
            optimizerConfig,
            planner.flatParameters(),
            planner.flatGradients(),
            planner::flatLike);
    network.allocate();
    optimizer.bind(segments(planner.parameters(), optimizerConfig));
  }

  /**
   * Runs of parameters with equal decay, in the order of the flat buffer (the last parameter
   * first).
   */
  private static List<Segments.Segment> segments(
      List<Parameter> parameters, OptimizerConfig config) {
    List<Segments.Segment> segments = new ArrayList<>();
    for (int i = parameters.size() - 1; i >= 0; i--) {
      Parameter parameter = parameters.get(i);
      boolean decays =
          config.decayed() == OptimizerConfig.Decayed.ALL || parameter.publishedDims().length == 4;
      segments.add(
          new Segments.Segment(
              parameter.value().offsetBytes() / Float.BYTES,
              parameter.shape().count(),
              decays ? config.weightDecay() : 0));
    }
    return segments;
  }

  public Network network() {
    return network;
  }

  public Optimizer optimizer() {
    return optimizer;
  }

  /** Classes of the coming micro-batch, I32. */
  public Tensor labels() {
    return labels;
  }

  /** Starts step {@code number} (from 1) with learning rate {@code lr}. */
  public void begin(long number, double lr) {
    this.number = number;
    microBatchCount = 0;
    scalars.clear().putDouble(lr).putDouble(number).putDouble(0).putDouble(0).flip();
    backend.write(state.state(), scalars);
  }

  /**
   * Forward, loss and backward of {@code n} images out of the step's {@code batchImages}; gradients
   * accumulate.
   */
  public void microBatch(int n, int batchImages) {
    GradMode mode = microBatchCount == 0 ? GradMode.OVERWRITE : GradMode.ACCUMULATE;
    network.forward(n, Pass.TRAIN);
    loss(n, 1.0 / batchImages, mode);
    network.backward(n, mode);
    microBatchCount++;
  }

  private void loss(int n, double gradientScale, GradMode mode) {
    backend.softmaxXent(
        n,
        state.metrics(),
        network.logitsGradient(),
        network.logits(),
        labels,
        null,
        labelSmoothing,
        gradientScale,
        mode,
        network.planner().workspace());
  }

  /**
   * Applies the step: gradient rules, the finiteness check, the optimizer, running statistics, new
   * weight bits. Throws {@link NonFiniteException}, with weights, moments and statistics as they
   * were, if loss or gradient is not finite.
   */
  public Result finish() {
    network.applyWeightGradientRules();
    backend.finiteNorm(state, network.planner().flatGradients(), network.planner().workspace());
    optimizer.step(state);
    network.commitStatistics(microBatchCount);
    network.refresh();
    return result();
  }

  private Result result() {
    scalars.clear();
    backend.read(scalars, state.metrics());
    double images = scalars.getDouble(StepState.IMAGES * 8);
    double loss = scalars.getDouble(StepState.LOSS_SUM * 8) / images;
    long top1 = (long) scalars.getDouble(StepState.TOP1 * 8);
    long top5 = (long) scalars.getDouble(StepState.TOP5 * 8);
    scalars.clear();
    backend.read(scalars, state.state());
    double gradNorm = scalars.getDouble(StepState.GRAD_NORM * 8);
    if (scalars.getDouble(StepState.NONFINITE * 8) != 0) {
      throw new NonFiniteException(number, loss, gradNorm);
    }
    return new Result(loss, top1, top5, (long) images, gradNorm);
  }

  /**
   * Adds loss (plain cross-entropy) and hits of {@code n} evaluated images to the metrics; {@code
   * first} starts anew.
   */
  public void evaluate(int n, boolean first) {
    network.forward(n, Pass.EVALUATE);
    backend.softmaxXent(
        n,
        state.metrics(),
        null,
        network.logits(),
        labels,
        null,
        0,
        0,
        first ? GradMode.OVERWRITE : GradMode.ACCUMULATE,
        network.planner().workspace());
  }

  /** What {@link #evaluate} has added up; the gradient norm is 0. */
  public Result evaluated() {
    double[] metrics = Tensors.doubles(backend, state.metrics());
    return new Result(
        metrics[StepState.LOSS_SUM] / metrics[StepState.IMAGES],
        (long) metrics[StepState.TOP1],
        (long) metrics[StepState.TOP5],
        (long) metrics[StepState.IMAGES],
        0);
  }

  @Override
  public void close() {
    optimizer.close();
    network.close();
  }
}
