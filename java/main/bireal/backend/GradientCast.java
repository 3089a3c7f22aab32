package bireal.backend;

import bireal.tensor.Tensor;

/** A weight gradient as a plan's pass writes it ({@link Plan#gradientType}), and the F32 one. */
public record GradientCast(Tensor gradient, Tensor rounded) {}
