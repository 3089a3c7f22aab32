package bireal.backend;

import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * The scalars of a step, kept in the backend's memory so that a captured step can be replayed.
 * Layout of native/ops/finite_norm/step_state.h and of the metrics of native/ops/softmax_xent.
 *
 * @param state 4 doubles: lr, step (1 for the first), gradient norm, nonfinite (0 or 1)
 * @param metrics 4 doubles: loss sum, top-1 hits, top-5 hits, images
 * @param lossScaleOrNull 4 doubles: scale of the coming backward pass, 1/scale of the last, finite
 *     steps since it changed, and how many of them double it; null where gradients are F32
 */
public record StepState(Tensor state, Tensor metrics, Tensor lossScaleOrNull) {
  public static final Shape SHAPE = Shape.of(4);
  public static final DType DTYPE = DType.F64;
  public static final int LR = 0;
  public static final int STEP = 1;
  public static final int GRAD_NORM = 2;
  public static final int NONFINITE = 3;
  public static final int LOSS_SUM = 0;
  public static final int TOP1 = 1;
  public static final int TOP5 = 2;
  public static final int IMAGES = 3;
  public static final int SCALE = 0;
  public static final int UNSCALE = 1;
  public static final int GOOD_STEPS = 2;
  public static final int GROWTH_INTERVAL = 3;

  /** Without a loss scale. */
  public StepState(Tensor state, Tensor metrics) {
    this(state, metrics, null);
  }
}
