package bireal.backend;

import bireal.tensor.Buffer;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;

/**
 * What a device must be able to do: memory, and the ops of native/ops, whose headers are the
 * specification of every method here (formula, shapes, order, aliasing). Outputs come first. {@code
 * n} is the number of images of this run; tensors are planned for the largest batch, so their first
 * n images are used. "or null" arguments may be null.
 *
 * <p>Calls check device, element type, shape and open state, then run; they throw
 * IllegalArgumentException for a wrong shape, IllegalStateException for a closed buffer and {@link
 * bireal.runtime.DeviceException} if the device fails. One thread at a time. Owned by whoever
 * opened it; close() frees what it still holds.
 */
public interface Backend extends AutoCloseable {
  /** For people and logs, e.g. {@code cpu (avx512, 2 threads)}. */
  String description();

  /** Bytes that can still be allocated, as far as the system tells. */
  long availableBytes();

  /**
   * How many images an evaluation pass takes through a network at a time. Does not change a bit of
   * any image's result.
   */
  int evaluationImages();

  /**
   * Zero-filled memory, 64-byte aligned. Throws OutOfMemoryError naming {@code what} and the bytes.
   */
  Buffer allocate(long bytes, String what);

  /**
   * Copies the whole of {@code source} (little-endian, direct or heap) to the start of {@code
   * target}.
   */
  void write(Tensor target, ByteBuffer source);

  /** Fills {@code target} with the first bytes of {@code source}. */
  void read(ByteBuffer target, Tensor source);

  /** Sets every byte to 0. */
  void zero(Tensor target);

  /** Same element type and count. */
  void copy(Tensor target, Tensor source);

  /** Without {@code gradientOrNull} the plan has no backward passes. */
  Plan.BinaryConv planBinaryConv(Conv2dSpec spec, int maxImages, Gradient gradientOrNull);

  Plan.Conv2d planConv2d(Conv2dSpec spec, int maxImages);

  Plan.Linear planLinear(int C, int K, int maxImages);

  // sign_pack, weight_binarize

  void signPackFwd(int n, Tensor bits, Tensor x, Tensor thresholdOrNull);

  /** x is -1 where a bit is set, else +1. */
  void signUnpackFwd(int n, Tensor x, Tensor bits);

  /** w [K,R,S,C] to bits [K,R,S,C] and alpha [K]. */
  void weightBinarizeFwd(Tensor bits, Tensor alpha, Tensor w);

  /** Applies the rule to dw in place. */
  void weightGradient(Tensor dw, Tensor w, Tensor alpha, WeightGradient rule);

  // binary_conv

  void binaryConvPrepare(Plan.BinaryConv plan, Tensor prepared, Tensor wBits);

  /** v [n,P,Q,K] of the plan's value type; sums [2,K] I64 or null. */
  void binaryConvFwd(
      Plan.BinaryConv plan,
      int n,
      Tensor v,
      Tensor sumsOrNull,
      Tensor xBits,
      Tensor prepared,
      Tensor workspace);

  void binaryConvBwdInput(
      Plan.BinaryConv plan,
      int n,
      Tensor dx,
      Tensor dz,
      Tensor alpha,
      Tensor wBits,
      Tensor workspace);

  void binaryConvBwdWeight(
      Plan.BinaryConv plan,
      int n,
      Tensor dw,
      Tensor xBits,
      Tensor dz,
      GradMode mode,
      Tensor workspace);

  // approx_sign

  /** Where a threshold's gradient is wanted. */
  long approxSignWorkspaceBytes(int C);

  /** {@code mode} and {@code workspace} are those of the threshold's gradient. */
  void approxSignBwd(
      int n,
      Tensor dx,
      Tensor dthresholdOrNull,
      Tensor db,
      Tensor x,
      Tensor thresholdOrNull,
      Tensor shortcutOrNull,
      ActivationGradient kind,
      GradMode mode,
      Tensor workspace);

  // batch_norm; v is F32, I16 or I32; sums [2,C] are F64 for F32 and I64 for integers

  long batchNormWorkspaceBytes(int C);

  void batchNormSums(int n, Tensor sums, Tensor v, Tensor workspace);

  /** stats [3,C] F64, affine [2,C] F32, runningSums [2,C] F64; {@code rows} = n*H*W. */
  void batchNormStatistics(
      Tensor stats,
      Tensor affine,
      Tensor runningSums,
      Tensor sums,
      Tensor alphaOrNull,
      Tensor gamma,
      Tensor beta,
      long rows,
      double eps);

  void batchNormCommit(
      Tensor runningMean,
      Tensor runningVar,
      Tensor runningSums,
      Tensor state,
      int microBatchCount,
      double momentum);

