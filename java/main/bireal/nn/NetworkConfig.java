package bireal.nn;

import bireal.backend.ActivationGradient;
import bireal.backend.WeightGradient;

/**
 * Which network. Input size and channels come from the data.
 *
 * @param network the family
 * @param depth 18 or 34
 * @param width channels of the first stage; later stages double it (published: 64)
 * @param classes outputs of the last layer
 * @param stem first layers: 7x7/2 and max-pool, or one 3x3
 * @param weightGradient rule for binary weights (docs/decisions.md, row 3)
 * @param activationGradient surrogate gradient of the sign (row 4)
 * @param init initial binary weights (row 7)
 */
public record NetworkConfig(
    Family network,
    int depth,
    int width,
    int classes,
    Stem stem,
    WeightGradient weightGradient,
    ActivationGradient activationGradient,
    Init init) {
  /** Network families. */
  public enum Family {
    BIREALNET
  }

  /** First layers: IMAGENET 7x7/2 convolution, BN, 3x3/2 max-pool; CIFAR 3x3 convolution, BN. */
  public enum Stem {
    IMAGENET,
    CIFAR
  }

  /**
   * Initial binary weights: PUBLISHED 0.001 U[0,1), KAIMING uniform in +-sqrt(3/fan_in)
   * (symmetric).
   */
  public enum Init {
    PUBLISHED,
    KAIMING
  }

  public NetworkConfig {
    if (depth != 18 && depth != 34) {
      throw new IllegalArgumentException("depth must be 18 or 34, got " + depth);
    }
    if (width < 1 || width > 1024) {
      throw new IllegalArgumentException("width must be in 1..1024, got " + width);
    }
    if (classes < 2 || classes > 1_000_000) {
      throw new IllegalArgumentException("classes must be in 2..1000000, got " + classes);
    }
  }
}
