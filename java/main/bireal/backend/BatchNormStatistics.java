package bireal.backend;

import bireal.tensor.Tensor;

/**
 * What fixes scale and shift of a batch normalisation from the batch's sums (native/ops/batch_norm,
 * statistics).
 *
 * @param stats out: mean, variance and 1/deviation, [3,C] F64
 * @param affine out: scale and shift, [2,C] F32
 * @param runningSums added to: what {@link Backend#batchNormCommit} needs, [2,C] F64
 * @param sums of {@link Backend#batchNormSums}, or I64 [1,2,C] of a binary convolution
 * @param alphaOrNull scale of the input, [C] F32
 */
public record BatchNormStatistics(
    Tensor stats,
    Tensor affine,
    Tensor runningSums,
    Tensor sums,
    Tensor alphaOrNull,
    Tensor gamma,
    Tensor beta,
    double eps) {}
