package bireal.backend.cuda;

import bireal.backend.CheckedBackend;
import bireal.backend.Conv2dSpec;
import bireal.backend.GradMode;
import bireal.backend.Gradient;
import bireal.backend.GradientCast;
import bireal.backend.Plan;
import bireal.backend.SgdForm;
import bireal.backend.StepState;
import bireal.backend.Update;
import bireal.backend.UpdateSpec;
import bireal.backend.WeightCast;
import bireal.runtime.DeviceException;
import bireal.runtime.NativeHandle;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import java.util.function.LongSupplier;
import jcuda.CudaException;
import jcuda.Pointer;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUresult;
import jcuda.driver.CUstream;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;
import jcuda.jcublas.JCublas2;
import jcuda.jcublas.cublasHandle;
import jcuda.jcublas.cublasMath;
import jcuda.jcudnn.JCudnn;
import jcuda.jcudnn.cudnnHandle;
import jcuda.runtime.cudaStream_t;

/**
 * An NVIDIA GPU: our kernels for everything that is bits, normalisation, pooling, loss and update;
 * cuBLAS for products; cuDNN for real convolutions and, with 16-bit values, the backward passes of
 * binary ones. All work goes to one stream, in order; only {@link #read} and what frees memory
 * wait. Sums of doubles are added in an order set by the shape, another than the CPU's. One thread
 * at a time.
 */
public final class CudaBackend extends CheckedBackend {
  /**
   * Factors of a product's result and of what stands where it goes, for cuBLAS and cuDNN. In direct
   * memory: an array would be pinned for each call, and the collector would wait for it.
   */
  static final Pointer ONE = factor(1);

  static final Pointer ZERO = factor(0);

  /** What the driver is given; codes of {@code bireal::cuda::Device::Config::Images}. */
  enum Images {
    BY_DRIVER(0),
    MACHINE_CODE(1),
    PTX(2),
    OLD_PTX(3);

    final int code;

    Images(int code) {
      this.code = code;
    }
  }

  /** System property for tests: one of {@link Images}. */
  static final String IMAGES = "bireal.cuda.images";

  /** Set to wait after every launch, so that a fault is blamed on the kernel that made it. */
  static final String SYNCHRONIZE = "bireal.cuda.synchronize";

  /**
   * System property for tests: {@code true} takes the kernel that is likely fastest, without timing
   * any; an emulator's times say nothing.
   */
  static final String UNMEASURED = "bireal.cuda.unmeasured";

  private static final class Handle extends NativeHandle {
    Handle(long pointer) {
      super("CUDA backend", pointer, CudaOps::destroyContext);
    }
  }

  private final CudaOps ops;
  private final Handle handle;
  private final CUdevice device = new CUdevice();
  private final CUcontext primary = new CUcontext();
  private final Stream stream = new Stream();
  private final Staging staging;
  private Uploads uploads;
  private final Graphs graphs;
  private final cublasHandle blas = new cublasHandle();
  private final cudnnHandle dnn = new cudnnHandle();
  private final Gemm gemm;
  private final CudaDevice about;

  private CudaBackend(CudaOps ops, int ordinal, boolean graphs) {
    super(ops);
    this.ops = ops;
    String driver = CudaLibraries.load();
    about = CudaDevice.of(ordinal);
    handle =
        new Handle(
            CudaOps.createContext(
                driver,
                ordinal,
                Images.valueOf(System.getProperty(IMAGES, Images.BY_DRIVER.name())).code,
                Boolean.getBoolean(SYNCHRONIZE)));
    try {
      call("cuDeviceGet", () -> JCudaDriver.cuDeviceGet(device, ordinal));
      call("cuDevicePrimaryCtxRetain", () -> JCudaDriver.cuDevicePrimaryCtxRetain(primary, device));
      call("cuCtxSetCurrent", () -> JCudaDriver.cuCtxSetCurrent(primary));
      call(
          "cuStreamCreate",
          () -> JCudaDriver.cuStreamCreate(stream, CUstream_flags.CU_STREAM_NON_BLOCKING));
      CudaOps.setStream(context(), stream.address());
      cudaStream_t runtimeStream = new cudaStream_t(stream);
      call("cublasCreate", () -> JCublas2.cublasCreate(blas));
      call("cublasSetStream", () -> JCublas2.cublasSetStream(blas, runtimeStream));
      call(
          "cublasSetMathMode",
          () -> JCublas2.cublasSetMathMode(blas, cublasMath.CUBLAS_DEFAULT_MATH));
      // NVIDIA's sizes. Of our own, or a captured graph would take memory for each product.
      long bytes = CudaOps.computeCapability(context()) >= 90 ? 32L << 20 : 4L << 20;
      Buffer scratch = allocateOwn(bytes, "workspace of cuBLAS");
      call(
          "cublasSetWorkspace",
          () -> JCublas2.cublasSetWorkspace(blas, pointer(scratch.address()), bytes));
      call("cudnnCreate", () -> JCudnn.cudnnCreate(dnn));
      call("cudnnSetStream", () -> JCudnn.cudnnSetStream(dnn, runtimeStream));
      staging = new Staging(this, stream);
      uploads = new Uploads(this, stream);
      this.graphs = new Graphs(this, stream, graphs && !Boolean.getBoolean(SYNCHRONIZE));
      gemm = new Gemm(this, blas);
    } catch (RuntimeException | Error e) {
      handle.close();
      throw e;
    }
  }

