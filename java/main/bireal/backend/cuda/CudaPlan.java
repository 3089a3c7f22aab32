package bireal.backend.cuda;

import bireal.backend.CheckedBackend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Ops;
import bireal.runtime.NativeHandle;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Scope;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Plans of {@link CudaBackend}. Closed by whoever planned. */
abstract class CudaPlan implements Ops.Planned {
  private static final long ALIGNMENT = 256;

  protected final CudaBackend owner;
  protected final DType real;
  protected final Scope opened = new Scope();
  private final int maxImages;
  private boolean closed;

  private CudaPlan(CudaBackend owner, int maxImages, DType real) {
    this.owner = owner;
    this.maxImages = maxImages;
    this.real = real;
  }

  private static long aligned(long bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }

  private static long bytes(DType type, long count) {
    return aligned(type.bytes(Shape.of(count)));
  }

  /** Throws IllegalStateException after close(). */
  protected final void requireOpen() {
    if (closed) {
      throw new IllegalStateException(this + " is closed");
    }
  }

  protected static boolean accumulates(int mode) {
    return mode == GradMode.ACCUMULATE.code;
  }

  @Override
  public final CheckedBackend owner() {
    return owner;
  }

  @Override
  public final int maxImages() {
    return maxImages;
  }

  @Override
  public final DType real() {
    return real;
  }

  @Override
  public final void close() {
    closed = true;
    opened.close();
  }

  /**
   * Forward by our kernels. Backward by our kernels for F32, and by cuDNN for 16-bit values: with
   * the bits unpacked to -1 and 1, and with weights that are alpha times the signs, it runs on
   * tensor cores.
   */
  static final class BinaryConv extends CudaPlan implements Ops.BinaryConv {
    private static final class Handle extends NativeHandle {
      Handle(Conv2dSpec spec, long pointer) {
        super("binary convolution plan " + spec, pointer, CudaOps::destroyBinaryConv);
      }
    }

    private final Conv2dSpec spec;
    private final boolean hasBackward;
    private final Handle handle;
    private final DType valueType;
    private final String kernelName;
    private final boolean fusesBatchNorm;
    private final CudnnConvolution library; // or null
    private final long unpackedInputBytes;
    private final long workspaceBytes;

    BinaryConv(CudaBackend owner, Conv2dSpec spec, int maxImages, DType real, boolean hasBackward) {
      super(owner, maxImages, real);
      this.spec = spec;
      this.hasBackward = hasBackward;
      handle =
          opened.add(
              new Handle(
                  spec,
                  owner.taking(
                      "choice of the forward kernel of " + spec,
                      () ->
                          CudaOps.planBinaryConv(
                              owner.context(),
                              maxImages,
                              spec.H(),
                              spec.W(),
                              spec.C(),
                              spec.K(),
                              spec.R(),
                              spec.S(),
                              spec.stride(),
                              spec.pad(),
                              real.code,
                              hasBackward,
                              !Boolean.getBoolean(CudaBackend.UNMEASURED)))));
      long pointer = handle.pointer();
      valueType = CudaOps.binaryConvValueType(pointer) == DType.I16.code ? DType.I16 : DType.I32;
      fusesBatchNorm = CudaOps.binaryConvFusesBatchNorm(pointer);
      library =
          hasBackward && real != DType.F32
              ? opened.add(new CudnnConvolution(owner, spec, maxImages, real))
              : null;
      unpackedInputBytes = bytes(real, spec.inputCount(maxImages));
      kernelName =
          CudaOps.binaryConvKernelName(pointer) + (library == null ? "" : ", cuDNN backward");
      if (!hasBackward) {
        workspaceBytes = 0;
      } else if (library == null) {
        workspaceBytes = CudaOps.binaryConvWorkspaceBytes(pointer);
      } else {
        workspaceBytes = unpackedInputBytes + library.workspaceBytes();
      }
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
    public DType weightType() {
      return library == null ? DType.BITS : real;
    }

    @Override
    public DType gradientType() {
      return library == null ? DType.F32 : real;
    }

    @Override
    public long preparedBytes() {
      return 0;
    }

    @Override
    public long workspaceBytes() {
      return workspaceBytes;
    }

    @Override
    public DType valueType() {
      return valueType;
    }

    @Override
    public long fallbacks() {
      return 0;
    }

    @Override
    public String kernelName() {
      return kernelName;
    }

    @Override
    public void prepare(long prepared, long w) {
      requireOpen();
    }

    @Override
    public void fwd(long v, long sums, long x, long prepared, long n, long workspace) {
      CudaOps.binaryConvFwd(handle.pointer(), v, sums, x, prepared, n);
    }

    @Override
    public boolean fusesBatchNorm() {
      return fusesBatchNorm;
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
      CudaOps.binaryConvBatchNormFwd(
          handle.pointer(),
          y,
          type,
          bits,
          v,
          x,
          prepared,
          affine,
          stats,
          runningSums,
          sums,
          alpha,
          gamma,
          beta,
          eps,
          shortcut,
          shortcutAffine,
          bias1,
          slope,
          bias2,
          threshold,
          n);
    }

    @Override
    public void bwdInput(long dx, long dz, long alpha, long w, long n, long workspace) {
      if (library == null) {
        CudaOps.binaryConvBwdInput(handle.pointer(), dx, dz, alpha, w, n);
        return;
      }
      library.run(CudnnConvolution.Pass.BACKWARD_INPUT, dx, dz, w, n, false, workspace);
    }

    @Override
    public void bwdWeight(long dw, long x, long dz, long n, int mode, long workspace) {
      if (library == null) {
        CudaOps.binaryConvBwdWeight(handle.pointer(), dw, x, dz, n, mode, workspace);
        return;
      }
      owner
          .ops()
          .signUnpackFwd(
              owner.context(), workspace, real.code, x, n * spec.H() * spec.W(), spec.C());
      library.run(
          CudnnConvolution.Pass.BACKWARD_WEIGHT,
          dw,
          workspace,
          dz,
          n,
          false,
          workspace + unpackedInputBytes);
    }
  }

