package bireal.backend.cpu;

import bireal.backend.Ops;

/**
 * Every native method of the CPU and reference backends; primitives only, addresses as long.
 * Unchecked: {@link CpuBackend} and its plans are the only callers. {@code context} is the pointer
 * of {@link CpuBackend}'s handle, {@code plan} that of a plan; a null address is 0. Real values are
 * F32, whatever {@code type} says: the backend plans no others.
 */
final class CpuOps implements Ops {
  /** {@code isa} is a code of {@link Isa}, or -1 for BIREAL_ISA or the best of this machine. */
  static native long createContext(int threadCount, int isa, boolean reference);

  static native void destroyContext(long context);

  static native int contextIsa(long context);

  static native long planBinaryConv(
      long context,
      long n,
      long h,
      long w,
      long c,
      long k,
      long r,
      long s,
      long stride,
      long pad,
      int gradient);

  static native long binaryConvFallbacks(long plan);

  static native long binaryConvPreparedBytes(long plan);

  static native long binaryConvWorkspaceBytes(long plan);

  static native int binaryConvValueType(long plan);

  static native String binaryConvKernelName(long plan);

  static native void destroyBinaryConv(long plan);

  static native long planConv2d(
      long context, long n, long h, long w, long c, long k, long r, long s, long stride, long pad);

  static native long conv2dWorkspaceBytes(long plan);

  static native String conv2dKernelName(long plan);

  static native void destroyConv2d(long plan);

  static native long planLinear(long context, long n, long c, long k);

  static native long linearWorkspaceBytes(long plan);

  static native void destroyLinear(long plan);

  static native void binaryConvPrepare(long plan, long prepared, long w);

  static native void binaryConvFwd(
      long plan, long v, long sums, long x, long prepared, long n, long workspace);

  /** Evaluation on the fast path: the reference has the two ops. */
  static native void binaryConvBatchNormFwd(
      long plan,
      long y,
      long bits,
      long x,
      long prepared,
      long affine,
      long shortcut,
      long shortcutAffine,
      long bias1,
      long slope,
      long bias2,
      long threshold,
      long n,
      long workspace);

  static native void binaryConvBwdInput(
      long plan, long dx, long dz, long alpha, long w, long n, long workspace);

  static native void binaryConvBwdWeight(
      long plan, long dw, long x, long dz, long n, int mode, long workspace);

  static native void batchNormCommit(
      long runningMean,
      long runningVar,
      long runningSums,
      long nonfinite,
      long c,
      long count,
      double momentum);

  static native void conv2dFwd(long plan, long y, long x, long w, long n, long workspace);

  static native boolean conv2dFusesMaxPool(long plan, long r, long s, long stride, long pad);

  /** Evaluation on the fast path: the reference has the three ops. */
  static native void conv2dMaxPoolBatchNormFwd(
      long plan,
      long y,
      long bits,
      long x,
      long w,
      long gamma,
      long affine,
      long threshold,
      long n,
      long workspace);

  static native void conv2dBwdInput(long plan, long dx, long dy, long w, long n, long workspace);

  static native void conv2dBwdWeight(
      long plan, long dw, long x, long dy, long n, int mode, long workspace);

  static native void linearFwd(
      long plan, long y, long x, long w, long bias, long n, long workspace);

  static native void linearBwdInput(long plan, long dx, long dy, long w, long n, long workspace);

  static native void linearBwdWeight(
      long plan, long dw, long dbias, long x, long dy, long n, int mode, long workspace);

  static native void finiteNorm(
      long context, long state, long g, long metrics, long count, long workspace);

  static native void adam(
      long context,
      long p,
      long m,
      long v,
      long g,
      long segments,
      long segmentCount,
      long state,
      double beta1,
      double beta2,
      double eps);

  static native void sgd(
      long context,
      long p,
      long b,
      long g,
      long segments,
      long segmentCount,
      long state,
      double momentum,
      int form);

  // Ops.

  @Override
  public native void signPackFwd(
      long context, long bits, long x, int type, long threshold, long rows, long c);

  @Override
  public native void signUnpackFwd(long context, long x, int type, long bits, long rows, long c);

  @Override
  public native void weightBinarizeFwd(
      long context, long bits, long alpha, long w, long k, long taps, long c);

  @Override
  public native void weightGradient(
      long context, long g, long w, long alpha, long k, long taps, long c, int rule);

  @Override
  public native long approxSignWorkspaceBytes(long rows, long c);

  @Override
  public native void approxSignBwd(
      long context,
      long dx,
      long dthreshold,
      long sums,
      long db,
      long x,
      int type,
      long threshold,
      long shortcut,
      long pooledW,
      long v,
      int vType,
      long secondSums,
      long secondV,
      long rows,
      long c,
      int kind,
      int mode,
      long workspace);