  /**
   * Device {@code ordinal}, from 0. Throws DeviceException that says what is missing (driver,
   * cuBLAS, cuDNN, kernels) and how to get it, IllegalArgumentException for a device that does not
   * exist or is too old.
   */
  public static CudaBackend open(int ordinal) {
    return open(ordinal, true);
  }

  /** As above; without {@code graphs} every launch of every step is made anew. */
  public static CudaBackend open(int ordinal, boolean graphs) {
    return new CudaBackend(new CudaOps(), ordinal, graphs);
  }

  @Override
  protected long context() {
    return handle.pointer();
  }

  CudaDevice about() {
    return about;
  }

  CudaOps ops() {
    return ops;
  }

  cudnnHandle dnn() {
    return dnn;
  }

  /** Where all work goes. */
  CUstream stream() {
    return stream;
  }

  Graphs graphs() {
    return graphs;
  }

  Gemm gemm() {
    return gemm;
  }

  long addressOf(Tensor tensor) {
    return address(tensor);
  }

  @Override
  public String description() {
    return "cuda ("
        + about.name()
        + ", "
        + CudaOps.imageKind(context())
        + ", cuBLAS "
        + about.blasVersion()
        + ", cuDNN "
        + about.dnnVersion()
        + ")";
  }

  @Override
  public boolean stores(DType real) {
    return real == DType.F32
        || real == DType.F16
        || (real == DType.BF16 && CudaOps.computeCapability(context()) >= 80);
  }

  // JCuda's calls.

  private static Pointer factor(float value) {
    return Pointer.to(
        ByteBuffer.allocateDirect(Float.BYTES).order(ByteOrder.nativeOrder()).putFloat(0, value));
  }

  static Pointer pointer(long address) {
    return new Pointer().withByteOffset(address);
  }

  static CUdeviceptr devicePointer(long address) {
    return new CUdeviceptr().withByteOffset(address);
  }

  /** A call whose failure JCuda throws. */
  interface Call {
    void run();
  }

  /** Throws DeviceException that names {@code op}; fatal if the device is lost with it. */
  void call(String op, Call call) {
    try {
      call.run();
    } catch (CudaException e) {
      int sticky = CudaOps.stickyError(context());
      DeviceException exception =
          new DeviceException(op, sticky, op + ": " + text(e), CudaOps.isFatal(sticky));
      exception.initCause(e);
      throw exception;
    }
  }

  private static final String DNN_9 = "INVALID cudnnStatus: ";

  /** A cudnnStatus_t of cuDNN 9; 0 if {@code e} is of another library. */
  static int dnnStatus(Throwable e) {
    // JCudnn knows the numbers of cuDNN 8, and of others only writes the number.
    return e.getMessage().startsWith(DNN_9)
        ? Integer.parseInt(e.getMessage().substring(DNN_9.length()))
        : 0;
  }

  private static String text(CudaException e) {
    int status = dnnStatus(e);
    return status == 0 ? e.getMessage() : JCudnn.cudnnGetErrorString(status) + " (" + status + ")";
  }

  // Memory.

  @Override
  public long availableBytes() {
    long[] free = new long[1];
    long[] total = new long[1];
    call("cuMemGetInfo", () -> JCudaDriver.cuMemGetInfo(free, total));
    return free[0];
  }

  /** The whole batch: a GPU wants many. */
  @Override
  public int evaluationImages() {
    return Integer.MAX_VALUE;
  }

  @Override
  protected long take(long bytes) {
    Memory memory = new Memory();
    try {
      JCudaDriver.cuMemAlloc(memory, bytes);
    } catch (CudaException e) {
      if (e.getMessage().contains(CUresult.stringFor(CUresult.CUDA_ERROR_OUT_OF_MEMORY))) {
        throw new OutOfMemoryError(e.getMessage());
      }
      call(
          "cuMemAlloc",
          () -> {
            throw e;
          });
    }
    call("cuMemsetD8Async", () -> JCudaDriver.cuMemsetD8Async(memory, (byte) 0, bytes, stream));
    if (uploads != null) {
      uploads.release(); // an upload may come first
    }
    return memory.address();
  }

