package bireal.backend.cpu;

import bireal.backend.Backend;
import bireal.backend.CheckedBackend;
import bireal.backend.Conv2dSpec;
import bireal.backend.Gradient;
import bireal.backend.Lanes;
import bireal.backend.Plan;
import bireal.backend.SgdForm;
import bireal.backend.StepState;
import bireal.backend.Update;
import bireal.backend.UpdateSpec;
import bireal.runtime.NativeLibrary;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Tensor;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Locale;
import java.util.function.IntConsumer;
import java.util.function.LongConsumer;
import java.util.function.LongUnaryOperator;

/**
 * The CPU, in two grades: the fast path (own kernels for the chosen instruction set, oneDNN for
 * real convolutions), and the reference, which runs the slow plain-loop law of every op. All
 * natives block until done. Real values are F32. One thread at a time, but for {@link #evaluation}.
 */
public final class CpuBackend extends CheckedBackend {
  private final CpuBackend main; // this, or the backend whose threads are lanes here
  private final CpuPlan.Handles contexts;
  private final Lanes lanes;
  private final boolean reference;
  private final int threads; // of an op
  private CpuBackend evaluation;

  private CpuBackend(int threads, int isaCode, boolean reference) {
    super(new CpuOps());
    NativeLibrary.load();
    this.main = this;
    this.threads = threads;
    this.reference = reference;
    this.lanes = new Lanes(1);
    this.contexts = contexts(isaCode);
  }

  /** Each thread of {@code main} is a lane. */
  private CpuBackend(CpuBackend main) {
    super(new CpuOps());
    this.main = main;
    this.threads = 1;
    this.reference = main.reference;
    this.lanes = new Lanes(main.threads);
    this.contexts = contexts(main.isa().code);
  }