  @Override
  public native long batchNormSlices(long rows, long c);

  @Override
  public native long batchNormWorkspaceBytes(long rows, long c);

  @Override
  public native void batchNormSums(
      long context, long sums, long v, int vType, long rows, long c, long workspace);

  @Override
  public native void batchNormStatistics(
      long context,
      long stats,
      long affine,
      long runningSums,
      long sums,
      boolean integerSums,
      long alpha,
      long gamma,
      long beta,
      long rows,
      long c,
      double eps);

  @Override
  public native void batchNormInference(
      long context,
      long affine,
      long runningMean,
      long runningVar,
      long alpha,
      long gamma,
      long beta,
      long c,
      double eps);

  @Override
  public native void batchNormApply(
      long context,
      long y,
      int type,
      long bits,
      long v,
      int vType,
      long affine,
      long stats,
      long runningSums,
      long sums,
      long alpha,
      long gamma,
      long beta,
      double eps,
      long shortcut,
      long shortcutAffine,
      long bias1,
      long slope,
      long bias2,
      long threshold,
      long rows,
      long c);

  @Override
  public native void batchNormRPReluBwd(
      long context,
      long dz,
      long sums,
      long dbias1,
      long dslope,
      long dbias2,
      long dy,
      int type,
      long v,
      int vType,
      long affine,
      long shortcut,
      long shortcutAffine,
      long bias1,
      long slope,
      long bias2,
      long rows,
      long c,
      int mode,
      long workspace);

  @Override
  public native void batchNormBwdSums(
      long context,
      long sums,
      long dy,
      int type,
      long v,
      int vType,
      long rows,
      long c,
      long workspace);

  @Override
  public native void batchNormBwdCoefficients(
      long context,
      long coefficients,
      long dgamma,
      long dbeta,
      long sums,
      long stats,
      long alpha,
      long gamma,
      long shortcutCoefficients,
      long shortcutDgamma,
      long shortcutDbeta,
      long shortcutSums,
      long shortcutStats,
      long shortcutAlpha,
      long shortcutGamma,
      long summedRows,
      long rows,
      long c,
      int mode);

  @Override
  public native void batchNormBwdApply(
      long context,
      long dz,
      long dy,
      int type,
      long v,
      int vType,
      long coefficients,
      long shortcutDz,
      long shortcutV,
      long shortcutCoefficients,
      long rows,
      long c);

  @Override
  public native void batchNormMaxPoolCheck(
      int type, long n, long h, long w, long c, long r, long s, long stride, long pad);

  @Override
  public native void batchNormMaxPoolFwd(
      long context,
      long vmax,
      long index,
      long sums,
      long v,
      int type,
      long gamma,
      long n,
      long h,
      long w,
      long c,
      long r,
      long s,
      long stride,
      long pad,
      long workspace);

  @Override
  public native void batchNormMaxPoolBwdApply(
      long context,
      long dz,
      long dy,
      long index,
      long v,
      int type,
      long coefficients,
      long n,
      long h,
      long w,
      long c,
      long r,
      long s,
      long stride,
      long pad);

  @Override
  public native void avgPoolCheck(
      long n, long h, long w, long c, long r, long s, long stride, long pad);

  @Override
  public native void avgPoolFwd(
      long context,
      long y,
      long x,
      int type,
      long n,
      long h,
      long w,
      long c,
      long r,
      long s,
      long stride,
      long pad);

  @Override
  public native void avgPoolBwd(
      long context,
      long dx,
      long dy,
      int type,
      long n,
      long h,
      long w,
      long c,
      long r,
      long s,
      long stride,
      long pad);

  @Override
  public native void activationFwd(
      long context, long y, long x, int type, long count, int kind, float slope);

  @Override
  public native void activationBwd(
      long context,
      long dx,
      long dy,
      long x,
      long shortcut,
      int type,
      long count,
      int kind,
      float slope);

  @Override
  public native long softmaxXentWorkspaceBytes(long n);

  @Override
  public native void softmaxXent(
      long context,
      long metrics,
      long dlogits,
      long logits,
      int type,
      long labels,
      long teacherLogits,
      long lossScale,
      double smoothing,
      double temperature,
      double gradientScale,
      long n,
      long k,
      int mode,
      long workspace);

  @Override
  public native long finiteNormWorkspaceBytes(long count);

  @Override
  public native void imageCheck(long n, long h0, long w0, long c, long h, long w, long pad);

  @Override
  public native void imageNormalize(
      long context,
      long x,
      int type,
      long pixels,
      long crops,
      long mean,
      long std,
      long n,
      long h0,
      long w0,
      long c,
      long h,
      long w,
      long pad);
}
