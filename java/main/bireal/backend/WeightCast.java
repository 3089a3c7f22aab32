package bireal.backend;

import bireal.tensor.Tensor;

/**
 * Weights as a plan's passes take them ({@link Plan#weightType}), of the same shape as their F32
 * masters {@code w}: rounded, or, with {@code alphaOrNull} [K], alpha times their sign.
 */
public record WeightCast(Tensor operand, Tensor w, Tensor alphaOrNull) {}
