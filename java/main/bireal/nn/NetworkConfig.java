package bireal.nn;

import bireal.backend.ActivationGradient;
import bireal.backend.WeightGradient;
import java.util.List;
import java.util.Locale;

/**
 * Which network. Input size and channels come from the data. AUTO is replaced by what the family
 * has.
 *
 * @param network the family
 * @param depth 18, 34, or 50 for birealnet
 * @param width channels of the first stage; later stages double it (published: 64)
 * @param classes outputs of the last layer
 * @param stem first layers: 7x7/2 and max-pool, or one 3x3
 * @param weights of the convolutions between stem and head
 * @param nonlinearity what those convolutions see of their input
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
    Weights weights,
    Nonlinearity nonlinearity,
    WeightGradient weightGradient,
    ActivationGradient activationGradient,
    Init init) {
  /**
   * Network families: BIREALNET Liu et al. 2018; XNORNET Rastegari et al. 2016 (row 15); REACTNET
   * Liu et al. 2020 on the Bi-Real structure; REALNET the real-valued twin of birealnet, with its
   * names; RESNET as torchvision has it.
   */
  public enum Family {
    BIREALNET,
    XNORNET,
    REACTNET,
    REALNET,
    RESNET
  }

  /** First layers: IMAGENET 7x7/2 convolution, BN, 3x3/2 max-pool; CIFAR 3x3 convolution, BN. */
  public enum Stem {
    IMAGENET,
    CIFAR
  }

  /**
   * BINARY: alpha sign(W). Weights that are +-1 already have alpha 1, so the network with weights
   * constrained to -1 and +1 is this one with such masters. REAL: as they are (ReActNet's first
   * step).
   */
  public enum Weights {
    AUTO,
    BINARY,
    REAL
  }

  /** SIGN, or what a real-valued twin has in its place; LEAKY_CLIP has slope 0.1 outside. */
  public enum Nonlinearity {
    AUTO,
    SIGN,
    RELU,
    LEAKY_CLIP,
    CLIP
  }

  /**
   * Initial binary weights: PUBLISHED 0.001 U[0,1), KAIMING uniform in +-sqrt(3/fan_in)
   * (symmetric).
   */
  public enum Init {
    PUBLISHED,
    KAIMING
  }

  /** Messages start with the key to blame. */
  public NetworkConfig {
    List<Integer> depths = network == Family.BIREALNET ? List.of(18, 34, 50) : List.of(18, 34);
    check(depths.contains(depth), "depth", depths, network, depth);
    if (width < 1 || width > 1024) {
      throw new IllegalArgumentException("width must be in 1..1024, got " + width);
    }
    if (depth == 50 && width % 4 != 0) {
      throw new IllegalArgumentException(
          "width must be a multiple of 4 for depth 50, whose first block has a convolution of a"
              + " quarter of it, got "
              + width);
    }
    if (classes < 2 || classes > 1_000_000) {
      throw new IllegalArgumentException("classes must be in 2..1000000, got " + classes);
    }
    List<Weights> allowedWeights =
        switch (network) {
          case BIREALNET, XNORNET -> List.of(Weights.BINARY);
          case REACTNET -> List.of(Weights.BINARY, Weights.REAL);
          case REALNET, RESNET -> List.of(Weights.REAL);
        };
    weights = weights == Weights.AUTO ? allowedWeights.get(0) : weights;
    check(allowedWeights.contains(weights), "weights", allowedWeights, network, weights);
    List<Nonlinearity> allowed =
        switch (network) {
          case BIREALNET, XNORNET, REACTNET -> List.of(Nonlinearity.SIGN);
          case REALNET -> List.of(Nonlinearity.RELU, Nonlinearity.LEAKY_CLIP, Nonlinearity.CLIP);
          case RESNET -> List.of(Nonlinearity.RELU);
        };
    nonlinearity =
        nonlinearity == Nonlinearity.AUTO && allowed.size() == 1 ? allowed.get(0) : nonlinearity;
    check(allowed.contains(nonlinearity), "nonlinearity", allowed, network, nonlinearity);
  }

  private static void check(
      boolean condition, String key, List<?> allowed, Family network, Object got) {
    if (!condition) {
      List<String> names = allowed.stream().map(NetworkConfig::spelling).toList();
      int last = names.size() - 1;
      throw new IllegalArgumentException(
          key
              + " must be "
              + (last == 0
                  ? names.get(0)
                  : String.join(", ", names.subList(0, last)) + " or " + names.get(last))
              + " for "
              + spelling(network)
              + ", got "
              + spelling(got));
    }
  }

  private static String spelling(Object value) {
    return value.toString().toLowerCase(Locale.ROOT);
  }
}
