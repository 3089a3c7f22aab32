package bireal.nn;

import bireal.backend.GradMode;

/**
 * A piece of a network between two activations. Built, then planned once with its input and the
 * sign that its successor consumes, then run many times; backward needs the forward pass of the
 * same images before it.
 */
interface Block extends AutoCloseable {
  /** The sign this block needs its input packed with; null for none. */
  Sign consumes();

  /**
   * Reserves everything the block needs. Throws IllegalArgumentException for a shape that it cannot
   * take.
   */
  Activation plan(Planner planner, Activation input, Sign next);

  void forward(int n, Pass pass);

  /** From the gradient of the output to that of the input and of the parameters. */
  void backward(int n, GradMode mode);

  /** Weights have changed: renews what is derived from them. */
  void refresh();

  /** Turns dL/dWb of binary weights into the gradient of their masters. */
  void applyWeightGradientRule();

  /** As {@link bireal.backend.Plan.BinaryConv#fallbacks}, of the block's binary convolutions. */
  default long gradientFallbacks() {
    return 0;
  }

  /** Publishes the step's batch statistics to the running ones, unless the step was not finite. */
  void commitStatistics(int microBatchCount);

  @Override
  void close();
}
