package bireal.backend;

import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Set;
import java.util.function.IntConsumer;
import java.util.stream.Collectors;

/**
 * What all backends do alike: each method checks device, element type, shape and open state of its
 * tensors, then calls the op on addresses ({@link Ops}). A backend adds memory, plans and the end
 * of a step. One thread at a time.
 */
public abstract class CheckedBackend implements Backend {
  private final Ops ops;
  private final Set<OwnedBuffer> open = Collections.newSetFromMap(new IdentityHashMap<>());

  protected CheckedBackend(Ops ops) {
    this.ops = ops;
  }

  /** The native object; throws IllegalStateException after close(). */
  protected abstract long context();

  /** Zero-filled memory, aligned to 64 bytes. Throws OutOfMemoryError. */
  protected abstract long take(long bytes);

  protected abstract void free(long address, long bytes);

  // Memory.

  @Override
  public Buffer allocate(long bytes, String what) {
    context();
    if (bytes < 1) {
      throw new IllegalArgumentException(what + ": bytes must be >= 1, got " + bytes);
    }
    try {
      OwnedBuffer buffer = new OwnedBuffer(this, what, bytes, take(bytes));
      open.add(buffer);
      return buffer;
    } catch (OutOfMemoryError e) {
      OutOfMemoryError named =
          new OutOfMemoryError(
              what + ": " + bytes + " bytes of memory of " + description() + " are not to be had");
      named.initCause(e);
      throw named;
    }
  }

  /** Whose buffers its tensors lie in. */
  protected CheckedBackend memory() {
    return this;
  }

  void closed(OwnedBuffer buffer, long address) {
    open.remove(buffer);
    free(address, buffer.bytes());
  }

  /** Frees what is still allocated. */
  protected final void freeAll() {
    for (OwnedBuffer buffer : List.copyOf(open)) {
      buffer.close();
    }
  }

  /** Where the device is lost: its memory is gone, and closing a buffer does nothing any more. */
  protected final void forgetAll() {
    for (OwnedBuffer buffer : List.copyOf(open)) {
      buffer.forget();
    }
    open.clear();
  }

  // A backend whose ops fill the device has one lane.

  @Override
  public Backend evaluation(int maxImages) {
    return this;
  }

  @Override
  public int lanes() {
    return 1;
  }

  @Override
  public void passes(int count, IntConsumer pass) {
    for (int i = 0; i < count; i++) {
      pass.accept(i);
    }
  }

  // A backend that blocks until its work is done has nothing to overlap or to record.

  @Override
  public void upload(Tensor target, ByteBuffer source) {
    write(target, source);
  }

  @Override
  public void awaitUploads() {}

  @Override
  public void releaseUploads() {}

  @Override
  public void replay(Runnable work, long key) {
    work.run();
  }

  @Override
  public void forget(Runnable work) {}

  // Plans.

  @Override
  public boolean stores(DType real) {
    return real == DType.F32;
  }

  /** Throws IllegalArgumentException unless this backend {@link #stores} it. */
  protected final int code(DType real) {
    if (!real.real() || !stores(real)) {
      throw new IllegalArgumentException(
          description()
              + " stores no real values as "
              + real
              + "; set train.precision: "
              + Arrays.stream(Precision.values())
                  .filter(precision -> stores(precision.real))
                  .map(precision -> precision.name().toLowerCase(Locale.ROOT))
                  .collect(Collectors.joining(" or ")));
    }
    return real.code;
  }

  @Override
  public final Update planUpdate(UpdateSpec spec) {
    spec.check();
    return openUpdate(spec);
  }

  /** {@code spec} is checked, its tensors may be unallocated. */
  protected abstract Update openUpdate(UpdateSpec spec);

  // cast: of backends whose libraries want it.

  @Override
  public void castWeights(List<WeightCast> casts) {
    if (!casts.isEmpty()) {
      throw new IllegalArgumentException(description() + " takes F32 weights, not " + casts);
    }
  }

  @Override
  public void castGradients(List<GradientCast> casts, GradMode mode) {
    if (!casts.isEmpty()) {
      throw new IllegalArgumentException(description() + " makes F32 gradients, not " + casts);
    }
  }

