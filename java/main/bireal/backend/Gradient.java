package bireal.backend;

/**
 * Arithmetic of the backward passes of binary convolutions; codes of native/ops/binary_conv.
 *
 * <p>FIXED16 rounds the gradient of an image (towards the input) or of an output channel (towards
 * the weights) to 16-bit fixed point and adds up exact integers: an error of at most half a step
 * for each term, a step being the largest value / 32767. An image or channel whose largest value is
 * more than 400 times its root mean square goes through FP32 and is counted ({@link
 * Plan.BinaryConv#fallbacks}).
 *
 * <p>AUTO is FIXED16 on the CPU and FP32 on a GPU, which has no fixed point.
 */
public enum Gradient {
  FP32(0),
  FIXED16(1),
  AUTO(-1);

  /** Code of a plan without backward passes. */
  public static final int NONE = 2;

  public final int code;

  Gradient(int code) {
    this.code = code;
  }
}
