package bireal.backend;

import bireal.tensor.Tensor;

/**
 * What fixes the coefficients of a batch normalisation's backward pass, and the gradients of its
 * parameters, from the batch's sums (native/ops/batch_norm, bwd_coefficients).
 *
 * @param coefficients out: those of {@link Backend#batchNormBwdApply}, [3,C] F32
 * @param dgamma out, [C] F32
 * @param dbeta out, [C] F32
 * @param sums of {@link Backend#batchNormBwdSums}, or of what makes the same on its way
 * @param stats of the forward pass ({@link BatchNormStatistics})
 * @param alphaOrNull scale of the input, [C] F32
 */
public record BatchNormBackward(
    Tensor coefficients,
    Tensor dgamma,
    Tensor dbeta,
    Tensor sums,
    Tensor stats,
    Tensor alphaOrNull,
    Tensor gamma) {}
