package bireal.backend;

/**
 * The ops of native/ops on addresses, unchecked: {@link CheckedBackend} is the only caller. Outputs
 * come first; a null address is 0. {@code context} is the pointer of the backend's native object,
 * {@code type} the code of a real {@link bireal.tensor.DType}, {@code vType} that of a real type or
 * an integer.
 */
public interface Ops {
  void signPackFwd(long context, long bits, long x, int type, long threshold, long rows, long c);

  void signUnpackFwd(long context, long x, int type, long bits, long rows, long c);

  void weightBinarizeFwd(long context, long bits, long alpha, long w, long k, long taps, long c);

  void weightGradient(
      long context, long g, long w, long alpha, long k, long taps, long c, int rule);

  long approxSignWorkspaceBytes(long rows, long c);

  void approxSignBwd(
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

  // batch_norm

  long batchNormSlices(long rows, long c);

  long batchNormWorkspaceBytes(long rows, long c);

  void batchNormSums(long context, long sums, long v, int vType, long rows, long c, long workspace);

  void batchNormStatistics(
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

  void batchNormInference(
      long context,
      long affine,
      long runningMean,
      long runningVar,
      long alpha,
      long gamma,
      long beta,
      long c,
      double eps);

  /** {@code stats}, {@code runningSums}, {@code sums} and so on: 0 without statistics. */
  void batchNormApply(
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

  void batchNormRPReluBwd(
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

  void batchNormBwdSums(
      long context,
      long sums,
      long dy,
      int type,
      long v,
      int vType,
      long rows,
      long c,
      long workspace);

  /** {@code shortcutCoefficients} and so on: 0 without a second norm. */
  void batchNormBwdCoefficients(
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

  void batchNormBwdApply(
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

  void batchNormMaxPoolCheck(
      int type, long n, long h, long w, long c, long r, long s, long stride, long pad);

  void batchNormMaxPoolFwd(
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

  void batchNormMaxPoolBwdApply(
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

  // pool2d, activation

  void avgPoolCheck(long n, long h, long w, long c, long r, long s, long stride, long pad);

  void avgPoolFwd(
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

  void avgPoolBwd(
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

  void activationFwd(long context, long y, long x, int type, long count, int kind, float slope);

  void activationBwd(
      long context,
      long dx,
      long dy,
      long x,
      long shortcut,
      int type,
      long count,
      int kind,
      float slope);

  // softmax_xent, finite_norm, image

  long softmaxXentWorkspaceBytes(long n);

  void softmaxXent(
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

  long finiteNormWorkspaceBytes(long count);

  void imageCheck(long n, long h0, long w0, long c, long h, long w, long pad);

  void imageNormalize(
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

  /** A plan of a {@link CheckedBackend}; its passes are unchecked and run on its context. */
  interface Planned extends Plan {
    CheckedBackend owner();
  }

  interface BinaryConv extends Planned, Plan.BinaryConv {
    boolean hasBackward();

    void prepare(long prepared, long w);

    void fwd(long v, long sums, long x, long prepared, long n, long workspace);

    /** Without it {@link #batchNormFwd} is never called. */
    @Override
    default boolean fusesBatchNorm() {
      return false;
    }

    /**
     * Whether {@link #batchNormFwd} can also leave v, and take statistics; else both are always 0.
     */
    default boolean fusesStatistics() {
      return fusesBatchNorm();
    }

    /** fwd with batchNormApply of its v; {@code v} may be 0. */
    default void batchNormFwd(
        long y,
        int type,
        long bits,
        long v,
        long x,
        long prepared,
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
        long n,
        long workspace) {
      throw new UnsupportedOperationException(kernelName() + " does not normalise");
    }

    void bwdInput(long dx, long dz, long alpha, long w, long n, long workspace);

    void bwdWeight(long dw, long x, long dz, long n, int mode, long workspace);
  }

  interface Conv2d extends Planned, Plan.Conv2d {
    void fwd(long y, long x, long w, long n, long workspace);

    /** Without it {@link #maxPoolBatchNormFwd} is never called. */
    @Override
    default boolean fusesMaxPool(Conv2dSpec pool) {
      return false;
    }

    default void maxPoolBatchNormFwd(
        long y,
        long bits,
        long x,
        long w,
        long gamma,
        long affine,
        long threshold,
        long n,
        long workspace) {
      throw new UnsupportedOperationException(kernelName() + " does not pool");
    }

    void bwdInput(long dx, long dy, long w, long n, long workspace);

    void bwdWeight(long dw, long x, long dy, long n, int mode, long workspace);
  }

  interface Linear extends Planned, Plan.Linear {
    void fwd(long y, long x, long w, long bias, long n, long workspace);

    void bwdInput(long dx, long dy, long w, long n, long workspace);

    void bwdWeight(long dw, long dbias, long x, long dy, long n, int mode, long workspace);
  }
}
