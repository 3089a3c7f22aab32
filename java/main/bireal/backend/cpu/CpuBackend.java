package bireal.backend.cpu;

import bireal.backend.ActivationGradient;
import bireal.backend.ActivationKind;
import bireal.backend.Arena;
import bireal.backend.Backend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Gradient;
import bireal.backend.ImageSpec;
import bireal.backend.Plan;
import bireal.backend.RPRelu;
import bireal.backend.Segments;
import bireal.backend.SgdForm;
import bireal.backend.StepState;
import bireal.backend.WeightGradient;
import bireal.runtime.NativeLibrary;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Set;

/**
 * The CPU, in two grades: the fast path (own kernels for the chosen instruction set, oneDNN for
 * real convolutions), and the reference, which runs the slow plain-loop law of every op. Each
 * method checks its tensors, then calls the native op; all natives block until done. One thread at
 * a time.
 */
public final class CpuBackend implements Backend {
  private final CpuPlan.Handle context;
  private final boolean reference;
  private final int threads;
  private final Set<CpuBuffer> open = Collections.newSetFromMap(new IdentityHashMap<>());

  private CpuBackend(int threads, int isaCode, boolean reference) {
    NativeLibrary.load();
    this.threads = threads;
    this.reference = reference;
    this.context =
        new CpuPlan.Handle(
            "CPU backend",
            CpuOps.createContext(threads, isaCode, reference),
            CpuOps::destroyContext);
  }

  /** The instruction set that BIREAL_ISA names, else the best of this machine. */
  public static CpuBackend open(int threads) {
    return new CpuBackend(threads, -1, false);
  }

  /** Throws IllegalArgumentException if this machine lacks {@code isa}. */
  public static CpuBackend open(int threads, Isa isa) {
    return new CpuBackend(threads, isa.code, false);
  }

  /** Plain loops on one thread: slow, for checking the others. */
  public static CpuBackend reference() {
    return new CpuBackend(1, Isa.SCALAR.code, true);
  }

  public Isa isa() {
    return Isa.of(CpuOps.contextIsa(context.pointer()));
  }

  @Override
  public String description() {
    return reference
        ? "reference (plain loops, 1 thread)"
        : "cpu ("
            + isa().name().toLowerCase(java.util.Locale.ROOT)
            + ", "
            + threads
            + (threads == 1 ? " thread)" : " threads)");
  }

  @Override
  public long availableBytes() {
    return FreeMemory.bytes();
  }

  /**
   * So few that what one op writes is still in the caches when the next one reads it, but two for
   * each thread, since real convolutions are cut by images. Plans for up to 16 images compute each
   * by itself, so the count cannot show in the results (native/cpu/onednn.h).
   */
  @Override
  public int evaluationImages() {
    return Math.max(4, Math.min(2 * threads, 16));
  }

  // Memory.

  @Override
  public Buffer allocate(long bytes, String what) {
    context.pointer();
    if (bytes < 1) {
      throw new IllegalArgumentException(what + ": bytes must be >= 1, got " + bytes);
    }
    try {
      CpuBuffer buffer = new CpuBuffer(this, what, bytes);
      open.add(buffer);
      return buffer;
    } catch (OutOfMemoryError e) {
      OutOfMemoryError named =
          new OutOfMemoryError(what + ": " + bytes + " bytes of native memory are not to be had");
      named.initCause(e);
      throw named;
    }
  }

  void closed(CpuBuffer buffer) {
    open.remove(buffer);
  }

  @Override
  public void write(Tensor target, ByteBuffer source) {
    if (source.remaining() > target.bytes()) {
      throw new IllegalArgumentException(
          "writing " + source.remaining() + " bytes into " + target + " of " + target.bytes());
    }
    long address = address(target);
    if (source.isDirect()) {
      try {
        NativeMemory.copy(
            address, NativeMemory.address(source) + source.position(), source.remaining());
      } finally {
        Reference.reachabilityFence(source); // a direct buffer is the collector's
      }
    } else {
      NativeMemory.view(address, source.remaining()).put(source.duplicate());
    }
  }

