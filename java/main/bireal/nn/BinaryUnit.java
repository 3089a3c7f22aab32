package bireal.nn;

import bireal.tensor.Tensor;

/**
 * A binary convolution and what follows it.
 *
 * @param weight the float masters, whose signs the network sees
 * @param alpha scale of each filter, [K]
 * @param norm published prefix of the batch normalisation of its output, such as {@code
 *     layer1.0.bn1}; null if none follows directly
 * @param eps of that normalisation
 */
public record BinaryUnit(Parameter weight, Tensor alpha, String norm, double eps) {}
