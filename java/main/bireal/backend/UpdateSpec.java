package bireal.backend;

import bireal.tensor.Tensor;
import java.util.List;

/**
 * What changes at the end of a training step.
 *
 * @param parameters all of them, flat, F32
 * @param gradients theirs, at the same offsets
 * @param trained runs of the flat buffers that the optimizer updates, in order; parameters in no
 *     run are frozen
 * @param binary parameters whose signs the network uses, in the order of the flat buffer
 * @param norms whose running statistics follow the batch's
 * @param momentum with which they do
 */
public record UpdateSpec(
    Tensor parameters,
    Tensor gradients,
    List<Segment> trained,
    List<BinaryParameter> binary,
    List<RunningStatistics> norms,
    double momentum) {
  public UpdateSpec {
    trained = List.copyOf(trained);
    binary = List.copyOf(binary);
    norms = List.copyOf(norms);
  }

  /** Elements [begin, begin + count) of the flat buffers, with weight decay {@code decay} >= 0. */
  public record Segment(long begin, long count, double decay) {}

  /**
   * A parameter w [K,R,S,C] inside the flat buffer, and what is derived from it.
   *
   * @param plan its convolution, or null where there is none to prepare for
   * @param prepared the plan's own copy of the bits; null without a plan
   */
  public record BinaryParameter(
      Tensor w,
      Tensor gradient,
      Tensor bits,
      Tensor alpha,
      WeightGradient rule,
      Plan.BinaryConv plan,
      Tensor prepared) {}

  /** Mean and variance [C] F32; sums [2,C] F64 of {@link BatchNormStatistics}. */
  public record RunningStatistics(Tensor mean, Tensor variance, Tensor sums) {}

  /**
   * Throws IllegalArgumentException unless the segments are in order, do not overlap, lie in the
   * flat buffer and have a decay that is not negative, and the tensors fit each other.
   */
  void check() {
    long count = parameters.shape().count();
    if (trained.isEmpty()) {
      throw new IllegalArgumentException("nothing to train: every parameter is frozen");
    }
    if (gradients.shape().count() != count) {
      throw new IllegalArgumentException("gradients " + gradients + " of parameters " + parameters);
    }
    long end = 0;
    for (Segment segment : trained) {
      if (segment.begin < end
          || segment.count < 1
          || segment.begin + segment.count > count
          || !(segment.decay >= 0)) {
        throw new IllegalArgumentException(
            segment + " does not fit behind " + end + " in " + count + " parameters");
      }
      end = segment.begin + segment.count;
    }
    for (BinaryParameter b : binary) {
      if (b.w.buffer() != parameters.buffer()
          || b.gradient.buffer() != gradients.buffer()
          || b.w.offsetBytes() - parameters.offsetBytes()
              != b.gradient.offsetBytes() - gradients.offsetBytes()
          || !b.bits.shape().equals(b.w.shape())
          || b.alpha.shape().count() != b.w.shape().dim(0)) {
        throw new IllegalArgumentException(
            "binary parameter "
                + b.w
                + " with bits "
                + b.bits
                + " and alpha "
                + b.alpha
                + " does not lie in the flat buffers, or does not fit");
      }
    }
    for (RunningStatistics norm : norms) {
      long c = norm.mean.shape().count();
      if (norm.variance.shape().count() != c || norm.sums.shape().count() != 2 * c) {
        throw new IllegalArgumentException(
            "running mean "
                + norm.mean
                + " with variance "
                + norm.variance
                + " and sums "
                + norm.sums);
      }
    }
  }
}
