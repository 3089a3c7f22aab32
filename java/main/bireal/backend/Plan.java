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

  /** Bytes of workspace that any pass of the op may use. */
  long workspaceBytes();

  /** Which kernel was chosen, for people. */
  String kernelName();

  @Override
  void close();

  /** Binary convolution: bits x bits to integers (native/ops/binary_conv). */
  interface BinaryConv extends Plan {
    Conv2dSpec spec();

    /**
     * Bytes of the kernel's own copy of the weight bits; 0 where it reads them as they are, and
     * they stand for the copy.
     */
    long preparedBytes();

    /** Element type of the output: I16 where R*S*C is below 2^15, else I32. */
    DType valueType();

    /**
     * Whether {@link Backend#binaryConvBatchNormFwd} normalises as it convolves, and so needs no v
     * unless a backward pass comes.
     */
    boolean fusesBatchNorm();

    /** Images and output channels that {@link Gradient#FIXED16} has left to FP32 since planning. */
    long fallbacks();
  }

  /** Real convolution (native/ops/conv2d). */
  interface Conv2d extends Plan {
    Conv2dSpec spec();
  }

  /** Fully connected layer (native/ops/linear). */
  interface Linear extends Plan {
    int C();

    int K();
  }
}
