package bireal.train;

import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.Segments;
import bireal.backend.StepState;
import bireal.nn.Network;
import bireal.nn.Parameter;
import bireal.nn.Pass;
import bireal.nn.Planner;
import bireal.optim.Optimizer;
import bireal.optim.OptimizerConfig;
import bireal.tensor.DType;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/**
 * One optimizer step over micro-batches, on a network planned for training: {@link #begin}, {@link
 * #microBatch} for each, {@link #finish}. The caller fills {@link Network#input} and {@link
 * Network#labels} before each micro-batch. Owns the optimizer, not the network.
 */
public final class TrainStep implements AutoCloseable {
  private final Backend backend;
  private final Network network;
  private final Optimizer optimizer;
  private final double labelSmoothing;
  private final StepState state;
  private final Tensor softTargets;
  private final ByteBuffer scalars = ByteBuffer.allocateDirect(32).order(ByteOrder.LITTLE_ENDIAN);
  private final Metrics metrics = new Metrics();
  private double gradNorm;
  private int microBatchCount;
  private long number;

  /**
   * Plans the moments into the network's planner, so the network's memory must not be allocated
   * yet. With {@code soft} the loss is that of {@link #softTargets}, and {@code labelSmoothing} is
   * ignored.
   */
  public TrainStep(
      Network network, OptimizerConfig optimizerConfig, double labelSmoothing, boolean soft) {
    this.network = network;
    this.labelSmoothing = labelSmoothing;
    Planner planner = network.planner();
    backend = planner.backend();
    state = planner.step();
    softTargets = soft ? planner.keep(network.logits().shape(), DType.F32) : null;
    optimizer =
        new Optimizer(
            backend,
            optimizerConfig,
            planner.flatParameters(),
            planner.flatGradients(),
            planner::flatLike,
            segments(planner.parameters(), optimizerConfig));
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

  /** Target probabilities of the coming micro-batch, [N,classes]; null without {@code soft}. */
  public Tensor softTargets() {
    return softTargets;
  }

  public Optimizer optimizer() {
    return optimizer;
  }

  /** Starts step {@code number} (from 1) with learning rate {@code lr}. */
  public void begin(long number, double lr) {
    this.number = number;
    microBatchCount = 0;
    scalars.clear().putDouble(lr).putDouble((double) number).putDouble(0).putDouble(0).flip();
    backend.write(state.state(), scalars);
  }

  /**
   * Forward, loss and backward of {@code n} images out of the step's {@code batchImages}; gradients
   * accumulate.
   */
  public void microBatch(int n, int batchImages) {
    GradMode mode = microBatchCount == 0 ? GradMode.OVERWRITE : GradMode.ACCUMULATE;
    network.forward(n, Pass.TRAIN);
    backend.softmaxXent(
        n,
        state.metrics(),
        network.logitsGradient(),
        network.logits(),
        network.labels(),
        softTargets,
        labelSmoothing,
        1.0 / batchImages,
        mode,
        network.planner().workspace());
    network.backward(n, mode);
    microBatchCount++;
  }

  /**
   * Applies the step: gradient rules, the finiteness check, the optimizer, running statistics, new
   * weight bits. Throws {@link NonFiniteException}, with weights, moments and statistics as they
   * were, if loss or gradient is not finite.
   */
  public void finish() {
    network.applyWeightGradientRules();
    backend.finiteNorm(state, network.planner().flatGradients(), network.planner().workspace());
    optimizer.step(state);
    network.commitStatistics(microBatchCount);
    network.refresh();
    metrics.read(backend, state, scalars);
    backend.read(scalars.clear(), state.state());
    gradNorm = scalars.getDouble(StepState.GRAD_NORM * Double.BYTES);
    if (scalars.getDouble(StepState.NONFINITE * Double.BYTES) != 0) {
      throw new NonFiniteException(number, metrics.loss(), gradNorm);
    }
  }

  /** Sums over the images of the last finished step; overwritten by the next one. */
  public Metrics metrics() {
    return metrics;
  }

  /** Norm over all gradients of the last finished step. */
  public double gradNorm() {
    return gradNorm;
  }

  @Override
  public void close() {
    optimizer.close();
  }
}
