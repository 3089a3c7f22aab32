package bireal.train;

import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.backend.StepState;
import bireal.backend.Tensors;
import bireal.backend.UpdateSpec;
import bireal.nn.Network;
import bireal.nn.Parameter;
import bireal.nn.Pass;
import bireal.nn.Planner;
import bireal.optim.Optimizer;
import bireal.optim.OptimizerConfig;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * One optimizer step over micro-batches, on a network planned for training: {@link #begin}, {@link
 * #microBatch} for each but the last, {@link #lastMicroBatch}, {@link #finish}. The caller fills
 * {@link Network#input} and {@link Network#labels} before each micro-batch. Owns the optimizer, not
 * the network.
 */
public final class TrainStep implements AutoCloseable {
  private final Backend backend;
  private final Network network;
  private final Optimizer optimizer;
  private final double labelSmoothing;
  private final StepState state;
  private final double temperature;
  private final Tensor teacherLogits;
  private final ByteBuffer scalars = ByteBuffer.allocateDirect(32).order(ByteOrder.LITTLE_ENDIAN);
  private final Metrics metrics = new Metrics();
  private double gradNorm;
  private long skippedSteps;
  private int microBatchCount;
  private long number;

  // Arguments of what a GPU records and replays; their work is made once, as a step allocates
  // nothing.
  private int n;
  private int batchImages;
  private GradMode mode = GradMode.OVERWRITE;
  private boolean updated;
  private final Runnable microBatchWork = this::runMicroBatch;
  private final Runnable lastMicroBatchWork = this::runLastMicroBatch;
  private final Runnable updateWork = this::runUpdate;

  /**
   * Plans the moments into the network's planner, so the network's memory must not be allocated
   * yet. With {@code soft} the loss is the cross-entropy with {@link #teacherLogits} at temperature
   * 1, and {@code labelSmoothing} is ignored.
   */
  public TrainStep(
      Network network, OptimizerConfig optimizerConfig, double labelSmoothing, boolean soft) {
    this(network, optimizerConfig, labelSmoothing, soft, 1);
  }

  /** As above, with the temperature of both softmaxes, student's and teacher's. */
  TrainStep(
      Network network,
      OptimizerConfig optimizerConfig,
      double labelSmoothing,
      boolean soft,
      double temperature) {
    this.network = network;
    this.labelSmoothing = labelSmoothing;
    this.temperature = temperature;
    Planner planner = network.planner();
    backend = planner.backend();
    state = planner.step();
    teacherLogits = soft ? planner.keep(network.logits().shape(), planner.real()) : null;
    optimizer =
        new Optimizer(
            backend,
            optimizerConfig,
            planner::flatLike,
            planner.updateSpec(segments(planner.parameters(), optimizerConfig)));
  }

  /**
   * Parameters that are not frozen, each with its decay, in the order of the flat buffer (the last
   * parameter first).
   */
  private static List<UpdateSpec.Segment> segments(
      List<Parameter> parameters, OptimizerConfig config) {
    NamePatterns frozen = new NamePatterns("optimizer.frozen", config.frozen());
    List<UpdateSpec.Segment> segments = new ArrayList<>();
    for (int i = parameters.size() - 1; i >= 0; i--) {
      Parameter parameter = parameters.get(i);
      if (frozen.matches(parameter.name())) {
        continue;
      }
      boolean decays =
          config.decayed().includes(parameter.name(), parameter.publishedDims().length);
      segments.add(
          new UpdateSpec.Segment(
              parameter.value().offsetBytes() / Float.BYTES,
              parameter.shape().count(),
              decays ? config.weightDecay() : 0));
    }
    frozen.requireAllUsed(parameters.stream().map(Parameter::name).toList());
    if (segments.isEmpty()) {
      throw new IllegalArgumentException(
          "optimizer.frozen "
              + config.frozen()
              + " freezes every parameter: nothing is left to train");
    }
    return segments;
  }

  /** The teacher's logits for the coming micro-batch, [N,classes]; null without {@code soft}. */
  public Tensor teacherLogits() {
    return teacherLogits;
  }

  public Optimizer optimizer() {
    return optimizer;
  }

  /**
   * Loss scale and its counters as {@link StepState} orders them; empty where gradients are F32. A
   * checkpoint keeps them.
   */
  public List<Double> lossScale() {
    return state.lossScaleOrNull() == null
        ? List.of()
        : Arrays.stream(Tensors.doubles(backend, state.lossScaleOrNull())).boxed().toList();
  }

  /**
   * Once the memory is allocated: {@code saved} of {@link #lossScale}, or, where that is empty, the
   * values to start with (65536, doubled after 2000 finite steps, as PyTorch's GradScaler).
   */
  public void startLossScale(List<Double> saved) {
    if (state.lossScaleOrNull() != null) {
      Tensors.write(
          backend,
          state.lossScaleOrNull(),
          saved.isEmpty()
              ? new double[] {65536, 1 / 65536.0, 0, 2000}
              : saved.stream().mapToDouble(Double::doubleValue).toArray());
    }
  }

  /** Steps of this process whose gradient overflowed, so that only the loss scale changed. */
  public long skippedSteps() {
    return skippedSteps;
  }

  /** Starts step {@code number} (from 1) with learning rate {@code lr}. */
  public void begin(long number, double lr) {
    this.number = number;
    microBatchCount = 0;
    updated = false;
    scalars.clear().putDouble(lr).putDouble((double) number).putDouble(0).putDouble(0).flip();
    backend.write(state.state(), scalars);
  }

  /**
   * Forward, loss and backward of {@code n} images out of the step's {@code batchImages}; gradients
   * accumulate.
   */
  public void microBatch(int n, int batchImages) {
    prepare(n, batchImages);
    backend.replay(microBatchWork, ((long) batchImages << 32) | ((long) n << 1) | mode.code);
  }

  /**
   * As {@link #microBatch}, and the update in one go: a step of one micro-batch is one graph.
   * Without it {@link #finish} updates, and gradients can be looked at in between.
   */
  public void lastMicroBatch(int n, int batchImages) {
    if (batchImages >= 1 << 24 || n >= 1 << 20 || microBatchCount + 1 >= 1 << 20) { // of the key
      throw new IllegalArgumentException(
          "a step takes fewer than 2^24 images, 2^20 micro-batches of fewer than 2^20, got "
              + String.join(", ", "" + batchImages, "" + (microBatchCount + 1), "" + n));
    }
    prepare(n, batchImages);
    backend.replay(
        lastMicroBatchWork, ((long) batchImages << 40) | ((long) n << 20) | microBatchCount);
    updated = true;
  }

  private void prepare(int n, int batchImages) {
    this.n = n;
    this.batchImages = batchImages;
    mode = microBatchCount == 0 ? GradMode.OVERWRITE : GradMode.ACCUMULATE;
    microBatchCount++;
  }

  private void runMicroBatch() {
    network.forward(n, Pass.TRAIN);
    backend.softmaxXent(
        n,
        state,
        network.logitsGradient(),
        network.logits(),
        network.labels(),
        teacherLogits,
        labelSmoothing,
        temperature,
        1.0 / batchImages,
        mode,
        network.planner().workspace());
    network.backward(n, mode);
  }

  private void runLastMicroBatch() {
    runMicroBatch();
    runUpdate();
  }

  private void runUpdate() {
    optimizer.step(state, microBatchCount, network.planner().workspace());
    network.castWeights();
  }

  /**
   * Applies the step: gradient rules, the finiteness check, the optimizer with new weight bits,
   * running statistics. Throws {@link NonFiniteException}, with weights, moments and statistics as
   * they were, if loss or gradient is not finite.
   */
  public void finish() {
    if (!updated) {
      backend.replay(updateWork, microBatchCount);
    }
    metrics.read(backend, state, scalars);
    backend.read(scalars.clear(), state.state());
    gradNorm = scalars.getDouble(StepState.GRAD_NORM * Double.BYTES);
    if (scalars.getDouble(StepState.NONFINITE * Double.BYTES) != 0) {
      if (!overflowed()) {
        throw new NonFiniteException(number, metrics.loss(), gradNorm);
      }
      skippedSteps++;
    }
  }

  /** Whether only the scale made the gradient infinite; it is smaller now. */
  private boolean overflowed() {
    if (state.lossScaleOrNull() == null || !Double.isFinite(metrics.loss())) {
      return false;
    }
    backend.read(scalars.clear(), state.lossScaleOrNull());
    return scalars.getDouble(StepState.UNSCALE * Double.BYTES) < 1;
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
    backend.forget(microBatchWork);
    backend.forget(lastMicroBatchWork);
    backend.forget(updateWork);
    optimizer.close();
  }
}
