package bireal.backend.cpu;

import bireal.backend.CheckedBackend;
import bireal.backend.Conv2dSpec;
import bireal.backend.Lanes;
import bireal.backend.Ops;
import bireal.runtime.NativeHandle;
import bireal.tensor.DType;
import java.util.function.IntToLongFunction;
import java.util.function.LongConsumer;

/**
 * Plans of {@link CpuBackend}: a native object and what it said of itself. Closed by whoever
 * planned.
 */
abstract class CpuPlan implements Ops.Planned {
  private final CheckedBackend owner;
  private final Handles handles;
  private final int maxImages;
  private final long workspaceBytes;
  private final String kernelName;

  private CpuPlan(
      CheckedBackend owner,
      Handles handles,
      int maxImages,
      long workspaceBytes,
      String kernelName) {
    this.owner = owner;
    this.handles = handles;
    this.maxImages = maxImages;
    this.workspaceBytes = workspaceBytes;
    this.kernelName = kernelName;
  }

  /** Throws IllegalStateException after close(). */
  final long pointer() {
    return handles.pointer();
  }

  @Override
  public final CheckedBackend owner() {
    return owner;
  }

  @Override
  public final DType real() {
    return DType.F32;
  }

  @Override
  public final int maxImages() {
    return maxImages;
  }

  @Override
  public final long workspaceBytes() {
    return workspaceBytes;
  }

  @Override
  public final String kernelName() {
    return kernelName;
  }

  @Override
  public final void close() {
    handles.close();
  }

  /** A native object for each lane of a backend ({@link Lanes}). */
  static final class Handles implements AutoCloseable {
    private static final class Handle extends NativeHandle {
      Handle(String what, long pointer, LongConsumer free) {
        super(what, pointer, free);
      }
    }

    private final Handle[] of;

    /** {@code make} gives the object of a lane. Closes those made if another cannot be. */
    Handles(int lanes, String what, IntToLongFunction make, LongConsumer free) {
      of = new Handle[lanes];
      try {
        for (int lane = 0; lane < lanes; lane++) {
          of[lane] = new Handle(what, make.applyAsLong(lane), free);
        }
      } catch (RuntimeException | Error e) {
        close();
        throw e;
      }
    }

    /** That of the calling thread's lane; throws IllegalStateException after close(). */
    long pointer() {
      return of[of.length == 1 ? 0 : Lanes.current()].pointer();
    }

    /** That of {@code lane}. */
    long pointer(int lane) {
      return of[lane].pointer();
    }

    @Override
    public void close() {
      for (Handle handle : of) {
        if (handle != null) {
          handle.close();
        }
      }
    }
  }

  static final class BinaryConv extends CpuPlan implements Ops.BinaryConv {
    private final Conv2dSpec spec;
    private final long preparedBytes;
    private final DType valueType;
    private final boolean hasBackward;
    private final boolean reference;

    BinaryConv(
        CheckedBackend owner,
        Conv2dSpec spec,
        int maxImages,
        boolean hasBackward,
        boolean reference,
        Handles handles) {
      super(
          owner,
          handles,
          maxImages,
          CpuOps.binaryConvWorkspaceBytes(handles.pointer()),
          CpuOps.binaryConvKernelName(handles.pointer()));
      this.spec = spec;
      this.hasBackward = hasBackward;
      this.reference = reference;
      this.preparedBytes = CpuOps.binaryConvPreparedBytes(pointer());
      this.valueType =
          CpuOps.binaryConvValueType(pointer()) == DType.I16.code ? DType.I16 : DType.I32;
    }

    @Override
    public Conv2dSpec spec() {
      return spec;
    }

    @Override
    public boolean hasBackward() {
      return hasBackward;
    }

    @Override
    public void prepare(long prepared, long w) {
      CpuOps.binaryConvPrepare(pointer(), prepared, w);
    }

    @Override
    public void fwd(long v, long sums, long x, long prepared, long n, long workspace) {
      CpuOps.binaryConvFwd(pointer(), v, sums, x, prepared, n, workspace);
    }