  void batchNormInference(
      Tensor affine,
      Tensor runningMean,
      Tensor runningVar,
      Tensor alphaOrNull,
      Tensor gamma,
      Tensor beta,
      double eps);

  void batchNormApply(
      int n,
      Tensor y,
      Tensor bitsOrNull,
      Tensor v,
      Tensor affine,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rpreluOrNull,
      Tensor thresholdOrNull);

  /**
   * dz from dy, and in {@code sums} what {@link #batchNormBwdSums} would make of dz; the other
   * arguments as {@link #batchNormApply} had them. dz may be dy.
   */
  void batchNormRPReluBwd(
      int n,
      Tensor dz,
      Tensor sums,
      RPRelu gradients,
      Tensor dy,
      Tensor v,
      Tensor affine,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rprelu,
      GradMode mode,
      Tensor workspace);

  void batchNormBwdSums(int n, Tensor sums, Tensor dy, Tensor v, Tensor workspace);

  void batchNormBwdCoefficients(
      Tensor coefficients,
      Tensor dgamma,
      Tensor dbeta,
      Tensor sums,
      Tensor stats,
      Tensor alphaOrNull,
      Tensor gamma,
      long rows,
      GradMode mode);

  void batchNormBwdApply(int n, Tensor dz, Tensor dy, Tensor v, Tensor coefficients);

  // conv2d, linear

  void conv2dFwd(Plan.Conv2d plan, int n, Tensor y, Tensor x, Tensor w, Tensor workspace);

  void conv2dBwdInput(Plan.Conv2d plan, int n, Tensor dx, Tensor dy, Tensor w, Tensor workspace);

  void conv2dBwdWeight(
      Plan.Conv2d plan, int n, Tensor dw, Tensor x, Tensor dy, GradMode mode, Tensor workspace);

  void linearFwd(
      Plan.Linear plan, int n, Tensor y, Tensor x, Tensor w, Tensor bias, Tensor workspace);

  void linearBwdInput(Plan.Linear plan, int n, Tensor dx, Tensor dy, Tensor w, Tensor workspace);

  void linearBwdWeight(
      Plan.Linear plan,
      int n,
      Tensor dw,
      Tensor dbias,
      Tensor x,
      Tensor dy,
      GradMode mode,
      Tensor workspace);

  // pool2d, activation

  void maxPoolFwd(Conv2dSpec spec, int n, Tensor y, Tensor index, Tensor x);

  void maxPoolBwd(Conv2dSpec spec, int n, Tensor dx, Tensor dy, Tensor index);

  /** Batch norm of a real v [n,H,W,C], max-pool and signs in one pass (native/ops/batch_norm). */
  void batchNormMaxPoolFwd(
      Conv2dSpec spec,
      int n,
      Tensor y,
      Tensor index,
      Tensor bitsOrNull,
      Tensor v,
      Tensor affine,
      Tensor thresholdOrNull);

  void avgPoolFwd(Conv2dSpec spec, int n, Tensor y, Tensor x);

  void avgPoolBwd(Conv2dSpec spec, int n, Tensor dx, Tensor dy);

  void activationFwd(int n, Tensor y, Tensor x, ActivationKind kind, float slope);

  void activationBwd(
      int n,
      Tensor dx,
      Tensor dy,
      Tensor x,
      Tensor shortcutOrNull,
      ActivationKind kind,
      float slope);

  // softmax_xent

  long softmaxXentWorkspaceBytes(int maxImages);

  /**
   * metrics per {@link StepState}; dlogits or null; labels [n] I32; the teacher's logits [n,K] or
   * null, and then temperature is 1.
   */
  void softmaxXent(
      int n,
      Tensor metrics,
      Tensor dlogitsOrNull,
      Tensor logits,
      Tensor labels,
      Tensor teacherLogitsOrNull,
      double smoothing,
      double temperature,
      double gradientScale,
      GradMode mode,
      Tensor workspace);

  // finite_norm, adam, sgd over flat buffers; segments per {@link Segments}

  long finiteNormWorkspaceBytes(long count);

  void finiteNorm(StepState step, Tensor gradients, Tensor workspace);

  void adam(
      Tensor parameters,
      Tensor m,
      Tensor v,
      Tensor gradients,
      Segments segments,
      StepState step,
      double beta1,
      double beta2,
      double eps);

  void sgd(
      Tensor parameters,
      Tensor momentumBuffer,
      Tensor gradients,
      Segments segments,
      StepState step,
      double momentum,
      SgdForm form);

  // image

  /** pixels [n,H0,W0,C] U8, crops [n,3] I32 (top, left, flip), mean and std [C] F64. */
  void imageNormalize(
      ImageSpec spec, int n, Tensor x, Tensor pixels, Tensor crops, Tensor mean, Tensor std);

  @Override
  void close();
}