  /**
   * Memory that no network plans. Throws DeviceException with what can be done if it is not there.
   */
  Buffer allocateOwn(long bytes, String what) {
    try {
      return allocate(bytes, what);
    } catch (OutOfMemoryError e) {
      throw outOfMemory("cuMemAlloc", e.getMessage(), e);
    }
  }

  /** A native call that takes memory for {@code what}; throws as {@link #allocateOwn}. */
  long taking(String what, LongSupplier call) {
    try {
      return call.getAsLong();
    } catch (DeviceException e) {
      if (e.code() != CUresult.CUDA_ERROR_OUT_OF_MEMORY) {
        throw e;
      }
      throw outOfMemory(e.op(), what + ": " + e.getMessage(), e);
    }
  }

  DeviceException outOfMemory(String op, String message, Throwable cause) {
    DeviceException exception =
        new DeviceException(
            op,
            CUresult.CUDA_ERROR_OUT_OF_MEMORY,
            String.format(
                "%s; %,d MB are free: end what else uses the GPU, or set train.micro_batch lower",
                message, availableBytes() >> 20),
            false);
    exception.initCause(cause);
    return exception;
  }

  @Override
  protected void free(long address, long bytes) {
    if (uploads != null) { // not yet where opening the backend fails
      uploads.finish();
    }
    call("cuStreamSynchronize", () -> JCudaDriver.cuStreamSynchronize(stream));
    call("cuMemFree", () -> JCudaDriver.cuMemFree(devicePointer(address)));
  }

  private static final class Memory extends CUdeviceptr {
    long address() {
      return getNativePointer() + getByteOffset();
    }
  }

  @Override
  public void write(Tensor target, ByteBuffer source) {
    if (source.remaining() > target.bytes()) {
      throw new IllegalArgumentException(
          "writing " + source.remaining() + " bytes into " + target + " of " + target.bytes());
    }
    staging.write(address(target), source.duplicate());
  }

  @Override
  public void upload(Tensor target, ByteBuffer source) {
    if (source.remaining() > target.bytes()) {
      throw new IllegalArgumentException(
          "uploading " + source.remaining() + " bytes into " + target + " of " + target.bytes());
    }
    uploads.write(address(target), source.duplicate());
  }

  @Override
  public void awaitUploads() {
    uploads.await();
  }

  @Override
  public void releaseUploads() {
    uploads.release();
  }

  @Override
  public void replay(Runnable work, long key) {
    graphs.replay(work, key);
  }

  @Override
  public void forget(Runnable work) {
    graphs.forget(work);
  }

  @Override
  public void read(ByteBuffer target, Tensor source) {
    if (target.remaining() > source.bytes()) {
      throw new IllegalArgumentException(
          "reading " + target.remaining() + " bytes from " + source + " of " + source.bytes());
    }
    staging.read(target.duplicate(), address(source));
  }

  @Override
  public void zero(Tensor target) {
    long address = address(target);
    call(
        "cuMemsetD8Async",
        () ->
            JCudaDriver.cuMemsetD8Async(devicePointer(address), (byte) 0, target.bytes(), stream));
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
    copyBytes(address(target), address(source), source.bytes());
  }

  void copyBytes(long target, long source, long bytes) {
    call(
        "cuMemcpyDtoDAsync",
        () ->
            JCudaDriver.cuMemcpyDtoDAsync(
                devicePointer(target), devicePointer(source), bytes, stream));
  }

  // cast.

  @Override
  public void castWeights(List<WeightCast> casts) {
    if (casts.isEmpty()) {
      return;
    }
    DType real = casts.get(0).operand().dtype();
    long[] tensors = new long[5 * casts.size()];
    int at = 0;
    for (WeightCast cast : casts) {
      Shape shape = cast.w().shape();
      check(cast.operand().shape().equals(shape), "cast", "", cast.operand(), " of ", cast.w());
      tensors[at++] = typed(cast.operand(), real);
      tensors[at++] = typed(cast.w(), DType.F32);
      tensors[at++] = vector(cast.alphaOrNull(), shape.dim(0));
      tensors[at++] = shape.count();
      tensors[at++] = shape.innerCount();
    }
    CudaOps.castWeights(context(), code(real), tensors);
  }

