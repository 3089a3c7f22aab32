package bireal.backend;

import bireal.tensor.Shape;

/**
 * A 2-d convolution over NHWC without its batch: C in, H W, K out, filter R S
 * (native/core/shapes.h). Pooling uses it with K = C.
 */
public record Conv2dSpec(int H, int W, int C, int K, int R, int S, int stride, int pad) {
  /** A square filter. */
  public static Conv2dSpec square(Shape imageHWC, int K, int filter, int stride, int pad) {
    return new Conv2dSpec(
        (int) imageHWC.dim(0),
        (int) imageHWC.dim(1),
        (int) imageHWC.dim(2),
        K,
        filter,
        filter,
        stride,
        pad);
  }

  public int P() {
    return (H + 2 * pad - R) / stride + 1;
  }

  public int Q() {
    return (W + 2 * pad - S) / stride + 1;
  }

  /** Multiply-accumulates of one image; taps in the padding counted, as publications do. */
  public long macs() {
    return (long) P() * Q() * K * R * S * C;
  }

  public Shape input(long n) {
    return Shape.of(n, H, W, C);
  }

  public Shape output(long n) {
    return Shape.of(n, P(), Q(), K);
  }

  /** Elements of {@link #input}. */
  public long inputCount(long n) {
    return n * H * W * C;
  }

  /** Elements of {@link #output}. */
  public long outputCount(long n) {
    return n * P() * Q() * K;
  }

  /** Weights in memory: KRSC. */
  public Shape weights() {
    return Shape.of(K, R, S, C);
  }
}
