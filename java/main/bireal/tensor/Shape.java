package bireal.tensor;

import java.util.Arrays;

/** Dimensions of a tensor, outermost first. Immutable; every dimension is at least 1. */
public final class Shape {
  private final long[] dims;

  private Shape(long[] dims) {
    this.dims = dims;
  }

  /** Throws IllegalArgumentException if a dimension is smaller than 1. */
  public static Shape of(long... dims) {
    for (long dim : dims) {
      if (dim < 1) {
        throw new IllegalArgumentException(
            "every dimension must be >= 1, got " + Arrays.toString(dims));
      }
    }
    return new Shape(dims.clone());
  }

  public int rank() {
    return dims.length;
  }

  public long dim(int axis) {
    return dims[axis];
  }

  public long[] dims() {
    return dims.clone();
  }

  /** Number of elements. */
  public long count() {
    long count = 1;
    for (long dim : dims) {
      count = Math.multiplyExact(count, dim);
    }
    return count;
  }

  /** Elements of one index of the outermost axis, e.g. of one image. */
  public long innerCount() {
    return dims.length == 0 ? 1 : count() / dims[0];
  }

  /** This shape with another outermost dimension. */
  public Shape withFirst(long first) {
    long[] copy = dims.clone();
    copy[0] = first;
    return of(copy);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Shape shape && Arrays.equals(dims, shape.dims);
  }

  @Override
  public int hashCode() {
    return Arrays.hashCode(dims);
  }

  /** For people: {@code 64x3x7x7}. */
  @Override
  public String toString() {
    StringBuilder text = new StringBuilder();
    for (long dim : dims) {
      text.append(text.length() == 0 ? "" : "x").append(dim);
    }
    return text.length() == 0 ? "scalar" : text.toString();
  }
}
