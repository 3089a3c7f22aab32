package bireal.nn;

import bireal.backend.UpdateSpec;

/**
 * A part of a block that owns parameters or a plan. It registers with the planner ({@link
 * Planner#own}), so that what is done once a step, for all alike, is no concern of the blocks.
 */
interface Layer extends AutoCloseable {
  /** Parameters have changed: renews what is derived from them. */
  default void refresh() {}

  /** As {@link bireal.backend.Plan.BinaryConv#fallbacks}. */
  default long fallbacks() {
    return 0;
  }

  /** Its binary weights; null without. */
  default UpdateSpec.BinaryParameter binaryParameter() {
    return null;
  }

  /** Its running statistics; null without. */
  default UpdateSpec.RunningStatistics runningStatistics() {
    return null;
  }

  @Override
  default void close() {}
}
