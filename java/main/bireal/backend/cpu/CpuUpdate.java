package bireal.backend.cpu;

import bireal.backend.Update;
import bireal.backend.UpdateSpec;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Keeps the segments in the layout of {@code bireal::Segment} (native/ops/adam/adam.h). */
final class CpuUpdate implements Update {
  private static final int SEGMENT_BYTES = 24;

  private final CpuBackend owner;
  private final UpdateSpec spec;
  private final Buffer segments;

  CpuUpdate(CpuBackend owner, UpdateSpec spec) {
    this.owner = owner;
    this.spec = spec;
    ByteBuffer bytes =
        ByteBuffer.allocate(spec.trained().size() * SEGMENT_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    for (UpdateSpec.Segment segment : spec.trained()) {
      bytes.putLong(segment.begin()).putLong(segment.count()).putDouble(segment.decay());
    }
    segments = owner.allocate(bytes.capacity(), "optimizer segments");
    owner.write(new Tensor(segments, 0, Shape.of(bytes.capacity()), DType.U8), bytes.flip());
  }

  CpuBackend owner() {
    return owner;
  }

  @Override
  public UpdateSpec spec() {
    return spec;
  }

  long segments() {
    return segments.address();
  }

  @Override
  public void close() {
    segments.close();
  }
}
