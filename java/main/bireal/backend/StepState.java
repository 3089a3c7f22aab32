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
 */
public record StepState(Tensor state, Tensor metrics) {
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
}
