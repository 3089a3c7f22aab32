package bireal.nn;

import bireal.tensor.Tensor;

/**
 * The sign that a block consumes; its producer packs it. {@code threshold} (one value per channel,
 * added before the sign) is null for the plain sign.
 */
public record Sign(Parameter threshold) {
  public static final Sign PLAIN = new Sign(null);

  /** Of {@code signOrNull}; null where there is none. */
  static Tensor thresholdOf(Sign signOrNull) {
    return signOrNull == null || signOrNull.threshold() == null
        ? null
        : signOrNull.threshold().value();
  }
}