  @Override
  public void castGradients(List<GradientCast> casts, GradMode mode) {
    if (casts.isEmpty()) {
      return;
    }
    DType real = casts.get(0).rounded().dtype();
    long[] tensors = new long[3 * casts.size()];
    int at = 0;
    for (GradientCast cast : casts) {
      Shape shape = cast.gradient().shape();
      check(
          cast.rounded().shape().equals(shape),
          "cast",
          "",
          cast.rounded(),
          " to ",
          cast.gradient());
      tensors[at++] = typed(cast.gradient(), DType.F32);
      tensors[at++] = typed(cast.rounded(), real);
      tensors[at++] = shape.count();
    }
    CudaOps.castGradients(context(), code(real), mode.code, tensors);
  }

  // Plans.

  @Override
  public Plan.BinaryConv planBinaryConv(
      Conv2dSpec spec, int maxImages, DType real, Gradient gradientOrNull) {
    code(real);
    if (gradientOrNull == Gradient.FIXED16) {
      throw new IllegalArgumentException(
          "backend cuda has no fixed-point gradients: set train.gradient to auto");
    }
    return new CudaPlan.BinaryConv(this, spec, maxImages, real, gradientOrNull != null);
  }

  @Override
  public Plan.Conv2d planConv2d(Conv2dSpec spec, int maxImages, DType real) {
    code(real);
    return new CudaPlan.Conv2d(this, spec, maxImages, real);
  }

  @Override
  public Plan.Linear planLinear(int C, int K, int maxImages, DType real) {
    code(real);
    return new CudaPlan.Linear(this, C, K, maxImages, real);
  }

  // The end of a step.

  @Override
  protected Update openUpdate(UpdateSpec spec) {
    return new CudaUpdate(this, spec);
  }

  private CudaUpdate own(Update update) {
    if (!(update instanceof CudaUpdate own) || own.owner() != this) {
      throw new IllegalArgumentException("update of another backend");
    }
    return own;
  }

  @Override
  public void finiteNorm(Update update, StepState step, Tensor workspace) {
    UpdateSpec spec = own(update).spec();
    CudaOps.finiteNorm(
        own(update).pointer(),
        sized(step.state(), DType.F64, 4),
        lossScale(step),
        typed(spec.gradients(), DType.F32),
        typed(spec.parameters(), DType.F32),
        sized(step.metrics(), DType.F64, 4));
  }

  @Override
  public void adam(
      Update update, Tensor m, Tensor v, StepState step, double beta1, double beta2, double eps) {
    UpdateSpec spec = own(update).spec();
    long count = spec.parameters().shape().count();
    CudaOps.adam(
        own(update).pointer(),
        typed(spec.parameters(), DType.F32),
        sized(m, DType.F32, count),
        sized(v, DType.F32, count),
        typed(spec.gradients(), DType.F32),
        sized(step.state(), DType.F64, 4),
        lossScale(step),
        beta1,
        beta2,
        eps);
  }

  @Override
  public void sgd(
      Update update, Tensor momentumBuffer, StepState step, double momentum, SgdForm form) {
    UpdateSpec spec = own(update).spec();
    CudaOps.sgd(
        own(update).pointer(),
        typed(spec.parameters(), DType.F32),
        sized(momentumBuffer, DType.F32, spec.parameters().shape().count()),
        typed(spec.gradients(), DType.F32),
        sized(step.state(), DType.F64, 4),
        lossScale(step),
        momentum,
        form.code);
  }

  @Override
  public void batchNormCommit(Update update, StepState step, int microBatchCount) {
    if (microBatchCount < 1) {
      throw new IllegalArgumentException(
          "batch_norm: a step has at least 1 micro-batch, got " + microBatchCount);
    }
    CudaOps.batchNormCommit(
        own(update).pointer(),
        sized(step.state(), DType.F64, 4) + StepState.NONFINITE * Double.BYTES,
        microBatchCount,
        update.spec().momentum());
  }

  /**
   * Frees what is still allocated, and the device. Plans and updates must be closed before. After a
   * fatal error nothing can be freed any more, and nothing is tried.
   */
  @Override
  public void close() {
    if (CudaOps.isFatal(CudaOps.stickyError(context()))) {
      forgetAll();
      handle.close();
      return;
    }
    graphs.close();
    freeAll();
    uploads.close();
    staging.close();
    call("cudnnDestroy", () -> JCudnn.cudnnDestroy(dnn));
    call("cublasDestroy", () -> JCublas2.cublasDestroy(blas));
    call("cuStreamDestroy", () -> JCudaDriver.cuStreamDestroy(stream));
    call("cuDevicePrimaryCtxRelease", () -> JCudaDriver.cuDevicePrimaryCtxRelease(device));
    handle.close();
  }
}
