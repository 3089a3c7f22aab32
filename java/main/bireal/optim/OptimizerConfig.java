package bireal.optim;

import bireal.backend.SgdForm;
import java.util.List;

/**
 * Which optimizer.
 *
 * @param type ADAM or SGD with momentum
 * @param lr learning rate for {@code referenceBatch} images; scaled by batch / referenceBatch
 * @param referenceBatch batch that {@code lr} is given for
 * @param beta1 Adam
 * @param beta2 Adam
 * @param eps Adam
 * @param momentum SGD
 * @param form SGD: what the momentum buffer holds (docs/decisions.md, row 17)
 * @param weightDecay coupled (added to the gradient), as PyTorch does; 0 in the published Bi-Real
 *     recipe
 * @param decayed which parameters decay
 * @param frozen names of parameters that stay as they are, * standing for anything
 */
public record OptimizerConfig(
    Type type,
    double lr,
    int referenceBatch,
    double beta1,
    double beta2,
    double eps,
    double momentum,
    SgdForm form,
    double weightDecay,
    Decayed decayed,
    List<String> frozen) {
  /** Optimizers. */
  public enum Type {
    ADAM,
    SGD
  }

  /**
   * Parameters that decay: all (PyTorch's default); those with 4 dimensions in the published files
   * (networks.md 1A.5); these and those with "conv" in their name (ReActNet, networks.md 2.4: its
   * per-channel biases have 4 dimensions).
   */
  public enum Decayed {
    ALL,
    FOUR_DIMENSIONAL,
    FOUR_DIMENSIONAL_OR_CONV;

    /** By the name and dimensions of the published file. */
    public boolean includes(String name, int dimensions) {
      return switch (this) {
        case ALL -> true;
        case FOUR_DIMENSIONAL -> dimensions == 4;
        case FOUR_DIMENSIONAL_OR_CONV -> dimensions == 4 || name.contains("conv");
      };
    }
  }

  public OptimizerConfig {
    frozen = List.copyOf(frozen);
    check(lr > 0 && lr < 1e3, "lr must be in (0, 1000), got " + lr);
    check(referenceBatch >= 1, "reference_batch must be >= 1, got " + referenceBatch);
    check(beta1 >= 0 && beta1 < 1, "beta1 must be in [0, 1), got " + beta1);
    check(beta2 >= 0 && beta2 < 1, "beta2 must be in [0, 1), got " + beta2);
    check(eps > 0 && eps < 1, "eps must be in (0, 1), got " + eps);
    check(momentum >= 0 && momentum < 1, "momentum must be in [0, 1), got " + momentum);
    check(
        weightDecay >= 0 && weightDecay < 1, "weight_decay must be in [0, 1), got " + weightDecay);
  }

  /** With every parameter trained. */
  public OptimizerConfig(
      Type type,
      double lr,
      int referenceBatch,
      double beta1,
      double beta2,
      double eps,
      double momentum,
      SgdForm form,
      double weightDecay,
      Decayed decayed) {
    this(
        type,
        lr,
        referenceBatch,
        beta1,
        beta2,
        eps,
        momentum,
        form,
        weightDecay,
        decayed,
        List.of());
  }

  private static void check(boolean condition, String message) {
    if (!condition) {
      throw new IllegalArgumentException(message);
    }
  }
}
