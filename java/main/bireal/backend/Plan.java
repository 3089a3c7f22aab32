package bireal.backend;

import bireal.tensor.DType;

/**
 * An op prepared for one shape and a largest batch; a run takes any n up to it. Owned by whoever
 * planned it; closed with the network.
 */
public interface Plan extends AutoCloseable {
  int maxImages();

  /** Type of its real tensors, weights apart. */
  DType real();

  /**
   * Type of the weights (and bias) that the passes take: F32, the masters, or {@link #real} where a
   * library wants operands of one type; then {@link Backend#castWeights} makes them.
   */
  default DType weightType() {
    return DType.F32;
  }

  /**
   * Type of the weight gradient that a pass writes: F32, or {@link #real} where a library's results
   * have the type of its operands; then the pass overwrites, and {@link Backend#castGradients}
   * follows.
   */
  default DType gradientType() {
    return DType.F32;
  }

  /** Bytes of workspace that any pass of the op may use. */
  long workspaceBytes();

  /** Which kernel was chosen, for people. */
  String kernelName();

  @Override
  void close();

  /** Binary convolution: bits x bits to integers (native/ops/binary_conv). */
  interface BinaryConv extends Plan {
    Conv2dSpec spec();

    /** Of the backward pass of the input: BITS, with alpha, or alpha times the signs as real. */
    @Override
    default DType weightType() {
      return DType.BITS;
    }

    /**
     * Bytes of the kernel's own copy of the weight bits; 0 where it reads them as they are, and
     * they stand for the copy.
     */
    long preparedBytes();

    /** Element type of the output: I16 where R*S*C is below 2^15, else I32. */
    DType valueType();

    /**
     * Whether {@link Backend#binaryConvBatchNormFwd} normalises as it convolves, and so needs no v
     * where no statistics are wanted.
     */
    boolean fusesBatchNorm();

    /** Images and output channels that {@link Gradient#FIXED16} has left to FP32 since planning. */
    long fallbacks();
  }

  /** Real convolution (native/ops/conv2d). */
  interface Conv2d extends Plan {
    Conv2dSpec spec();

    /** Whether {@link Backend#conv2dMaxPoolBatchNormFwd} pools by {@code pool} as it convolves. */
    boolean fusesMaxPool(Conv2dSpec pool);
  }

  /** Fully connected layer (native/ops/linear). */
  interface Linear extends Plan {
    int C();

    int K();
  }
}
