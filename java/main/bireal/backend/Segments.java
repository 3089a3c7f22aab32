package bireal.backend;

import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;

/**
 * Runs of the flat parameter buffer that the optimizer updates, each with its weight decay;
 * parameters in no run are frozen. Lies in the backend's memory in the layout of {@code
 * bireal::Segment} (native/ops/adam/adam.h). Owned by the optimizer.
 */
public final class Segments implements AutoCloseable {
  private static final int SEGMENT_BYTES = 24;

  /** Elements [begin, begin + count) with weight decay {@code decay} >= 0. */
  public record Segment(long begin, long count, double decay) {}

  private final int segmentCount;
  private final long parameterCount;
  private final Buffer buffer;
  private final Tensor tensor;

  /**
   * Throws IllegalArgumentException unless segments are in order, do not overlap, lie in [0,
   * parameterCount) and have a decay that is not negative.
   */
  public Segments(Backend backend, List<Segment> segments, long parameterCount) {
    if (segments.isEmpty()) {
      throw new IllegalArgumentException("nothing to train: every parameter is frozen");
    }
    long end = 0;
    ByteBuffer bytes =
        ByteBuffer.allocate(segments.size() * SEGMENT_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    for (Segment segment : segments) {
      if (segment.begin < end
          || segment.count < 1
          || segment.begin + segment.count > parameterCount
          || !(segment.decay >= 0)) {
        throw new IllegalArgumentException(
            segment + " does not fit behind " + end + " in " + parameterCount + " parameters");
      }
      end = segment.begin + segment.count;
      bytes.putLong(segment.begin).putLong(segment.count).putDouble(segment.decay);
    }
    this.segmentCount = segments.size();
    this.parameterCount = parameterCount;
    this.buffer = backend.allocate(bytes.capacity(), "optimizer segments");
    this.tensor = new Tensor(buffer, 0, Shape.of(bytes.capacity()), DType.U8);
    backend.write(tensor, bytes.flip());
  }

  public int segmentCount() {
    return segmentCount;
  }

  /** Elements of the flat buffer that the segments were made for. */
  public long parameterCount() {
    return parameterCount;
  }

  public long address() {
    return tensor.address();
  }

  @Override
  public void close() {
    buffer.close();
  }
}
