package bireal.nn;

/** What a forward pass is for. */
public enum Pass {
  /** Batch statistics; activations are kept for the backward pass. */
  TRAIN,
  /** Running statistics; nothing is kept. */
  EVALUATE
}
