package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.BatchNormBackward;
import bireal.backend.BatchNormStatistics;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.UpdateSpec;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * Batch normalisation over [N,H,W,C] (native/ops/batch_norm), its input being v, or alpha v where v
 * is the output of a binary convolution. Splits into statistics, application (fused with what
 * follows by the caller) and backward.
 */
final class BatchNorm2d implements Layer {
  /** PyTorch's defaults, which the published networks use. */
  static final double EPS = 1e-5;

  static final double MOMENTUM = 0.1;

  private final Planner planner;
  private final Backend backend;
  private final int channels;
  private final Parameter gamma;
  private final Parameter beta;
  private final State runningMean;
  private final State runningVar;
  private final Tensor alphaOrNull;
  private final boolean integer;
  private final Tensor stats;
  private final Tensor affine;
  private final Tensor runningSums;
  private final Tensor sums;
  private final Tensor backwardSums;
  private final Tensor coefficients;
  private BatchNormStatistics statistics;
  private BatchNormBackward gradients;

  /**
   * Registers the five published entries. {@code v} is the shape of the largest input; with {@code
   * alphaOrNull} that are integers of a binary convolution, whose epilogue sums them.
   */
  BatchNorm2d(Planner planner, String name, Shape v, Tensor alphaOrNull) {
    this.planner = planner;
    this.backend = planner.passBackend();
    this.channels = (int) v.dim(v.rank() - 1);
    this.alphaOrNull = alphaOrNull;
    this.integer = alphaOrNull != null;
    long rows = v.count() / channels;
    long slices = backend.batchNormSlices(rows, channels);
    Shape vector = Shape.of(channels);
    long[] dims = {channels};
    gamma =
        planner.parameter(
            new Parameter(name + ".weight", dims, vector, State.Order.AS_PUBLISHED, 1, 1));
    beta =
        planner.parameter(
            new Parameter(name + ".bias", dims, vector, State.Order.AS_PUBLISHED, 0, 0));
    runningMean =
        planner.state(
            new State(name + ".running_mean", dims, vector, State.Order.AS_PUBLISHED), DType.F32);
    runningVar =
        planner.state(
            new State(name + ".running_var", dims, vector, State.Order.AS_PUBLISHED), DType.F32);
    planner.state(new BatchCount(name + ".num_batches_tracked"), DType.I64);
    stats = planner.persist(Shape.of(3, channels), DType.F64);
    affine = planner.persist(Shape.of(2, channels), DType.F32);
    runningSums = planner.persist(Shape.of(2, channels), DType.F64);
    sums =
        planner.persist(
            Shape.of(integer ? 1 : slices, 2, channels), integer ? DType.I64 : DType.F64);
    backwardSums = planner.persist(Shape.of(slices, 2, channels), DType.F64);
    coefficients = planner.persist(Shape.of(3, channels), DType.F32);
    planner.needWorkspace(backend.batchNormWorkspaceBytes(rows, channels));
    planner.own(this);
  }

  /** The published counter of training steps: a 0-dimensional int64. */
  static final class BatchCount extends State {
    BatchCount(String name) {
      super(name, new long[0], Shape.of(1), Order.AS_PUBLISHED);
    }

    @Override
    public DType dtype() {
      return DType.I64;
    }
  }

  long parameterCount() {
    return 2L * channels;
  }

  /** Where a convolution's epilogue puts sum and sum of squares of its integers. */
  Tensor sums() {
    return sums;
  }

  Tensor gamma() {
    return gamma.value();
  }

  /** scale and shift of the coming application. */
  Tensor affine() {
    return affine;
  }

  /**
   * What {@link Backend#batchNormApply} has to do first: fix scale and shift from the sums of the
   * convolution's epilogue; null where {@link #prepare} has done it.
   */
  BatchNormStatistics pending(Pass pass) {
    return pass == Pass.TRAIN && integer ? statistics() : null;
  }

  /** Made once: the parameters have their memory only after planning. */
  private BatchNormStatistics statistics() {
    if (statistics == null) {
      statistics =
          new BatchNormStatistics(
              stats, affine, runningSums, sums, alphaOrNull, gamma.value(), beta.value(), EPS);
    }
    return statistics;
  }

