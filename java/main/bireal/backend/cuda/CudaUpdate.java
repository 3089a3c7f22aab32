package bireal.backend.cuda;

import bireal.backend.Update;
import bireal.backend.UpdateSpec;
import bireal.runtime.NativeHandle;

/**
 * The end of a step. The work list holds addresses, so it is made when the first step ends: the
 * tensors are allocated then.
 */
final class CudaUpdate implements Update {
  private static final class Handle extends NativeHandle {
    Handle(long pointer) {
      super("work list of the optimizer", pointer, CudaOps::destroyUpdate);
    }
  }

  private final CudaBackend owner;
  private final UpdateSpec spec;
  private Handle handle;
  private boolean closed;

  CudaUpdate(CudaBackend owner, UpdateSpec spec) {
    this.owner = owner;
    this.spec = spec;
  }

  CudaBackend owner() {
    return owner;
  }

  @Override
  public UpdateSpec spec() {
    return spec;
  }

  @Override
  public void prepare() {
    pointer();
  }

  long pointer() {
    if (closed) {
      throw new IllegalStateException("this update is closed");
    }
    if (handle == null) {
      handle = new Handle(make());
    }
    return handle.pointer();
  }

  private long make() {
    long[] trained = new long[3 * spec.trained().size()];
    int at = 0;
    for (UpdateSpec.Segment segment : spec.trained()) {
      trained[at++] = segment.begin();
      trained[at++] = segment.count();
      trained[at++] = Double.doubleToRawLongBits(segment.decay());
    }
    long[] binary = new long[7 * spec.binary().size()];
    at = 0;
    for (UpdateSpec.BinaryParameter b : spec.binary()) {
      long elements = b.w().shape().count();
      long c = b.w().shape().dim(3);
      binary[at++] = (b.w().offsetBytes() - spec.parameters().offsetBytes()) / Float.BYTES;
      binary[at++] = b.w().shape().dim(0);
      binary[at++] = elements / b.w().shape().dim(0) / c;
      binary[at++] = c;
      binary[at++] = b.rule().code;
      binary[at++] = owner.addressOf(b.bits());
      binary[at++] = owner.addressOf(b.alpha());
    }
    long[] norms = new long[4 * spec.norms().size()];
    at = 0;
    for (UpdateSpec.RunningStatistics norm : spec.norms()) {
      norms[at++] = owner.addressOf(norm.mean());
      norms[at++] = owner.addressOf(norm.variance());
      norms[at++] = owner.addressOf(norm.sums());
      norms[at++] = norm.mean().shape().count();
    }
    long parameters = spec.parameters().shape().count();
    return owner.taking(
        "work list of the optimizer",
        () -> CudaOps.planUpdate(owner.context(), trained, binary, norms, parameters));
  }

  @Override
  public void close() {
    closed = true;
    if (handle != null) {
      handle.close();
    }
  }
}
