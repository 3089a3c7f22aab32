package bireal.nn;

import bireal.backend.GradMode;

/**
 * A piece of a network between two activations. Built, then planned once with its input and the
 * sign that its successor consumes, then run many times; backward needs the forward pass of the
 * same images before it. Its layers belong to the planner.
 */
interface Block {
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
}
