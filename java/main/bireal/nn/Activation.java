package bireal.nn;

import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * What flows between blocks: real values [N,H,W,C], the packed signs that the next block consumes
 * (null if it consumes none), and the place of the gradient (null when planned for evaluation
 * only). {@code slot} says which of the two gradient slots that is. {@code v} and {@code sums}, or
 * null, are input and {@link BatchNorm2d#backwardSums()} of the normalisation that made {@code
 * real}: its consumer sums while it writes the gradient. {@code secondV} and {@code secondSums}, or
 * null, are those of the shortcut's normalisation, where one was added.
 */
public record Activation(
    Tensor real,
    Tensor bits,
    Tensor gradient,
    int slot,
    Tensor v,
    Tensor sums,
    Tensor secondV,
    Tensor secondSums) {
  Activation(Tensor real, Tensor bits, Tensor gradient, int slot) {
    this(real, bits, gradient, slot, null, null, null, null);
  }

  /** Kept from forward to backward; {@code next} is the sign that its consumer needs, or null. */
  static Activation keep(Planner planner, Shape shape, Sign next, int slot) {
    return new Activation(
        planner.keep(shape, planner.real()),
        next == null ? null : planner.keep(shape, DType.BITS),
        planner.gradient(shape, slot),
        slot);
  }

  /** The same, made by {@code norm} from {@code v}, for a consumer that takes its signs. */
  Activation summedFor(BatchNorm2d norm, Tensor v) {
    return summedFor(norm, v, null, null);
  }

  /** With {@code secondOrNull} of {@code secondV}, which was added. */
  Activation summedFor(BatchNorm2d norm, Tensor v, BatchNorm2d secondOrNull, Tensor secondV) {
    if (bits == null || gradient == null) {
      return this;
    }
    return secondOrNull == null
        ? new Activation(real, bits, gradient, slot, v, norm.backwardSums(), null, null)
        : new Activation(
            real,
            bits,
            gradient,
            slot,
            v,
            norm.backwardSums(),
            secondV,
            secondOrNull.backwardSums());
  }

  /** H, W, C. */
  public Shape image() {
    return Shape.of(real.shape().dim(1), real.shape().dim(2), real.shape().dim(3));
  }

  public int channels() {
    return (int) real.shape().dim(3);
  }
}
