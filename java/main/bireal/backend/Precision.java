package bireal.backend;

import bireal.tensor.DType;

/**
 * Type of activations and of their gradients. Parameters, their gradients, moments, statistics and
 * every sum are float32 or more in all of them.
 */
public enum Precision {
  /** True float32, without TF32. */
  FP32(DType.F32),
  /** Half precision with a dynamic loss scale on the device. */
  MIXED(DType.F16),
  /** bfloat16, from compute capability 8.0 on. */
  BF16(DType.BF16);

  public final DType real;

  Precision(DType real) {
    this.real = real;
  }
}
