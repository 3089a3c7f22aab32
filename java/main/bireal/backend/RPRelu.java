package bireal.backend;

import bireal.tensor.Tensor;

/**
 * The tensors of RPReLU (native/ops/batch_norm, apply), or their gradients; each [C] F32.
 *
 * @param bias1 added before the PReLU
 * @param slope where the sum is not positive
 * @param bias2 added behind it
 */
public record RPRelu(Tensor bias1, Tensor slope, Tensor bias2) {}