  @Override
  public void read(ByteBuffer target, Tensor source) {
    if (target.remaining() > source.bytes()) {
      throw new IllegalArgumentException(
          "reading " + target.remaining() + " bytes from " + source + " of " + source.bytes());
    }
    long address = address(source);
    if (target.isDirect()) {
      try {
        NativeMemory.copy(
            NativeMemory.address(target) + target.position(), address, target.remaining());
      } finally {
        Reference.reachabilityFence(target); // a direct buffer is the collector's
      }
    } else {
      target.duplicate().put(NativeMemory.view(address, target.remaining()));
    }
  }

  @Override
  public void zero(Tensor target) {
    NativeMemory.zero(address(target), target.bytes());
  }

  @Override
  public void copy(Tensor target, Tensor source) {
    check(
        target.dtype() == source.dtype() && target.bytes() == source.bytes(),
        "copy",
        "of ",
        source,
        " to ",
        target);
    NativeMemory.copy(address(target), address(source), source.bytes());
  }

  // Plans.

  @Override
  public Plan.BinaryConv planBinaryConv(Conv2dSpec spec, int maxImages, Gradient gradientOrNull) {
    return new CpuPlan.BinaryConv(
        spec,
        maxImages,
        gradientOrNull != null,
        CpuOps.planBinaryConv(
            context.pointer(),
            maxImages,
            spec.H(),
            spec.W(),
            spec.C(),
            spec.K(),
            spec.R(),
            spec.S(),
            spec.stride(),
            spec.pad(),
            gradientOrNull == null ? Gradient.NONE : gradientOrNull.code));
  }

  @Override
  public Plan.Conv2d planConv2d(Conv2dSpec spec, int maxImages) {
    return new CpuPlan.Conv2d(
        spec,
        maxImages,
        CpuOps.planConv2d(
            context.pointer(),
            maxImages,
            spec.H(),
            spec.W(),
            spec.C(),
            spec.K(),
            spec.R(),
            spec.S(),
            spec.stride(),
            spec.pad()));
  }

  @Override
  public Plan.Linear planLinear(int C, int K, int maxImages) {
    return new CpuPlan.Linear(
        reference ? "reference" : "oneDNN",
        C,
        K,
        maxImages,
        CpuOps.planLinear(context.pointer(), maxImages, C, K));
  }

  // sign_pack, weight_binarize, approx_sign.

  @Override
  public void signPackFwd(int n, Tensor bits, Tensor x, Tensor thresholdOrNull) {
    CpuOps.signPackFwd(
        context.pointer(),
        images(bits, DType.BITS, n, x),
        images(x, DType.F32, n, x),
        vector(thresholdOrNull, channels(x)),
        rows(n, x),
        channels(x));
  }

  @Override
  public void weightBinarizeFwd(Tensor bits, Tensor alpha, Tensor w) {
    check(bits.shape().equals(w.shape()), "weight_binarize", "", bits, " for weights ", w);
    CpuOps.weightBinarizeFwd(
        context.pointer(),
        typed(bits, DType.BITS),
        vector(alpha, w.shape().dim(0)),
        typed(w, DType.F32),
        w.shape().dim(0),
        taps(w),
        channels(w));
  }

  @Override
  public void weightGradient(Tensor dw, Tensor w, Tensor alpha, WeightGradient rule) {
    check(dw.shape().equals(w.shape()), "weight_gradient", "", dw, " for weights ", w);
    CpuOps.weightGradient(
        context.pointer(),
        typed(dw, DType.F32),
        typed(w, DType.F32),
        vector(alpha, w.shape().dim(0)),
        w.shape().dim(0),
        taps(w),
        channels(w),
        rule.code);
  }

  @Override
  public void signUnpackFwd(int n, Tensor x, Tensor bits) {
    CpuOps.signUnpackFwd(
        context.pointer(),
        images(x, DType.F32, n, x),
        images(bits, DType.BITS, n, x),
        rows(n, x),
        channels(x));
  }

  @Override
  public long approxSignWorkspaceBytes(int C) {
    return CpuOps.approxSignWorkspaceBytes(C);
  }

