package bireal.backend.cuda;

import bireal.backend.Ops;

/**
 * Every native method of the CUDA backend; primitives only, addresses of the device as long.
 * Unchecked: {@link CudaBackend}, its plans and updates are the only callers. {@code context} is
 * the pointer of {@link CudaBackend}'s handle; a null address is 0. All launches are queued on the
 * context's stream.
 */
final class CudaOps implements Ops {
  // Libraries, devices, contexts.

  /**
   * dlopen, for the whole process and for good; throws DeviceException with the loader's reason.
   */
  static native void openLibrary(String nameOrPath);

  /** CUDA toolkit that compiled the kernels, 13000 for 13.0; 0 without kernels. */
  static native int toolkitVersion();

  /** The CUresult that everything on this context returns by now; 0 while all is well. */
  static native int stickyError(long context);

  /** Whether a CUresult leaves the context unusable. */
  static native boolean isFatal(int result);

  /**
   * {@code library} is the driver's name or path, {@code images} a code of {@link
   * CudaBackend.Images}; with {@code synchronize} every launch is waited for.
   */
  static native long createContext(String library, int ordinal, int images, boolean synchronize);

  static native void destroyContext(long context);

  /** Where all launches go: a CUstream of the device's primary context. */
  static native void setStream(long context, long stream);

  /** 80 for 8.0. */
  static native int computeCapability(long context);

  /** What the driver was given: machine code or PTX. */
  static native String imageKind(long context);

  // Plans.

  /**
   * {@code measured}: the forward kernels are timed, with or without what {@code training} needs;
   * else the one that is likely fastest.
   */
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
      int type,
      boolean training,
      boolean measured);

  static native void destroyBinaryConv(long plan);

  /** Of {@link #binaryConvBwdWeight}. */
  static native long binaryConvWorkspaceBytes(long plan);

  static native int binaryConvValueType(long plan);

  static native String binaryConvKernelName(long plan);

  /** {@code w} are the bits as weight_binarize made them. */
  static native void binaryConvFwd(long plan, long v, long sums, long x, long w, long n);

  /** Whether {@link #binaryConvBatchNormFwd} needs no v. */
  static native boolean binaryConvFusesBatchNorm(long plan);

  static native void binaryConvBatchNormFwd(
      long plan,
      long y,
      int type,
      long bits,
      long v,
      long x,
      long w,
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
      long n);

  static native void binaryConvBwdInput(long plan, long dx, long dz, long alpha, long w, long n);

  static native void binaryConvBwdWeight(
      long plan, long dw, long x, long dz, long n, int mode, long workspace);

  /**
   * {@code tensors}: of each the address of the operand, of w, of alpha or 0, the count, and the
   * weights of a filter.
   */
  static native void castWeights(long context, int type, long[] tensors);

  /** {@code tensors}: of each the address of the F32 gradient and of the rounded one, the count. */
  static native void castGradients(long context, int type, int mode, long[] tensors);

  // The end of a step.

  /**
   * {@code trained}: begin, count and bits of the decay of each segment; {@code binary}: begin, K,
   * taps, C, rule, bits and alpha of each binary parameter; {@code norms}: running mean, variance,
   * sums and C of each normalisation; {@code count}: of all parameters. Takes device memory.
   */
  static native long planUpdate(
      long context, long[] trained, long[] binary, long[] norms, long count);

  static native void destroyUpdate(long update);

  static native void finiteNorm(
      long update, long state, long lossScale, long g, long p, long metrics);

  static native void adam(
      long update,
      long p,
      long m,
      long v,
      long g,
      long state,
      long lossScale,
      double beta1,
      double beta2,
      double eps);

  static native void sgd(
      long update, long p, long b, long g, long state, long lossScale, double momentum, int form);

  static native void batchNormCommit(long update, long nonfinite, long count, double momentum);

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