  /** Through cuBLAS where it is a product of matrices (1x1), else through cuDNN. */
  static final class Conv2d extends CudaPlan implements Ops.Conv2d {
    private final Conv2dSpec spec;
    private final CudnnConvolution library; // or null: a product
    private final String kernelName;

    Conv2d(CudaBackend owner, Conv2dSpec spec, int maxImages, DType real) {
      super(owner, maxImages, real);
      this.spec = spec;
      if (maxImages < 1 || spec.C() < 1 || spec.K() < 1 || spec.P() < 1 || spec.Q() < 1) {
        throw new IllegalArgumentException("conv2d: no such convolution: " + spec);
      }
      boolean product = spec.R() == 1 && spec.S() == 1 && spec.stride() == 1 && spec.pad() == 0;
      library = product ? null : opened.add(new CudnnConvolution(owner, spec, maxImages, real));
      kernelName = product ? "cuBLAS" : library.name();
    }

    @Override
    public Conv2dSpec spec() {
      return spec;
    }

    @Override
    public DType weightType() {
      return real;
    }

    /** A product sums in F32 whatever its operands are. */
    @Override
    public DType gradientType() {
      return library == null ? DType.F32 : real;
    }

    @Override
    public long workspaceBytes() {
      return library == null ? 0 : library.workspaceBytes();
    }

    @Override
    public String kernelName() {
      return kernelName;
    }

    private long rows(long n) {
      return n * spec.P() * spec.Q();
    }

    @Override
    public void fwd(long y, long x, long w, long n, long workspace) {
      requireOpen();
      if (library == null) {
        owner.gemm().fwd(y, x, w, real, rows(n), spec.C(), spec.K(), false);
      } else {
        library.run(CudnnConvolution.Pass.FORWARD, y, x, w, n, false, workspace);
      }
    }

    @Override
    public void bwdInput(long dx, long dy, long w, long n, long workspace) {
      requireOpen();
      if (library == null) {
        owner.gemm().bwdInput(dx, dy, w, real, rows(n), spec.C(), spec.K());
      } else {
        library.run(CudnnConvolution.Pass.BACKWARD_INPUT, dx, dy, w, n, false, workspace);
      }
    }

    @Override
    public void bwdWeight(long dw, long x, long dy, long n, int mode, long workspace) {
      requireOpen();
      if (library == null) {
        owner.gemm().bwdWeight(dw, x, dy, real, rows(n), spec.C(), spec.K(), accumulates(mode));
      } else {
        library.run(
            CudnnConvolution.Pass.BACKWARD_WEIGHT, dw, x, dy, n, accumulates(mode), workspace);
      }
    }
  }

  /** Through cuBLAS; the bias is a product with a vector of ones. */
  static final class Linear extends CudaPlan implements Ops.Linear {
    private final int inputs;
    private final int outputs;
    private final Buffer ones;

    Linear(CudaBackend owner, int C, int K, int maxImages, DType real) {
      super(owner, maxImages, real);
      inputs = C;
      outputs = K;
      if (C < 1 || K < 1 || maxImages < 1) {
        throw new IllegalArgumentException(
            "linear: C, K and the batch must be >= 1, got " + C + ", " + K + ", " + maxImages);
      }
      ones = opened.add(owner.allocateOwn(bytes(real, maxImages), "ones"));
      ByteBuffer values = ByteBuffer.allocate((int) ones.bytes()).order(ByteOrder.LITTLE_ENDIAN);
      for (int i = 0; i < maxImages; i++) {
        switch (real) {
          case F16 -> values.putShort((short) 0x3c00);
          case BF16 -> values.putShort((short) 0x3f80);
          default -> values.putFloat(1);
        }
      }
      owner.write(new Tensor(ones, 0, Shape.of(ones.bytes()), DType.U8), values.flip());
    }

    @Override
    public int C() {
      return inputs;
    }

    @Override
    public int K() {
      return outputs;
    }

    @Override
    public DType weightType() {
      return real;
    }

    @Override
    public long workspaceBytes() {
      return 0;
    }

    @Override
    public String kernelName() {
      return "cuBLAS";
    }

    @Override
    public void fwd(long y, long x, long w, long bias, long n, long workspace) {
      requireOpen();
      owner.gemm().fwd(y, ones.address(), bias, real, n, 1, outputs, false);
      owner.gemm().fwd(y, x, w, real, n, inputs, outputs, true);
    }

    @Override
    public void bwdInput(long dx, long dy, long w, long n, long workspace) {
      requireOpen();
      owner.gemm().bwdInput(dx, dy, w, real, n, inputs, outputs);
    }

    @Override
    public void bwdWeight(long dw, long dbias, long x, long dy, long n, int mode, long workspace) {
      requireOpen();
      owner.gemm().bwdWeight(dw, x, dy, real, n, inputs, outputs, accumulates(mode));
      owner.gemm().bwdWeight(dbias, ones.address(), dy, real, n, 1, outputs, accumulates(mode));
    }
  }
}