  @Override
  public void approxSignBwd(
      int n,
      Tensor dx,
      Tensor dthresholdOrNull,
      Tensor db,
      Tensor x,
      Tensor thresholdOrNull,
      Tensor shortcutOrNull,
      ActivationGradient kind,
      GradMode mode,
      Tensor workspace) {
    check(
        dthresholdOrNull == null || thresholdOrNull != null,
        "approx_sign",
        "gradient ",
        dthresholdOrNull,
        " of a threshold that is ",
        thresholdOrNull);
    CpuOps.approxSignBwd(
        context.pointer(),
        images(dx, DType.F32, n, x),
        vector(dthresholdOrNull, channels(x)),
        images(db, DType.F32, n, x),
        images(x, DType.F32, n, x),
        vector(thresholdOrNull, channels(x)),
        shortcutOrNull == null ? 0 : images(shortcutOrNull, DType.F32, n, x),
        rows(n, x),
        channels(x),
        kind.code,
        mode.code,
        dthresholdOrNull == null
            ? 0
            : atLeast(workspace, approxSignWorkspaceBytes((int) channels(x))));
  }

  // binary_conv.

  @Override
  public void binaryConvPrepare(Plan.BinaryConv plan, Tensor prepared, Tensor wBits) {
    CpuOps.binaryConvPrepare(
        pointer(plan),
        atLeast(prepared, plan.preparedBytes()),
        weights(wBits, DType.BITS, plan.spec()));
  }

