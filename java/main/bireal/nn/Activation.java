package bireal.nn;

import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * What flows between blocks: real values [N,H,W,C], the packed signs that the next block consumes
 * (null if it consumes none), and the place of the gradient (null when planned for evaluation
 * only). {@code slot} says which of the two gradient slots that is.
 */
public record Activation(Tensor real, Tensor bits, Tensor gradient, int slot) {
  /** Kept from forward to backward; {@code next} is the sign that its consumer needs, or null. */
  static Activation keep(Planner planner, Shape shape, Sign next, int slot) {
    return new Activation(
        planner.keep(shape, DType.F32),
        next == null ? null : planner.keep(shape, DType.BITS),
        planner.gradient(shape, slot),
        slot);
  }

  /** H, W, C. */
  public Shape image() {
    return Shape.of(real.shape().dim(1), real.shape().dim(2), real.shape().dim(3));
  }

  public int channels() {
    return (int) real.shape().dim(3);
  }
}