    /** The law of the reference is that of the two ops. */
    @Override
    public boolean fusesBatchNorm() {
      return !reference;
    }

    @Override
    public boolean fusesStatistics() {
      return false;
    }

    @Override
    public void batchNormFwd(
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
      CpuOps.binaryConvBatchNormFwd(
          pointer(),
          y,
          bits,
          x,
          prepared,
          affine,
          shortcut,
          shortcutAffine,
          bias1,
          slope,
          bias2,
          threshold,
          n,
          workspace);
    }

    @Override
    public void bwdInput(long dx, long dz, long alpha, long w, long n, long workspace) {
      CpuOps.binaryConvBwdInput(pointer(), dx, dz, alpha, w, n, workspace);
    }

    @Override
    public void bwdWeight(long dw, long x, long dz, long n, int mode, long workspace) {
      CpuOps.binaryConvBwdWeight(pointer(), dw, x, dz, n, mode, workspace);
    }

    @Override
    public long preparedBytes() {
      return preparedBytes;
    }

    @Override
    public DType valueType() {
      return valueType;
    }

    @Override
    public long fallbacks() {
      return CpuOps.binaryConvFallbacks(pointer());
    }
  }

  static final class Conv2d extends CpuPlan implements Ops.Conv2d {
    private final Conv2dSpec spec;
    private final boolean reference;

    Conv2d(
        CheckedBackend owner, Conv2dSpec spec, int maxImages, boolean reference, Handles handles) {
      super(
          owner,
          handles,
          maxImages,
          CpuOps.conv2dWorkspaceBytes(handles.pointer()),
          CpuOps.conv2dKernelName(handles.pointer()));
      this.spec = spec;
      this.reference = reference;
    }

    @Override
    public void fwd(long y, long x, long w, long n, long workspace) {
      CpuOps.conv2dFwd(pointer(), y, x, w, n, workspace);
    }

    /** The law of the reference is that of the three ops. */
    @Override
    public boolean fusesMaxPool(Conv2dSpec pool) {
      return !reference
          && CpuOps.conv2dFusesMaxPool(pointer(), pool.R(), pool.S(), pool.stride(), pool.pad());
    }

    @Override
    public void maxPoolBatchNormFwd(
        long y,
        long bits,
        long x,
        long w,
        long gamma,
        long affine,
        long threshold,
        long n,
        long workspace) {
      CpuOps.conv2dMaxPoolBatchNormFwd(
          pointer(), y, bits, x, w, gamma, affine, threshold, n, workspace);
    }

    @Override
    public void bwdInput(long dx, long dy, long w, long n, long workspace) {
      CpuOps.conv2dBwdInput(pointer(), dx, dy, w, n, workspace);
    }

    @Override
    public void bwdWeight(long dw, long x, long dy, long n, int mode, long workspace) {
      CpuOps.conv2dBwdWeight(pointer(), dw, x, dy, n, mode, workspace);
    }

    @Override
    public Conv2dSpec spec() {
      return spec;
    }
  }

  static final class Linear extends CpuPlan implements Ops.Linear {
    private final int inputs;
    private final int outputs;

    Linear(
        CheckedBackend owner,
        String kernelName,
        int inputs,
        int outputs,
        int maxImages,
        Handles handles) {
      super(owner, handles, maxImages, CpuOps.linearWorkspaceBytes(handles.pointer()), kernelName);
      this.inputs = inputs;
      this.outputs = outputs;
    }

    @Override
    public void fwd(long y, long x, long w, long bias, long n, long workspace) {
      CpuOps.linearFwd(pointer(), y, x, w, bias, n, workspace);
    }

    @Override
    public void bwdInput(long dx, long dy, long w, long n, long workspace) {
      CpuOps.linearBwdInput(pointer(), dx, dy, w, n, workspace);
    }

    @Override
    public void bwdWeight(long dw, long dbias, long x, long dy, long n, int mode, long workspace) {
      CpuOps.linearBwdWeight(pointer(), dw, dbias, x, dy, n, mode, workspace);
    }

    @Override
    public int C() {
      return inputs;
    }

    @Override
    public int K() {
      return outputs;
    }
  }
}