  /**
   * Fixes scale and shift from the sums over a real v, or, when evaluating, from the running
   * statistics; see {@link #pending}.
   */
  void prepare(int n, Tensor v, Pass pass) {
    if (pass == Pass.EVALUATE) {
      prepareInference();
    } else if (!integer) {
      backend.batchNormSums(n, sums, v, planner.workspace());
      backend.batchNormStatistics(statistics(), rows(n, v));
    }
  }

  /** A network that only evaluates fixes them once: its passes write nothing that they share. */
  @Override
  public void refresh() {
    if (!planner.training()) {
      fixInference();
    }
  }

  private void prepareInference() {
    if (planner.training()) {
      fixInference();
    }
  }

  private void fixInference() {
    backend.batchNormInference(
        affine,
        runningMean.value(),
        runningVar.value(),
        alphaOrNull,
        gamma.value(),
        beta.value(),
        EPS);
  }

  /** dz (gradient of alpha v) from dy; dz may be dy. Also the gradients of gamma and beta. */
  void backward(int n, Tensor dz, Tensor dy, Tensor v, GradMode mode) {
    backwardSums(n, dy, v);
    backwardFromSums(n, dz, dy, v, mode);
  }

  /** Fills {@link #backwardSums()}. */
  void backwardSums(int n, Tensor dy, Tensor v) {
    backend.batchNormBwdSums(n, backwardSums, dy, v, planner.workspace());
  }

  /** Sums over dy and dy v, which an op in front may make on its way. */
  Tensor backwardSums() {
    return backwardSums;
  }

  /** As {@link #backward}, from {@link #backwardSums()} of the same dy and v. */
  void backwardFromSums(int n, Tensor dz, Tensor dy, Tensor v, GradMode mode) {
    backend.batchNormBwdCoefficients(gradients(), null, rows(n, v), rows(n, v), mode);
    backend.batchNormBwdApply(n, dz, dy, v, coefficients, null, null, null);
  }

  /**
   * The same together with the normalisation {@code other} of a shortcut, which was added to this
   * one and so has the same dy: each op does its work for both.
   */
  void backwardFromSums(
      int n,
      Tensor dz,
      Tensor dy,
      Tensor v,
      BatchNorm2d other,
      Tensor otherDz,
      Tensor otherV,
      GradMode mode) {
    backend.batchNormBwdCoefficients(gradients(), other.gradients(), rows(n, v), rows(n, v), mode);
    backend.batchNormBwdApply(n, dz, dy, v, coefficients, otherDz, otherV, other.coefficients);
  }

  /**
   * As {@link #prepare} where the normalisation of v comes behind a max-pool (which then is that of
   * fewer values): makes the winners {@code vmax}, on which to apply, and their {@code index}.
   */
  void prepareMaxPool(Conv2dSpec pool, int n, Tensor vmax, Tensor index, Tensor v, Pass pass) {
    boolean train = pass == Pass.TRAIN;
    backend.batchNormMaxPoolFwd(
        pool, n, vmax, index, train ? sums : null, v, gamma.value(), planner.workspace());
    if (train) {
      backend.batchNormStatistics(statistics(), rows(n, v));
    } else {
      prepareInference();
    }
  }

  /**
   * As {@link #backwardFromSums} behind a max-pool: the sums are of dy and vmax, the statistics of
   * v.
   */
  void backwardMaxPool(
      Conv2dSpec pool, int n, Tensor dz, Tensor dy, Tensor index, Tensor v, GradMode mode) {
    backend.batchNormBwdCoefficients(gradients(), null, rows(n, dy), rows(n, v), mode);
    backend.batchNormMaxPoolBwdApply(pool, n, dz, dy, index, v, coefficients);
  }

  /** Made once, as {@link #statistics}. */
  private BatchNormBackward gradients() {
    if (gradients == null) {
      gradients =
          new BatchNormBackward(
              coefficients,
              gamma.gradient(),
              beta.gradient(),
              backwardSums,
              stats,
              alphaOrNull,
              gamma.value());
    }
    return gradients;
  }

  @Override
  public UpdateSpec.RunningStatistics runningStatistics() {
    return new UpdateSpec.RunningStatistics(runningMean.value(), runningVar.value(), runningSums);
  }

  private long rows(int n, Tensor v) {
    return n * v.shape().innerCount() / channels;
  }
}
