package bireal.backend;

import bireal.tensor.DType;
import bireal.tensor.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Copies between backend tensors and Java arrays, for set-up, checkpoints and tests; not for a
 * step.
 */
public final class Tensors {
  private Tensors() {}

  /** All elements of an F32 tensor. */
  public static float[] floats(Backend backend, Tensor tensor) {
    float[] values = new float[count(tensor, DType.F32)];
    read(backend, tensor).asFloatBuffer().get(values);
    return values;
  }

  /** Replaces all elements of an F32 tensor. */
  public static void write(Backend backend, Tensor tensor, float[] values) {
    if (values.length != count(tensor, DType.F32)) {
      throw new IllegalArgumentException(values.length + " values for " + tensor);
    }
    ByteBuffer bytes = buffer(tensor);
    bytes.asFloatBuffer().put(values);
    backend.write(tensor, bytes);
  }

  /** All elements of an F64 tensor. */
  public static double[] doubles(Backend backend, Tensor tensor) {
    double[] values = new double[count(tensor, DType.F64)];
    read(backend, tensor).asDoubleBuffer().get(values);
    return values;
  }

  /** Replaces all elements of an F64 tensor. */
  public static void write(Backend backend, Tensor tensor, double[] values) {
    if (values.length != count(tensor, DType.F64)) {
      throw new IllegalArgumentException(values.length + " values for " + tensor);
    }
    ByteBuffer bytes = buffer(tensor);
    bytes.asDoubleBuffer().put(values);
    backend.write(tensor, bytes);
  }

  /** The raw little-endian bytes of a tensor. */
  public static ByteBuffer read(Backend backend, Tensor tensor) {
    ByteBuffer bytes = buffer(tensor);
    backend.read(bytes, tensor);
    return bytes;
  }

  /** Room for the whole tensor, little-endian. */
  public static ByteBuffer buffer(Tensor tensor) {
    return ByteBuffer.allocate(Math.toIntExact(tensor.bytes())).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static int count(Tensor tensor, DType dtype) {
    if (tensor.dtype() != dtype) {
      throw new IllegalArgumentException("expected " + dtype + ", got " + tensor);
    }
    return Math.toIntExact(tensor.shape().count());
  }
}