  private CpuPlan.Handles contexts(int isaCode) {
    return new CpuPlan.Handles(
        lanes(),
        "CPU backend",
        lane -> CpuOps.createContext(threads, isaCode, reference),
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
    return Isa.of(CpuOps.contextIsa(context()));
  }

  @Override
  protected long context() {
    return contexts.pointer();
  }

  @Override
  public String description() {
    return reference
        ? "reference (plain loops, 1 thread)"
        : "cpu ("
            + isa().name().toLowerCase(Locale.ROOT)
            + ", "
            + main.threads
            + (main.threads == 1 ? " thread)" : " threads)");
  }

  // Memory.

  @Override
  public long availableBytes() {
    return FreeMemory.bytes();
  }

  /**
   * Lanes where there are images for all threads: a pass has 60 ops, and at the end of each its
   * threads would wait for the last of them.
   */
  @Override
  public Backend evaluation(int maxImages) {
    if (threads == 1 || maxImages < threads) {
      return this;
    }
    if (evaluation == null) {
      context(); // throws if closed
      evaluation = new CpuBackend(this);
    }
    return evaluation;
  }

  @Override
  public int lanes() {
    return lanes.count();
  }

  @Override
  public void passes(int count, IntConsumer pass) {
    lanes.run(count, pass);
  }

  /**
   * So few that what one op writes is still in the caches when the next one reads it, but four for
   * each thread of an op: most ops are cut by images, and at the end of each the threads wait for
   * the last. Plans for up to 16 images compute each by itself, so the count cannot show in the
   * results (native/cpu/onednn.h).
   */
  @Override
  public int evaluationImages() {
    return Math.min(4 * threads, 16);
  }

  @Override
  protected CheckedBackend memory() {
    return main;
  }

  @Override
  public Buffer allocate(long bytes, String what) {
    return main == this ? super.allocate(bytes, what) : main.allocate(bytes, what);
  }

  @Override
  protected long take(long bytes) {
    return NativeMemory.allocate(bytes);
  }

  @Override
  protected void free(long address, long bytes) {
    NativeMemory.free(address, bytes);
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
  public Plan.BinaryConv planBinaryConv(
      Conv2dSpec spec, int maxImages, DType real, Gradient gradientOrNull) {
    code(real);
    return new CpuPlan.BinaryConv(
        this,
        spec,
        maxImages,
        gradientOrNull != null,
        reference,
        plans(
            "binary convolution plan " + spec,
            context ->
                CpuOps.planBinaryConv(
                    context,
                    maxImages,
                    spec.H(),
                    spec.W(),
                    spec.C(),
                    spec.K(),
                    spec.R(),
                    spec.S(),
                    spec.stride(),
                    spec.pad(),
                    code(gradientOrNull)),
            CpuOps::destroyBinaryConv));
  }

  private CpuPlan.Handles plans(String what, LongUnaryOperator plan, LongConsumer free) {
    return new CpuPlan.Handles(
        lanes(), what, lane -> plan.applyAsLong(contexts.pointer(lane)), free);
  }

  private static int code(Gradient gradientOrNull) {
    if (gradientOrNull == null) {
      return Gradient.NONE;
    }
    return (gradientOrNull == Gradient.AUTO ? Gradient.FIXED16 : gradientOrNull).code;
  }

  @Override
  public Plan.Conv2d planConv2d(Conv2dSpec spec, int maxImages, DType real) {
    code(real);
    return new CpuPlan.Conv2d(
        this,
        spec,
        maxImages,
        reference,
        plans(
            "convolution plan " + spec,
            context ->
                CpuOps.planConv2d(
                    context,
                    maxImages,
                    spec.H(),
                    spec.W(),
                    spec.C(),
                    spec.K(),
                    spec.R(),
                    spec.S(),
                    spec.stride(),
                    spec.pad()),
            CpuOps::destroyConv2d));
  }

  @Override
  public Plan.Linear planLinear(int C, int K, int maxImages, DType real) {
    code(real);
    return new CpuPlan.Linear(
        this,
        reference ? "reference" : "oneDNN",
        C,
        K,
        maxImages,
        plans(
            "linear plan " + C + " to " + K,
            context -> CpuOps.planLinear(context, maxImages, C, K),
            CpuOps::destroyLinear));
  }

  // The end of a step.

  @Override
  protected Update openUpdate(UpdateSpec spec) {
    return new CpuUpdate(this, spec);
  }

  private UpdateSpec spec(Update update) {
    if (!(update instanceof CpuUpdate own) || own.owner() != this) {
      throw new IllegalArgumentException("update of another backend");
    }
    return update.spec();
  }

  @Override
  public void finiteNorm(Update update, StepState step, Tensor workspace) {
    UpdateSpec spec = spec(update);
    List<UpdateSpec.BinaryParameter> binary = spec.binary();
    for (int i = 0; i < binary.size(); i++) {
      UpdateSpec.BinaryParameter b = binary.get(i);
      weightGradient(b.gradient(), b.w(), b.alpha(), b.rule());
    }
    long count = spec.gradients().shape().count();
    CpuOps.finiteNorm(
        context(),
        sized(step.state(), DType.F64, 4),
        typed(spec.gradients(), DType.F32),
        sized(step.metrics(), DType.F64, 4),
        count,
        atLeast(workspace, finiteNormWorkspaceBytes(count)));
  }

  @Override
  public void adam(
      Update update, Tensor m, Tensor v, StepState step, double beta1, double beta2, double eps) {
    UpdateSpec spec = spec(update);
    long count = spec.parameters().shape().count();
    CpuOps.adam(
        context(),
        typed(spec.parameters(), DType.F32),
        sized(m, DType.F32, count),
        sized(v, DType.F32, count),
        typed(spec.gradients(), DType.F32),
        ((CpuUpdate) update).segments(),
        spec.trained().size(),
        sized(step.state(), DType.F64, 4),
        beta1,
        beta2,
        eps);
    renewBits(spec);
  }

  @Override
  public void sgd(
      Update update, Tensor momentumBuffer, StepState step, double momentum, SgdForm form) {
    UpdateSpec spec = spec(update);
    CpuOps.sgd(
        context(),
        typed(spec.parameters(), DType.F32),
        sized(momentumBuffer, DType.F32, spec.parameters().shape().count()),
        typed(spec.gradients(), DType.F32),
        ((CpuUpdate) update).segments(),
        spec.trained().size(),
        sized(step.state(), DType.F64, 4),
        momentum,
        form.code);
    renewBits(spec);
  }

  private void renewBits(UpdateSpec spec) {
    List<UpdateSpec.BinaryParameter> binary = spec.binary();
    for (int i = 0; i < binary.size(); i++) {
      UpdateSpec.BinaryParameter b = binary.get(i);
      weightBinarizeFwd(b.bits(), b.alpha(), b.w());
      if (b.plan() != null) {
        binaryConvPrepare(b.plan(), b.prepared(), b.bits());
      }
    }
  }

  @Override
  public void batchNormCommit(Update update, StepState step, int microBatchCount) {
    if (microBatchCount < 1) {
      throw new IllegalArgumentException(
          "batch_norm: a step has at least 1 micro-batch, got " + microBatchCount);
    }
    List<UpdateSpec.RunningStatistics> norms = spec(update).norms();
    for (int i = 0; i < norms.size(); i++) {
      UpdateSpec.RunningStatistics norm = norms.get(i);
      long c = norm.mean().shape().count();
      CpuOps.batchNormCommit(
          vector(norm.mean(), c),
          vector(norm.variance(), c),
          sized(norm.sums(), DType.F64, 2 * c),
          sized(step.state(), DType.F64, 4) + StepState.NONFINITE * Double.BYTES,
          c,
          microBatchCount,
          update.spec().momentum());
    }
  }

  /** Frees the context and what is still allocated. Plans must be closed before. */
  @Override
  public void close() {
    if (evaluation != null) {
      evaluation.close();
    }
    lanes.close();
    freeAll();
    contexts.close();
  }
}