  @Override
  public void binaryConvFwd(
      Plan.BinaryConv plan,
      int n,
      Tensor v,
      Tensor sumsOrNull,
      Tensor xBits,
      Tensor prepared,
      Tensor workspace) {
    CpuOps.binaryConvFwd(
        pointer(plan),
        output(v, plan.valueType(), n, plan, plan.spec()),
        sumsOrNull == null ? 0 : sums(sumsOrNull, DType.I64, plan.spec().K()),
        input(xBits, DType.BITS, n, plan, plan.spec()),
        atLeast(prepared, plan.preparedBytes()),
        n,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void binaryConvBwdInput(
      Plan.BinaryConv plan,
      int n,
      Tensor dx,
      Tensor dz,
      Tensor alpha,
      Tensor wBits,
      Tensor workspace) {
    CpuOps.binaryConvBwdInput(
        backwardPointer(plan),
        input(dx, DType.F32, n, plan, plan.spec()),
        output(dz, DType.F32, n, plan, plan.spec()),
        vector(alpha, plan.spec().K()),
        weights(wBits, DType.BITS, plan.spec()),
        n,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void binaryConvBwdWeight(
      Plan.BinaryConv plan,
      int n,
      Tensor dw,
      Tensor xBits,
      Tensor dz,
      GradMode mode,
      Tensor workspace) {
    CpuOps.binaryConvBwdWeight(
        backwardPointer(plan),
        weights(dw, DType.F32, plan.spec()),
        input(xBits, DType.BITS, n, plan, plan.spec()),
        output(dz, DType.F32, n, plan, plan.spec()),
        n,
        mode.code,
        atLeast(workspace, plan.workspaceBytes()));
  }

  // batch_norm.

  @Override
  public long batchNormWorkspaceBytes(int C) {
    return CpuOps.batchNormWorkspaceBytes(C);
  }

  @Override
  public void batchNormSums(int n, Tensor sums, Tensor v, Tensor workspace) {
    DType type = v.dtype() == DType.F32 ? DType.F64 : DType.I64;
    CpuOps.batchNormSums(
        context.pointer(),
        sums(sums, type, channels(v)),
        images(v, v.dtype(), n, v),
        v.dtype().code,
        rows(n, v),
        channels(v),
        atLeast(workspace, batchNormWorkspaceBytes((int) channels(v))));
  }

  @Override
  public void batchNormStatistics(
      Tensor stats,
      Tensor affine,
      Tensor runningSums,
      Tensor sums,
      Tensor alphaOrNull,
      Tensor gamma,
      Tensor beta,
      long rows,
      double eps) {
    long c = gamma.shape().count();
    if (rows < 2) {
      throw new IllegalArgumentException(
          "batch_norm: needs at least 2 values per channel, got " + rows);
    }
    check(
        sums.dtype() == DType.I64 || sums.dtype() == DType.F64,
        "batch_norm",
        "sums ",
        sums,
        " for affine ",
        affine);
    CpuOps.batchNormStatistics(
        sized(stats, DType.F64, 3 * c),
        sized(affine, DType.F32, 2 * c),
        sized(runningSums, DType.F64, 2 * c),
        sized(sums, sums.dtype(), 2 * c),
        sums.dtype() == DType.I64,
        vector(alphaOrNull, c),
        vector(gamma, c),
        vector(beta, c),
        rows,
        c,
        eps);
  }

  @Override
  public void batchNormCommit(
      Tensor runningMean,
      Tensor runningVar,
      Tensor runningSums,
      Tensor state,
      int microBatchCount,
      double momentum) {
    long c = runningMean.shape().count();
    if (microBatchCount < 1) {
      throw new IllegalArgumentException(
          "batch_norm: a step has at least 1 micro-batch, got " + microBatchCount);
    }
    CpuOps.batchNormCommit(
        vector(runningMean, c),
        vector(runningVar, c),
        sized(runningSums, DType.F64, 2 * c),
        sized(state, DType.F64, 4) + StepState.NONFINITE * Double.BYTES,
        c,
        microBatchCount,
        momentum);
  }

  @Override
  public void batchNormInference(
      Tensor affine,
      Tensor runningMean,
      Tensor runningVar,
      Tensor alphaOrNull,
      Tensor gamma,
      Tensor beta,
      double eps) {
    long c = gamma.shape().count();
    CpuOps.batchNormInference(
        sized(affine, DType.F32, 2 * c),
        vector(runningMean, c),
        vector(runningVar, c),
        vector(alphaOrNull, c),
        vector(gamma, c),
        vector(beta, c),
        c,
        eps);
  }

  @Override
  public void batchNormApply(
      int n,
      Tensor y,
      Tensor bitsOrNull,
      Tensor v,
      Tensor affine,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rpreluOrNull,
      Tensor thresholdOrNull) {
    long c = channels(v);
    CpuOps.batchNormApply(
        context.pointer(),
        images(y, DType.F32, n, v),
        bitsOrNull == null ? 0 : images(bitsOrNull, DType.BITS, n, v),
        images(v, v.dtype(), n, v),
        v.dtype().code,
        sized(affine, DType.F32, 2 * c),
        shortcutOrNull == null ? 0 : images(shortcutOrNull, DType.F32, n, v),
        shortcutAffineOrNull == null ? 0 : sized(shortcutAffineOrNull, DType.F32, 2 * c),
        rpreluOrNull == null ? 0 : present(rpreluOrNull.bias1(), c),
        rpreluOrNull == null ? 0 : present(rpreluOrNull.slope(), c),
        rpreluOrNull == null ? 0 : present(rpreluOrNull.bias2(), c),
        vector(thresholdOrNull, c),
        rows(n, v),
        c);
  }

  @Override
  public void batchNormRPReluBwd(
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
      Tensor workspace) {
    long c = channels(v);
    CpuOps.batchNormRPReluBwd(
        context.pointer(),
        images(dz, DType.F32, n, v),
        sums(sums, DType.F64, c),
        present(gradients.bias1(), c),
        present(gradients.slope(), c),
        present(gradients.bias2(), c),
        images(dy, DType.F32, n, v),
        images(v, v.dtype(), n, v),
        v.dtype().code,
        sized(affine, DType.F32, 2 * c),
        shortcutOrNull == null ? 0 : images(shortcutOrNull, DType.F32, n, v),
        shortcutAffineOrNull == null ? 0 : sized(shortcutAffineOrNull, DType.F32, 2 * c),
        present(rprelu.bias1(), c),
        present(rprelu.slope(), c),
        present(rprelu.bias2(), c),
        rows(n, v),
        c,
        mode.code,
        atLeast(workspace, batchNormWorkspaceBytes((int) c)));
  }

  @Override
  public void batchNormBwdSums(int n, Tensor sums, Tensor dy, Tensor v, Tensor workspace) {
    CpuOps.batchNormBwdSums(
        context.pointer(),
        sums(sums, DType.F64, channels(v)),
        images(dy, DType.F32, n, v),
        images(v, v.dtype(), n, v),
        v.dtype().code,
        rows(n, v),
        channels(v),
        atLeast(workspace, batchNormWorkspaceBytes((int) channels(v))));
  }

  @Override
  public void batchNormBwdCoefficients(
      Tensor coefficients,
      Tensor dgamma,
      Tensor dbeta,
      Tensor sums,
      Tensor stats,
      Tensor alphaOrNull,
      Tensor gamma,
      long rows,
      GradMode mode) {
    long c = gamma.shape().count();
    CpuOps.batchNormBwdCoefficients(
        sized(coefficients, DType.F32, 3 * c),
        vector(dgamma, c),
        vector(dbeta, c),
        sums(sums, DType.F64, c),
        sized(stats, DType.F64, 3 * c),
        vector(alphaOrNull, c),
        vector(gamma, c),
        rows,
        c,
        mode.code);
  }

  @Override
  public void batchNormBwdApply(int n, Tensor dz, Tensor dy, Tensor v, Tensor coefficients) {
    CpuOps.batchNormBwdApply(
        context.pointer(),
        images(dz, DType.F32, n, v),
        images(dy, DType.F32, n, v),
        images(v, v.dtype(), n, v),
        v.dtype().code,
        sized(coefficients, DType.F32, 3 * channels(v)),
        rows(n, v),
        channels(v));
  }

  // conv2d, linear.

  @Override
  public void conv2dFwd(Plan.Conv2d plan, int n, Tensor y, Tensor x, Tensor w, Tensor workspace) {
    CpuOps.conv2dFwd(
        pointer(plan),
        output(y, DType.F32, n, plan, plan.spec()),
        input(x, DType.F32, n, plan, plan.spec()),
        weights(w, DType.F32, plan.spec()),
        n,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void conv2dBwdInput(
      Plan.Conv2d plan, int n, Tensor dx, Tensor dy, Tensor w, Tensor workspace) {
    CpuOps.conv2dBwdInput(
        pointer(plan),
        input(dx, DType.F32, n, plan, plan.spec()),
        output(dy, DType.F32, n, plan, plan.spec()),
        weights(w, DType.F32, plan.spec()),
        n,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void conv2dBwdWeight(
      Plan.Conv2d plan, int n, Tensor dw, Tensor x, Tensor dy, GradMode mode, Tensor workspace) {
    CpuOps.conv2dBwdWeight(
        pointer(plan),
        weights(dw, DType.F32, plan.spec()),
        input(x, DType.F32, n, plan, plan.spec()),
        output(dy, DType.F32, n, plan, plan.spec()),
        n,
        mode.code,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void linearFwd(
      Plan.Linear plan, int n, Tensor y, Tensor x, Tensor w, Tensor bias, Tensor workspace) {
    long C = plan.C();
    long K = plan.K();
    CpuOps.linearFwd(
        pointer(plan),
        sized(y, DType.F32, fits(n, plan) * K),
        sized(x, DType.F32, n * C),
        sized(w, DType.F32, K * C),
        vector(bias, K),
        n,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void linearBwdInput(
      Plan.Linear plan, int n, Tensor dx, Tensor dy, Tensor w, Tensor workspace) {
    long C = plan.C();
    long K = plan.K();
    CpuOps.linearBwdInput(
        pointer(plan),
        sized(dx, DType.F32, fits(n, plan) * C),
        sized(dy, DType.F32, n * K),
        sized(w, DType.F32, K * C),
        n,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void linearBwdWeight(
      Plan.Linear plan,
      int n,
      Tensor dw,
      Tensor dbias,
      Tensor x,
      Tensor dy,
      GradMode mode,
      Tensor workspace) {
    long C = plan.C();
    long K = plan.K();
    CpuOps.linearBwdWeight(
        pointer(plan),
        sized(dw, DType.F32, K * C),
        vector(dbias, K),
        sized(x, DType.F32, fits(n, plan) * C),
        sized(dy, DType.F32, n * K),
        n,
        mode.code,
        atLeast(workspace, plan.workspaceBytes()));
  }

  // pool2d, activation.

  @Override
  public void maxPoolFwd(Conv2dSpec spec, int n, Tensor y, Tensor index, Tensor x) {
    CpuOps.maxPoolCheck(
        n, spec.H(), spec.W(), spec.C(), spec.R(), spec.S(), spec.stride(), spec.pad());
    CpuOps.maxPoolFwd(
        context.pointer(),
        sized(y, DType.F32, spec.outputCount(n)),
        sized(index, DType.U8, spec.outputCount(n)),
        sized(x, DType.F32, spec.inputCount(n)),
        n,
        spec.H(),
        spec.W(),
        spec.C(),
        spec.R(),
        spec.S(),
        spec.stride(),
        spec.pad());
  }

  @Override
  public void maxPoolBwd(Conv2dSpec spec, int n, Tensor dx, Tensor dy, Tensor index) {
    CpuOps.maxPoolBwd(
        context.pointer(),
        sized(dx, DType.F32, spec.inputCount(n)),
        sized(dy, DType.F32, spec.outputCount(n)),
        sized(index, DType.U8, spec.outputCount(n)),
        n,
        spec.H(),
        spec.W(),
        spec.C(),
        spec.R(),
        spec.S(),
        spec.stride(),
        spec.pad());
  }

  @Override
  public void batchNormMaxPoolFwd(
      Conv2dSpec spec,
      int n,
      Tensor y,
      Tensor index,
      Tensor bitsOrNull,
      Tensor v,
      Tensor affine,
      Tensor thresholdOrNull) {
    CpuOps.maxPoolCheck(
        n, spec.H(), spec.W(), spec.C(), spec.R(), spec.S(), spec.stride(), spec.pad());
    CpuOps.batchNormMaxPoolFwd(
        context.pointer(),
        sized(y, DType.F32, spec.outputCount(n)),
        sized(index, DType.U8, spec.outputCount(n)),
        bitsOrNull == null ? 0 : images(bitsOrNull, DType.BITS, n, y),
        sized(v, DType.F32, spec.inputCount(n)),
        sized(affine, DType.F32, 2L * spec.C()),
        vector(thresholdOrNull, spec.C()),
        n,
        spec.H(),
        spec.W(),
        spec.C(),
        spec.R(),
        spec.S(),
        spec.stride(),
        spec.pad());
  }

  @Override
  public void avgPoolFwd(Conv2dSpec spec, int n, Tensor y, Tensor x) {
    CpuOps.avgPoolCheck(
        n, spec.H(), spec.W(), spec.C(), spec.R(), spec.S(), spec.stride(), spec.pad());
    CpuOps.avgPoolFwd(
        context.pointer(),
        sized(y, DType.F32, spec.outputCount(n)),
        sized(x, DType.F32, spec.inputCount(n)),
        n,
        spec.H(),
        spec.W(),
        spec.C(),
        spec.R(),
        spec.S(),
        spec.stride(),
        spec.pad());
  }

  @Override
  public void avgPoolBwd(Conv2dSpec spec, int n, Tensor dx, Tensor dy) {
    CpuOps.avgPoolBwd(
        context.pointer(),
        sized(dx, DType.F32, spec.inputCount(n)),
        sized(dy, DType.F32, spec.outputCount(n)),
        n,
        spec.H(),
        spec.W(),
        spec.C(),
        spec.R(),
        spec.S(),
        spec.stride(),
        spec.pad());
  }

  @Override
  public void activationFwd(int n, Tensor y, Tensor x, ActivationKind kind, float slope) {
    CpuOps.activationFwd(
        context.pointer(),
        images(y, DType.F32, n, x),
        images(x, DType.F32, n, x),
        n * x.shape().innerCount(),
        kind.code,
        slope);
  }

  @Override
  public void activationBwd(
      int n,
      Tensor dx,
      Tensor dy,
      Tensor x,
      Tensor shortcutOrNull,
      ActivationKind kind,
      float slope) {
    CpuOps.activationBwd(
        context.pointer(),
        images(dx, DType.F32, n, x),
        images(dy, DType.F32, n, x),
        images(x, DType.F32, n, x),
        shortcutOrNull == null ? 0 : images(shortcutOrNull, DType.F32, n, x),
        n * x.shape().innerCount(),
        kind.code,
        slope);
  }

  // softmax_xent, finite_norm, adam, sgd, image.

  @Override
  public long softmaxXentWorkspaceBytes(int maxImages) {
    return CpuOps.softmaxXentWorkspaceBytes(maxImages);
  }

  @Override
  public void softmaxXent(
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
      Tensor workspace) {
    long K = channels(logits);
    CpuOps.softmaxXent(
        context.pointer(),
        sized(metrics, DType.F64, 4),
        dlogitsOrNull == null ? 0 : images(dlogitsOrNull, DType.F32, n, logits),
        images(logits, DType.F32, n, logits),
        sized(labels, DType.I32, n),
        teacherLogitsOrNull == null ? 0 : images(teacherLogitsOrNull, DType.F32, n, logits),
        smoothing,
        temperature,
        gradientScale,
        n,
        K,
        mode.code,
        atLeast(workspace, softmaxXentWorkspaceBytes(n)));
  }

  @Override
  public long finiteNormWorkspaceBytes(long count) {
    return CpuOps.finiteNormWorkspaceBytes(count);
  }

  @Override
  public void finiteNorm(StepState step, Tensor gradients, Tensor workspace) {
    long count = gradients.shape().count();
    CpuOps.finiteNorm(
        context.pointer(),
        sized(step.state(), DType.F64, 4),
        typed(gradients, DType.F32),
        sized(step.metrics(), DType.F64, 4),
        count,
        atLeast(workspace, finiteNormWorkspaceBytes(count)));
  }

  @Override
  public void adam(
      Tensor parameters,
      Tensor m,
      Tensor v,
      Tensor gradients,
      Segments segments,
      StepState step,
      double beta1,
      double beta2,
      double eps) {
    long count = segments.parameterCount();
    CpuOps.adam(
        context.pointer(),
        sized(parameters, DType.F32, count),
        sized(m, DType.F32, count),
        sized(v, DType.F32, count),
        sized(gradients, DType.F32, count),
        segments.address(),
        segments.segmentCount(),
        sized(step.state(), DType.F64, 4),
        beta1,
        beta2,
        eps);
  }

  @Override
  public void sgd(
      Tensor parameters,
      Tensor momentumBuffer,
      Tensor gradients,
      Segments segments,
      StepState step,
      double momentum,
      SgdForm form) {
    long count = segments.parameterCount();
    CpuOps.sgd(
        context.pointer(),
        sized(parameters, DType.F32, count),
        sized(momentumBuffer, DType.F32, count),
        sized(gradients, DType.F32, count),
        segments.address(),
        segments.segmentCount(),
        sized(step.state(), DType.F64, 4),
        momentum,
        form.code);
  }

  @Override
  public void imageNormalize(
      ImageSpec spec, int n, Tensor x, Tensor pixels, Tensor crops, Tensor mean, Tensor std) {
    CpuOps.imageCheck(n, spec.H0(), spec.W0(), spec.C(), spec.H(), spec.W(), spec.pad());
    CpuOps.imageNormalize(
        context.pointer(),
        sized(x, DType.F32, (long) n * spec.H() * spec.W() * spec.C()),
        sized(pixels, DType.U8, (long) n * spec.H0() * spec.W0() * spec.C()),
        sized(crops, DType.I32, 3L * n),
        vector64(mean, spec.C()),
        vector64(std, spec.C()),
        n,
        spec.H0(),
        spec.W0(),
        spec.C(),
        spec.H(),
        spec.W(),
        spec.pad());
  }

  /** Frees the context and what is still allocated. Plans must be closed before. */
  @Override
  public void close() {
    for (CpuBuffer buffer : List.copyOf(open)) {
      buffer.close();
    }
    context.close();
  }

  // Checks. Each returns the address, so that a call reads as one expression and allocates nothing.

  /** The message is joined only where it is needed: a step calls this hundreds of times. */
  private static void check(
      boolean condition, String op, String what, Object got, String forWhat, Object other) {
    if (!condition) {
      throw new IllegalArgumentException(op + ": " + what + got + forWhat + other);
    }
  }

  private long address(Tensor tensor) {
    Buffer buffer = tensor.buffer() instanceof Arena arena ? arena.slab() : tensor.buffer();
    if (buffer != null && (!(buffer instanceof CpuBuffer own) || own.owner() != this)) {
      throw new IllegalArgumentException(
          "tensor " + tensor + " does not lie in memory of " + description());
    }
    return tensor.address();
  }

  private long typed(Tensor tensor, DType dtype) {
    if (tensor.dtype() != dtype) {
      throw new IllegalArgumentException("expected " + dtype + ", got " + tensor);
    }
    return address(tensor);
  }

  /** At least {@code count} elements: tensors are planned for the largest batch. */
  private long sized(Tensor tensor, DType dtype, long count) {
    if (tensor.shape().count() < count) {
      throw new IllegalArgumentException("expected at least " + count + " elements, got " + tensor);
    }
    return typed(tensor, dtype);
  }

  private long atLeast(Tensor tensor, long bytes) {
    if (tensor.bytes() < bytes) {
      throw new IllegalArgumentException(
          "workspace of " + tensor.bytes() + " bytes, needs " + bytes);
    }
    return address(tensor);
  }

  /** A float vector of exactly {@code count}, or null. */
  private long vector(Tensor tensorOrNull, long count) {
    if (tensorOrNull == null) {
      return 0;
    }
    if (tensorOrNull.shape().count() != count) {
      throw new IllegalArgumentException("expected " + count + " elements, got " + tensorOrNull);
    }
    return typed(tensorOrNull, DType.F32);
  }

  /** A float vector of exactly {@code count}. */
  private long present(Tensor tensor, long count) {
    return vector(java.util.Objects.requireNonNull(tensor), count);
  }

  private long vector64(Tensor tensor, long count) {
    if (tensor.shape().count() != count) {
      throw new IllegalArgumentException("expected " + count + " elements, got " + tensor);
    }
    return typed(tensor, DType.F64);
  }

  private long sums(Tensor tensor, DType dtype, long c) {
    return sized(tensor, dtype, 2 * c);
  }

  /** {@code n} images of the per-image shape of {@code like}. */
  private long images(Tensor tensor, DType dtype, int n, Tensor like) {
    if (n < 1
        || tensor.shape().dim(0) < n
        || tensor.shape().innerCount() != like.shape().innerCount()
        || channels(tensor) != channels(like)) {
      throw new IllegalArgumentException(
          "expected " + n + " images like " + like + ", got " + tensor);
    }
    return typed(tensor, dtype);
  }

  private static long fits(int n, Plan plan) {
    if (n < 1 || n > plan.maxImages()) {
      throw new IllegalArgumentException(
          "run of " + n + " images on a plan for 1.." + plan.maxImages());
    }
    return n;
  }

  private long input(Tensor tensor, DType dtype, int n, Plan plan, Conv2dSpec spec) {
    fits(n, plan);
    return area(tensor, dtype, n, spec.H(), spec.W(), spec.C());
  }

  private long output(Tensor tensor, DType dtype, int n, Plan plan, Conv2dSpec spec) {
    fits(n, plan);
    return area(tensor, dtype, n, spec.P(), spec.Q(), spec.K());
  }

  private long area(Tensor tensor, DType dtype, int n, int h, int w, int c) {
    Shape shape = tensor.shape();
    if (shape.rank() != 4
        || shape.dim(0) < n
        || shape.dim(1) != h
        || shape.dim(2) != w
        || shape.dim(3) != c) {
      throw new IllegalArgumentException(
          "expected " + n + "x" + h + "x" + w + "x" + c + ", got " + tensor);
    }
    return typed(tensor, dtype);
  }

  private long weights(Tensor tensor, DType dtype, Conv2dSpec spec) {
    Shape shape = tensor.shape();
    if (shape.rank() != 4
        || shape.dim(0) != spec.K()
        || shape.dim(1) != spec.R()
        || shape.dim(2) != spec.S()
        || shape.dim(3) != spec.C()) {
      throw new IllegalArgumentException("expected weights " + spec.weights() + ", got " + tensor);
    }
    return typed(tensor, dtype);
  }

  private static long channels(Tensor tensor) {
    return tensor.shape().dim(tensor.shape().rank() - 1);
  }

  private static long rows(int n, Tensor tensor) {
    return n * tensor.shape().innerCount() / channels(tensor);
  }

  private static long taps(Tensor w) {
    return w.shape().innerCount() / channels(w);
  }

  private static long backwardPointer(Plan.BinaryConv plan) {
    if (plan instanceof CpuPlan.BinaryConv own && !own.hasBackward) {
      throw new IllegalArgumentException("this plan has no backward passes: " + plan.spec());
    }
    return pointer(plan);
  }

  private static long pointer(Plan plan) {
    if (plan instanceof CpuPlan cpu) {
      return cpu.pointer();
    }
    throw new IllegalArgumentException("plan of another backend: " + plan);
  }
}
