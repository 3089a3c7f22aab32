package bireal.nn;

import bireal.backend.Backend;
import bireal.backend.GradMode;
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
  private final Tensor stats;
  private final Tensor affine;
  private final Tensor runningSums;
  private final Tensor sums;
  private final Tensor backwardSums;
  private final Tensor coefficients;

  /**
   * Registers the five published entries; {@code sumType}: I64 behind a binary convolution, F64
   * behind a real one.
   */
  BatchNorm2d(Planner planner, String name, int channels, DType sumType) {
    this.planner = planner;
    this.backend = planner.backend();
    this.channels = channels;
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
    sums = planner.persist(Shape.of(2, channels), sumType);
    backwardSums = planner.persist(Shape.of(2, channels), DType.F64);
    coefficients = planner.persist(Shape.of(3, channels), DType.F32);
    planner.needWorkspace(backend.batchNormWorkspaceBytes(channels));
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

  /** scale and shift of the coming application. */
  Tensor affine() {
    return affine;
  }

  /** Fixes scale and shift from {@link #sums}, or from the running statistics when evaluating. */
  void prepare(int n, Tensor v, Tensor alphaOrNull, Pass pass) {
    if (pass == Pass.TRAIN) {
      backend.batchNormStatistics(
          stats,
          affine,
          runningSums,
          sums,
          alphaOrNull,
          gamma.value(),
          beta.value(),
          rows(n, v),
          EPS);
    } else {
      backend.batchNormInference(
          affine,
          runningMean.value(),
          runningVar.value(),
          alphaOrNull,
          gamma.value(),
          beta.value(),
          EPS);
    }
  }

  /** {@link #prepare} for a real v, whose sums nobody has made yet. */
  void prepareReal(int n, Tensor v, Pass pass) {
    if (pass == Pass.TRAIN) {
      backend.batchNormSums(n, sums, v, planner.workspace());
    }
    prepare(n, v, null, pass);
  }

  /** dz (gradient of alpha v) from dy; dz may be dy. Also the gradients of gamma and beta. */
  void backward(int n, Tensor dz, Tensor dy, Tensor v, Tensor alphaOrNull, GradMode mode) {
    backwardSums(n, dy, v);
    backwardFromSums(n, dz, dy, v, alphaOrNull, mode);
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
  void backwardFromSums(int n, Tensor dz, Tensor dy, Tensor v, Tensor alphaOrNull, GradMode mode) {
    backend.batchNormBwdCoefficients(
        coefficients,
        gamma.gradient(),
        beta.gradient(),
        backwardSums,
        stats,
        alphaOrNull,
        gamma.value(),
        rows(n, v),
        mode);
    backend.batchNormBwdApply(n, dz, dy, v, coefficients);
  }

  @Override
  public void commitStatistics(int microBatchCount) {
    backend.batchNormCommit(
        runningMean.value(),
        runningVar.value(),
        runningSums,
        planner.step().state(),
        microBatchCount,
        MOMENTUM);
  }

  private long rows(int n, Tensor v) {
    return n * v.shape().innerCount() / channels;
  }
}
