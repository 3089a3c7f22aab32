package bireal.nn;

import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;

/**
 * A named tensor of a network that a checkpoint holds, under its published name and shape. In
 * memory weights lie as KRSC; files and PyTorch hold OIHW (docs/decisions.md, row 12).
 */
public class State {
  /** How elements lie in memory, compared with the published order. */
  public enum Order {
    /** The same. */
    AS_PUBLISHED,
    /** Memory is [K,R,S,C], published is [K,C,R,S], possibly flattened. */
    KRSC
  }

  private final String name;
  private final long[] publishedDims;
  private final Shape shape;
  private final Order order;
  private Tensor value;

  /**
   * {@code publishedDims} may be empty for a published scalar; its count equals that of {@code
   * shape}.
   */
  public State(String name, long[] publishedDims, Shape shape, Order order) {
    this.name = name;
    this.publishedDims = publishedDims.clone();
    this.shape = shape;
    this.order = order;
  }

  public final String name() {
    return name;
  }

  public final long[] publishedDims() {
    return publishedDims.clone();
  }

  /** Shape in memory. */
  public final Shape shape() {
    return shape;
  }

  public final Tensor value() {
    return value;
  }

  /** Element type of the file. */
  public DType dtype() {
    return DType.F32;
  }

  final void bind(Tensor tensor) {
    this.value = tensor;
  }

  /** Reorders from memory to published order. */
  public final float[] toPublished(float[] memory) {
    return reorder(memory, true);
  }

  /** Reorders from published to memory order. */
  public final float[] fromPublished(float[] published) {
    return reorder(published, false);
  }

  private float[] reorder(float[] from, boolean publish) {
    if (from.length != shape.count()) {
      throw new IllegalArgumentException(name + ": " + from.length + " values for " + shape);
    }
    if (order == Order.AS_PUBLISHED) {
      return from;
    }
    int K = (int) shape.dim(0);
    int taps = (int) (shape.dim(1) * shape.dim(2));
    int C = (int) shape.dim(3);
    float[] to = new float[from.length];
    for (int k = 0; k < K; k++) {
      for (int tap = 0; tap < taps; tap++) {
        for (int c = 0; c < C; c++) {
          int memory = (k * taps + tap) * C + c;
          int published = (k * C + c) * taps + tap;
          if (publish) {
            to[published] = from[memory];
          } else {
            to[memory] = from[published];
          }
        }
      }
    }
    return to;
  }
}
