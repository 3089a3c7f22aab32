package bireal.nn;

/**
 * A part of a block that owns parameters or a plan. It registers with the planner ({@link
 * Planner#own}), so that what is done once a step, for all alike, is no concern of the blocks.
 */
interface Layer extends AutoCloseable {
  /** Parameters have changed: renews what is derived from them. */
  default void refresh() {}

  /** Turns dL/dWb of binary weights into the gradient of their masters. */
  default void applyWeightGradientRule() {}

  /** As {@link bireal.backend.Plan.BinaryConv#fallbacks}. */
  default long fallbacks() {
    return 0;
  }

  /** Publishes the step's batch statistics to the running ones, unless the step was not finite. */
  default void commitStatistics(int microBatchCount) {}

  @Override
  default void close() {}
}
