package bireal.train;

import java.util.List;

/**
 * Where the weights of a stage come from. Nothing is taken over or left out silently: what the
 * source lacks must be in {@code fresh}, what it has beyond the network in {@code dropped}.
 *
 * @param from {@link #NOTHING}, {@link #PREVIOUS}, or the path of a run folder (its best
 *     checkpoint, else its newest), of a checkpoint, or of a safetensors file
 * @param fresh names of tensors that start as drawn from the seed, whether the source has them or
 *     not; * stands for anything
 * @param dropped names of tensors of the source that are left out
 * @param binaryWeights what is done to the weights of binary convolutions once they are there
 */
public record StartConfig(
    String from, List<String> fresh, List<String> dropped, BinaryWeights binaryWeights) {
  /** Drawn from the seed. */
  public static final String NOTHING = "nothing";

  /** The last weights of the stage before, as ReActNet's second step takes those of its first. */
  public static final String PREVIOUS = "previous";

  /** A stage that starts from the seed. */
  public static final StartConfig FROM_SEED =
      new StartConfig(NOTHING, List.of(), List.of(), BinaryWeights.KEPT);

  /**
   * KEPT: as the source has them; SIGN: replaced by -1 and +1, so that their scale alpha is 1 and
   * is lost; FOLDED: likewise, but the scale goes into the batch normalisation behind, so that
   * inference is the same function (docs/decisions.md, row 19).
   */
  public enum BinaryWeights {
    KEPT,
    SIGN,
    FOLDED
  }

  public StartConfig {
    fresh = List.copyOf(fresh);
    dropped = List.copyOf(dropped);
    if (from.isBlank()) {
      throw new IllegalArgumentException(
          "from must be nothing, previous, or a run folder, checkpoint or safetensors file; got no"
              + " name");
    }
    if (from.equals(NOTHING) && !fresh.isEmpty()) {
      throw new IllegalArgumentException(
          "fresh must be [] where start.from is nothing: every tensor is fresh then; got " + fresh);
    }
    if (from.equals(NOTHING) && !dropped.isEmpty()) {
      throw new IllegalArgumentException(
          "dropped must be [] where start.from is nothing; got " + dropped);
    }
    if (from.equals(NOTHING) && binaryWeights != BinaryWeights.KEPT) {
      throw new IllegalArgumentException(
          "binary_weights must be kept where start.from is nothing: nothing is trained yet");
    }
  }

  /** Whether {@code from} is a path. */
  public boolean fromFile() {
    return !from.equals(NOTHING) && !from.equals(PREVIOUS);
  }
}