  // sign_pack, weight_binarize, approx_sign.

  @Override
  public void signPackFwd(int n, Tensor bits, Tensor x, Tensor thresholdOrNull) {
    ops.signPackFwd(
        context(),
        images(bits, DType.BITS, n, x),
        images(x, x.dtype(), n, x),
        code(x.dtype()),
        vector(thresholdOrNull, channels(x)),
        rows(n, x),
        channels(x));
  }

  @Override
  public void signUnpackFwd(int n, Tensor x, Tensor bits) {
    ops.signUnpackFwd(
        context(),
        images(x, x.dtype(), n, x),
        code(x.dtype()),
        images(bits, DType.BITS, n, x),
        rows(n, x),
        channels(x));
  }

  @Override
  public void weightBinarizeFwd(Tensor bits, Tensor alpha, Tensor w) {
    check(bits.shape().equals(w.shape()), "weight_binarize", "", bits, " for weights ", w);
    ops.weightBinarizeFwd(
        context(),
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
    ops.weightGradient(
        context(),
        typed(dw, DType.F32),
        typed(w, DType.F32),
        vector(alpha, w.shape().dim(0)),
        w.shape().dim(0),
        taps(w),
        channels(w),
        rule.code);
  }

  @Override
  public long approxSignWorkspaceBytes(long rows, int C) {
    return ops.approxSignWorkspaceBytes(rows, C);
  }

  @Override
  public void approxSignBwd(
      int n,
      Tensor dx,
      Tensor dthresholdOrNull,
      Tensor sumsOrNull,
      Tensor db,
      Tensor x,
      Tensor thresholdOrNull,
      Tensor shortcutOrNull,
      Tensor vOrNull,
      Tensor secondSumsOrNull,
      Tensor secondVOrNull,
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
    check(
        (sumsOrNull == null) == (vOrNull == null),
        "approx_sign",
        "sums ",
        sumsOrNull,
        " over values that are ",
        vOrNull);
    check(
        (secondSumsOrNull == null) == (secondVOrNull == null),
        "approx_sign",
        "sums ",
        secondSumsOrNull,
        " over values that are ",
        secondVOrNull);
    long c = channels(x);
    DType real = x.dtype();
    long pooledW = pooledWidth(shortcutOrNull, x);
    ops.approxSignBwd(
        context(),
        images(dx, real, n, x),
        vector(dthresholdOrNull, c),
        sumsOrNull == null ? 0 : sums(sumsOrNull, n, x),
        images(db, real, n, x),
        images(x, real, n, x),
        code(real),
        vector(thresholdOrNull, c),
        shortcutOrNull == null
            ? 0
            : pooledW == 0
                ? images(shortcutOrNull, real, n, x)
                : sized(shortcutOrNull, real, n * shortcutOrNull.shape().innerCount()),
        pooledW,
        vOrNull == null ? 0 : images(vOrNull, vOrNull.dtype(), n, x),
        vOrNull == null ? 0 : valueCode(vOrNull, real),
        secondSumsOrNull == null ? 0 : sums(secondSumsOrNull, n, x),
        secondVOrNull == null ? 0 : images(secondVOrNull, real, n, x),
        rows(n, x),
        c,
        kind.code,
        mode.code,
        dthresholdOrNull == null && sumsOrNull == null && secondSumsOrNull == null
            ? 0
            : atLeast(workspace, approxSignWorkspaceBytes(rows(n, x), (int) c)));
  }

  /** Of the images of {@code x} where the shortcut's gradient is pooled, else 0. */
  private static long pooledWidth(Tensor shortcutOrNull, Tensor x) {
    if (shortcutOrNull == null || shortcutOrNull.shape().innerCount() == x.shape().innerCount()) {
      return 0;
    }
    Shape whole = x.shape();
    Shape pooled = shortcutOrNull.shape();
    check(
        whole.rank() == 4
            && pooled.rank() == 4
            && whole.dim(1) == 2 * pooled.dim(1)
            && whole.dim(2) == 2 * pooled.dim(2)
            && whole.dim(3) == pooled.dim(3),
        "approx_sign",
        "shortcut ",
        shortcutOrNull,
        " is neither like x, nor has half its height and width: ",
        x);
    return whole.dim(2);
  }

  // binary_conv.

  @Override
  public void binaryConvPrepare(Plan.BinaryConv plan, Tensor prepared, Tensor wBits) {
    own(plan).prepare(prepared(plan, prepared), weights(wBits, DType.BITS, plan.spec()));
  }

  private long prepared(Plan.BinaryConv plan, Tensor prepared) {
    return plan.preparedBytes() == 0
        ? weights(prepared, DType.BITS, plan.spec())
        : atLeast(prepared, plan.preparedBytes());
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
    own(plan)
        .fwd(
            output(v, plan.valueType(), n, plan, plan.spec()),
            sumsOrNull == null ? 0 : sized(sumsOrNull, DType.I64, 2L * plan.spec().K()),
            input(xBits, DType.BITS, n, plan, plan.spec()),
            prepared(plan, prepared),
            n,
            atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void binaryConvBatchNormFwd(
      Plan.BinaryConv plan,
      int n,
      Tensor y,
      Tensor bitsOrNull,
      Tensor vOrNull,
      Tensor xBits,
      Tensor prepared,
      Tensor affine,
      BatchNormStatistics normOrNull,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rpreluOrNull,
      Tensor thresholdOrNull,
      Tensor workspace) {
    Ops.BinaryConv own = own(plan);
    BatchNormStatistics norm = normOrNull;
    check(
        vOrNull != null || (norm == null && own.fusesBatchNorm()),
        "binary_conv",
        "v ",
        null,
        norm == null ? " of " : " with statistics, of ",
        plan.kernelName());
    if (vOrNull != null && !own.fusesStatistics()) {
      binaryConvFwd(
          plan, n, vOrNull, norm == null ? null : norm.sums(), xBits, prepared, workspace);
      batchNormApply(
          n,
          y,
          bitsOrNull,
          vOrNull,
          affine,
          norm,
          shortcutOrNull,
          shortcutAffineOrNull,
          rpreluOrNull,
          thresholdOrNull);
      return;
    }
    check(
        norm == null || (norm.affine() == affine && norm.sums().dtype() == DType.I64),
        "batch_norm",
        "affine ",
        affine,
        " with statistics of ",
        norm);
    long c = plan.spec().K();
    long rows = (long) n * plan.spec().P() * plan.spec().Q();
    DType real = plan.real();
    own.batchNormFwd(
        output(y, real, n, plan, plan.spec()),
        code(real),
        bitsOrNull == null ? 0 : output(bitsOrNull, DType.BITS, n, plan, plan.spec()),
        vOrNull == null ? 0 : output(vOrNull, plan.valueType(), n, plan, plan.spec()),
        input(xBits, DType.BITS, n, plan, plan.spec()),
        prepared(plan, prepared),
        sized(affine, DType.F32, 2 * c),
        norm == null ? 0 : sized(norm.stats(), DType.F64, 3 * c),
        norm == null ? 0 : sized(norm.runningSums(), DType.F64, 2 * c),
        norm == null ? 0 : statisticsSums(norm, rows, c),
        norm == null ? 0 : vector(norm.alphaOrNull(), c),
        norm == null ? 0 : present(norm.gamma(), c),
        norm == null ? 0 : present(norm.beta(), c),
        norm == null ? 0 : norm.eps(),
        shortcutOrNull == null ? 0 : output(shortcutOrNull, real, n, plan, plan.spec()),
        shortcutAffineOrNull == null ? 0 : sized(shortcutAffineOrNull, DType.F32, 2 * c),
        rpreluOrNull == null ? 0 : present(rpreluOrNull.bias1(), c),
        rpreluOrNull == null ? 0 : present(rpreluOrNull.slope(), c),
        rpreluOrNull == null ? 0 : present(rpreluOrNull.bias2(), c),
        vector(thresholdOrNull, c),
        n,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void binaryConvBwdInput(
      Plan.BinaryConv plan, int n, Tensor dx, Tensor dz, Tensor alpha, Tensor w, Tensor workspace) {
    backward(plan)
        .bwdInput(
            input(dx, plan.real(), n, plan, plan.spec()),
            output(dz, plan.real(), n, plan, plan.spec()),
            vector(alpha, plan.spec().K()),
            weights(w, plan.weightType(), plan.spec()),
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
    backward(plan)
        .bwdWeight(
            weights(dw, plan.gradientType(), plan.spec()),
            input(xBits, DType.BITS, n, plan, plan.spec()),
            output(dz, plan.real(), n, plan, plan.spec()),
            n,
            written(plan, mode),
            atLeast(workspace, plan.workspaceBytes()));
  }

  /** The code of {@code mode}, which is OVERWRITE where the gradient is cast later. */
  private static int written(Plan plan, GradMode mode) {
    check(
        mode == GradMode.OVERWRITE || plan.gradientType() == DType.F32,
        "weight gradient",
        "mode ",
        mode,
        " for gradients of type ",
        plan.gradientType());
    return mode.code;
  }

  // batch_norm.

  @Override
  public long batchNormSlices(long rows, int C) {
    return ops.batchNormSlices(rows, C);
  }

  @Override
  public long batchNormWorkspaceBytes(long rows, int C) {
    return ops.batchNormWorkspaceBytes(rows, C);
  }

  @Override
  public void batchNormSums(int n, Tensor sums, Tensor v, Tensor workspace) {
    ops.batchNormSums(
        context(),
        sums(sums, n, v),
        images(v, v.dtype(), n, v),
        code(v.dtype()),
        rows(n, v),
        channels(v),
        atLeast(workspace, batchNormWorkspaceBytes(rows(n, v), (int) channels(v))));
  }

  @Override
  public void batchNormStatistics(BatchNormStatistics norm, long rows) {
    long c = norm.gamma().shape().count();
    ops.batchNormStatistics(
        context(),
        sized(norm.stats(), DType.F64, 3 * c),
        sized(norm.affine(), DType.F32, 2 * c),
        sized(norm.runningSums(), DType.F64, 2 * c),
        statisticsSums(norm, rows, c),
        norm.sums().dtype() == DType.I64,
        vector(norm.alphaOrNull(), c),
        vector(norm.gamma(), c),
        vector(norm.beta(), c),
        rows,
        c,
        norm.eps());
  }

  private long statisticsSums(BatchNormStatistics norm, long rows, long c) {
    DType type = norm.sums().dtype();
    if (rows < 2) {
      throw new IllegalArgumentException(
          "batch_norm: needs at least 2 values per channel, got " + rows);
    }
    check(
        type == DType.I64 || type == DType.F64,
        "batch_norm",
        "sums ",
        norm.sums(),
        " for affine ",
        norm.affine());
    return sized(
        norm.sums(), type, 2 * c * (type == DType.I64 ? 1 : batchNormSlices(rows, (int) c)));
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
    ops.batchNormInference(
        context(),
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
      BatchNormStatistics normOrNull,
      Tensor shortcutOrNull,
      Tensor shortcutAffineOrNull,
      RPRelu rpreluOrNull,
      Tensor thresholdOrNull) {
    long c = channels(v);
    BatchNormStatistics norm = normOrNull;
    check(
        norm == null || (norm.affine() == affine && norm.sums().dtype() == DType.I64),
        "batch_norm",
        "affine ",
        affine,
        " with statistics of ",
        norm);
    ops.batchNormApply(
        context(),
        images(y, y.dtype(), n, v),
        code(y.dtype()),
        bitsOrNull == null ? 0 : images(bitsOrNull, DType.BITS, n, v),
        images(v, v.dtype(), n, v),
        valueCode(v, y.dtype()),
        sized(affine, DType.F32, 2 * c),
        norm == null ? 0 : sized(norm.stats(), DType.F64, 3 * c),
        norm == null ? 0 : sized(norm.runningSums(), DType.F64, 2 * c),
        norm == null ? 0 : statisticsSums(norm, rows(n, v), c),
        norm == null ? 0 : vector(norm.alphaOrNull(), c),
        norm == null ? 0 : present(norm.gamma(), c),
        norm == null ? 0 : present(norm.beta(), c),
        norm == null ? 0 : norm.eps(),
        shortcutOrNull == null ? 0 : images(shortcutOrNull, y.dtype(), n, v),
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
    DType real = dy.dtype();
    ops.batchNormRPReluBwd(
        context(),
        images(dz, real, n, v),
        sums(sums, n, v),
        present(gradients.bias1(), c),
        present(gradients.slope(), c),
        present(gradients.bias2(), c),
        images(dy, real, n, v),
        code(real),
        images(v, v.dtype(), n, v),
        valueCode(v, real),
        sized(affine, DType.F32, 2 * c),
        shortcutOrNull == null ? 0 : images(shortcutOrNull, real, n, v),
        shortcutAffineOrNull == null ? 0 : sized(shortcutAffineOrNull, DType.F32, 2 * c),
        present(rprelu.bias1(), c),
        present(rprelu.slope(), c),
        present(rprelu.bias2(), c),
        rows(n, v),
        c,
        mode.code,
        atLeast(workspace, batchNormWorkspaceBytes(rows(n, v), (int) c)));
  }

  @Override
  public void batchNormBwdSums(int n, Tensor sums, Tensor dy, Tensor v, Tensor workspace) {
    ops.batchNormBwdSums(
        context(),
        sums(sums, n, v),
        images(dy, dy.dtype(), n, v),
        code(dy.dtype()),
        images(v, v.dtype(), n, v),
        valueCode(v, dy.dtype()),
        rows(n, v),
        channels(v),
        atLeast(workspace, batchNormWorkspaceBytes(rows(n, v), (int) channels(v))));
  }

  @Override
  public void batchNormBwdCoefficients(
      BatchNormBackward norm,
      BatchNormBackward shortcutNormOrNull,
      long summedRows,
      long rows,
      GradMode mode) {
    long c = norm.gamma().shape().count();
    long sums = 2 * c * batchNormSlices(summedRows, (int) c);
    BatchNormBackward shortcut = shortcutNormOrNull;
    ops.batchNormBwdCoefficients(
        context(),
        sized(norm.coefficients(), DType.F32, 3 * c),
        present(norm.dgamma(), c),
        present(norm.dbeta(), c),
        sized(norm.sums(), DType.F64, sums),
        sized(norm.stats(), DType.F64, 3 * c),
        vector(norm.alphaOrNull(), c),
        present(norm.gamma(), c),
        shortcut == null ? 0 : sized(shortcut.coefficients(), DType.F32, 3 * c),
        shortcut == null ? 0 : present(shortcut.dgamma(), c),
        shortcut == null ? 0 : present(shortcut.dbeta(), c),
        shortcut == null ? 0 : sized(shortcut.sums(), DType.F64, sums),
        shortcut == null ? 0 : sized(shortcut.stats(), DType.F64, 3 * c),
        shortcut == null ? 0 : vector(shortcut.alphaOrNull(), c),
        shortcut == null ? 0 : present(shortcut.gamma(), c),
        summedRows,
        rows,
        c,
        mode.code);
  }

  @Override
  public void batchNormBwdApply(
      int n,
      Tensor dz,
      Tensor dy,
      Tensor v,
      Tensor coefficients,
      Tensor shortcutDzOrNull,
      Tensor shortcutVOrNull,
      Tensor shortcutCoefficientsOrNull) {
    DType real = dy.dtype();
    check(
        (shortcutDzOrNull == null) == (shortcutVOrNull == null)
            && (shortcutDzOrNull == null) == (shortcutCoefficientsOrNull == null),
        "batch_norm",
        "shortcut's gradient ",
        shortcutDzOrNull,
        " of values that are ",
        shortcutVOrNull);
    ops.batchNormBwdApply(
        context(),
        images(dz, real, n, v),
        images(dy, real, n, v),
        code(real),
        images(v, v.dtype(), n, v),
        valueCode(v, real),
        sized(coefficients, DType.F32, 3 * channels(v)),
        shortcutDzOrNull == null ? 0 : images(shortcutDzOrNull, real, n, v),
        shortcutVOrNull == null ? 0 : images(shortcutVOrNull, real, n, v),
        shortcutCoefficientsOrNull == null
            ? 0
            : sized(shortcutCoefficientsOrNull, DType.F32, 3 * channels(v)),
        rows(n, v),
        channels(v));
  }

  @Override
  public void batchNormMaxPoolFwd(
      Conv2dSpec spec,
      int n,
      Tensor vmax,
      Tensor index,
      Tensor sumsOrNull,
      Tensor v,
      Tensor gamma,
      Tensor workspace) {
    long rows = (long) n * spec.H() * spec.W();
    int type = code(v.dtype());
    ops.batchNormMaxPoolCheck(
        type, n, spec.H(), spec.W(), spec.C(), spec.R(), spec.S(), spec.stride(), spec.pad());
    ops.batchNormMaxPoolFwd(
        context(),
        sized(vmax, v.dtype(), spec.outputCount(n)),
        sized(index, DType.U8, spec.outputCount(n)),
        sumsOrNull == null ? 0 : sums(sumsOrNull, n, v),
        sized(v, v.dtype(), spec.inputCount(n)),
        type,
        present(gamma, spec.C()),
        n,
        spec.H(),
        spec.W(),
        spec.C(),
        spec.R(),
        spec.S(),
        spec.stride(),
        spec.pad(),
        sumsOrNull == null ? 0 : atLeast(workspace, batchNormWorkspaceBytes(rows, spec.C())));
  }

  @Override
  public void batchNormMaxPoolBwdApply(
      Conv2dSpec spec, int n, Tensor dz, Tensor dy, Tensor index, Tensor v, Tensor coefficients) {
    DType real = v.dtype();
    ops.batchNormMaxPoolBwdApply(
        context(),
        sized(dz, real, spec.inputCount(n)),
        sized(dy, real, spec.outputCount(n)),
        sized(index, DType.U8, spec.outputCount(n)),
        sized(v, real, spec.inputCount(n)),
        code(real),
        sized(coefficients, DType.F32, 3L * spec.C()),
        n,
        spec.H(),
        spec.W(),
        spec.C(),
        spec.R(),
        spec.S(),
        spec.stride(),
        spec.pad());
  }

  // conv2d, linear.

  @Override
  public void conv2dFwd(Plan.Conv2d plan, int n, Tensor y, Tensor x, Tensor w, Tensor workspace) {
    own(plan)
        .fwd(
            output(y, plan.real(), n, plan, plan.spec()),
            input(x, plan.real(), n, plan, plan.spec()),
            weights(w, plan.weightType(), plan.spec()),
            n,
            atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void conv2dMaxPoolBatchNormFwd(
      Plan.Conv2d plan,
      Conv2dSpec pool,
      int n,
      Tensor y,
      Tensor bitsOrNull,
      Tensor x,
      Tensor w,
      Tensor gamma,
      Tensor affine,
      Tensor thresholdOrNull,
      Tensor workspace) {
    Ops.Conv2d own = own(plan);
    Conv2dSpec spec = plan.spec();
    check(
        pool.H() == spec.P()
            && pool.W() == spec.Q()
            && pool.C() == spec.K()
            && own.fusesMaxPool(pool),
        "conv2d",
        "max-pool ",
        pool,
        " is not one that goes with ",
        spec);
    DType real = plan.real();
    own.maxPoolBatchNormFwd(
        sized(y, real, pool.outputCount(n)),
        bitsOrNull == null ? 0 : images(bitsOrNull, DType.BITS, n, y),
        input(x, real, n, plan, spec),
        weights(w, plan.weightType(), spec),
        present(gamma, spec.K()),
        sized(affine, DType.F32, 2L * spec.K()),
        vector(thresholdOrNull, spec.K()),
        n,
        atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void conv2dBwdInput(
      Plan.Conv2d plan, int n, Tensor dx, Tensor dy, Tensor w, Tensor workspace) {
    own(plan)
        .bwdInput(
            input(dx, plan.real(), n, plan, plan.spec()),
            output(dy, plan.real(), n, plan, plan.spec()),
            weights(w, plan.weightType(), plan.spec()),
            n,
            atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void conv2dBwdWeight(
      Plan.Conv2d plan, int n, Tensor dw, Tensor x, Tensor dy, GradMode mode, Tensor workspace) {
    own(plan)
        .bwdWeight(
            weights(dw, plan.gradientType(), plan.spec()),
            input(x, plan.real(), n, plan, plan.spec()),
            output(dy, plan.real(), n, plan, plan.spec()),
            n,
            written(plan, mode),
            atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void linearFwd(
      Plan.Linear plan, int n, Tensor y, Tensor x, Tensor w, Tensor bias, Tensor workspace) {
    long C = plan.C();
    long K = plan.K();
    own(plan)
        .fwd(
            sized(y, plan.real(), fits(n, plan) * K),
            sized(x, plan.real(), n * C),
            sized(w, plan.weightType(), K * C),
            sized(bias, plan.weightType(), K),
            n,
            atLeast(workspace, plan.workspaceBytes()));
  }

  @Override
  public void linearBwdInput(
      Plan.Linear plan, int n, Tensor dx, Tensor dy, Tensor w, Tensor workspace) {
    long C = plan.C();
    long K = plan.K();
    own(plan)
        .bwdInput(
            sized(dx, plan.real(), fits(n, plan) * C),
            sized(dy, plan.real(), n * K),
            sized(w, plan.weightType(), K * C),
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
    own(plan)
        .bwdWeight(
            sized(dw, DType.F32, K * C),
            vector(dbias, K),
            sized(x, plan.real(), fits(n, plan) * C),
            sized(dy, plan.real(), n * K),
            n,
            mode.code,
            atLeast(workspace, plan.workspaceBytes()));
  }

  // pool2d, activation.

  @Override
  public void avgPoolFwd(Conv2dSpec spec, int n, Tensor y, Tensor x) {
    ops.avgPoolCheck(
        n, spec.H(), spec.W(), spec.C(), spec.R(), spec.S(), spec.stride(), spec.pad());
    ops.avgPoolFwd(
        context(),
        sized(y, x.dtype(), spec.outputCount(n)),
        sized(x, x.dtype(), spec.inputCount(n)),
        code(x.dtype()),
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
    ops.avgPoolBwd(
        context(),
        sized(dx, dy.dtype(), spec.inputCount(n)),
        sized(dy, dy.dtype(), spec.outputCount(n)),
        code(dy.dtype()),
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
    ops.activationFwd(
        context(),
        images(y, x.dtype(), n, x),
        images(x, x.dtype(), n, x),
        code(x.dtype()),
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
    ops.activationBwd(
        context(),
        images(dx, x.dtype(), n, x),
        images(dy, x.dtype(), n, x),
        images(x, x.dtype(), n, x),
        shortcutOrNull == null ? 0 : images(shortcutOrNull, x.dtype(), n, x),
        code(x.dtype()),
        n * x.shape().innerCount(),
        kind.code,
        slope);
  }

  // softmax_xent, the end of a step, image.

  @Override
  public long softmaxXentWorkspaceBytes(int maxImages) {
    return ops.softmaxXentWorkspaceBytes(maxImages);
  }

  @Override
  public void softmaxXent(
      int n,
      StepState step,
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
    DType real = logits.dtype();
    ops.softmaxXent(
        context(),
        sized(step.metrics(), DType.F64, 4),
        dlogitsOrNull == null ? 0 : images(dlogitsOrNull, real, n, logits),
        images(logits, real, n, logits),
        code(real),
        sized(labels, DType.I32, n),
        teacherLogitsOrNull == null ? 0 : images(teacherLogitsOrNull, real, n, logits),
        lossScale(step),
        smoothing,
        temperature,
        gradientScale,
        n,
        K,
        mode.code,
        atLeast(workspace, softmaxXentWorkspaceBytes(n)));
  }

  /** Its address, or 0. */
  protected final long lossScale(StepState step) {
    return step.lossScaleOrNull() == null ? 0 : sized(step.lossScaleOrNull(), DType.F64, 4);
  }

  @Override
  public long finiteNormWorkspaceBytes(long count) {
    return ops.finiteNormWorkspaceBytes(count);
  }

  @Override
  public void imageNormalize(
      ImageSpec spec, int n, Tensor x, Tensor pixels, Tensor crops, Tensor mean, Tensor std) {
    ops.imageCheck(n, spec.H0(), spec.W0(), spec.C(), spec.H(), spec.W(), spec.pad());
    ops.imageNormalize(
        context(),
        sized(x, x.dtype(), (long) n * spec.H() * spec.W() * spec.C()),
        code(x.dtype()),
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

  // Checks. Each returns the address, so that a call reads as one expression and allocates nothing.

  /** The message is joined only where it is needed: a step calls this hundreds of times. */
  protected static void check(
      boolean condition, String op, String what, Object got, String forWhat, Object other) {
    if (!condition) {
      throw new IllegalArgumentException(op + ": " + what + got + forWhat + other);
    }
  }

  protected final long address(Tensor tensor) {
    Buffer buffer = tensor.buffer() instanceof Arena arena ? arena.slab() : tensor.buffer();
    if (buffer != null && (!(buffer instanceof OwnedBuffer own) || own.owner() != memory())) {
      throw new IllegalArgumentException(
          "tensor " + tensor + " does not lie in memory of " + description());
    }
    return tensor.address();
  }

  protected final long typed(Tensor tensor, DType dtype) {
    if (tensor.dtype() != dtype) {
      throw new IllegalArgumentException("expected " + dtype + ", got " + tensor);
    }
    return address(tensor);
  }

  /** At least {@code count} elements: tensors are planned for the largest batch. */
  protected final long sized(Tensor tensor, DType dtype, long count) {
    if (tensor.shape().count() < count) {
      throw new IllegalArgumentException("expected at least " + count + " elements, got " + tensor);
    }
    return typed(tensor, dtype);
  }

  protected final long atLeast(Tensor tensor, long bytes) {
    if (tensor.bytes() < bytes) {
      throw new IllegalArgumentException(
          "workspace of " + tensor.bytes() + " bytes, needs " + bytes);
    }
    return address(tensor);
  }

  /** A float vector of exactly {@code count}, or null. */
  protected final long vector(Tensor tensorOrNull, long count) {
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
    return vector(Objects.requireNonNull(tensor), count);
  }

  private long vector64(Tensor tensor, long count) {
    if (tensor.shape().count() != count) {
      throw new IllegalArgumentException("expected " + count + " elements, got " + tensor);
    }
    return typed(tensor, DType.F64);
  }

  /** Sums over the rows of {@code n} images of {@code v}. */
  private long sums(Tensor tensor, int n, Tensor v) {
    long c = channels(v);
    return sized(tensor, DType.F64, 2 * c * batchNormSlices(rows(n, v), (int) c));
  }

  /** Of the input of a normalisation: an integer, or like the other real tensors. */
  private int valueCode(Tensor v, DType real) {
    DType type = v.dtype();
    check(
        type == DType.I16 || type == DType.I32 || type == real,
        "batch_norm",
        "values ",
        v,
        " beside ",
        real);
    return type.code;
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

  protected static long taps(Tensor w) {
    return w.shape().innerCount() / channels(w);
  }

  private Ops.BinaryConv own(Plan.BinaryConv plan) {
    return (Ops.BinaryConv) owned(plan);
  }

  private Ops.BinaryConv backward(Plan.BinaryConv plan) {
    Ops.BinaryConv own = own(plan);
    if (!own.hasBackward()) {
      throw new IllegalArgumentException("this plan has no backward passes: " + plan.spec());
    }
    return own;
  }

  private Ops.Conv2d own(Plan.Conv2d plan) {
    return (Ops.Conv2d) owned(plan);
  }

  private Ops.Linear own(Plan.Linear plan) {
    return (Ops.Linear) owned(plan);
  }

  private Plan owned(Plan plan) {
    if (!(plan instanceof Ops.Planned planned) || planned.owner() != this) {
      throw new IllegalArgumentException("plan of another backend: " + plan);
    }
    return plan;
  }
}
