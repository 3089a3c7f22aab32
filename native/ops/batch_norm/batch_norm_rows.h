// The row kernels of batch_norm, one set per instruction set; each is defined in the file that is compiled for it.
// `v_type` is the wire code of DType (0 f32, 2 i16, 3 i32), whose header holds STL.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

struct BatchNormRows {  // BatchNormApply and the outputs, for `rows` rows
  float* y;
  word_t* bits;
  const void* v;
  const float *scale, *shift, *shortcut, *shortcut_scale, *shortcut_shift, *threshold, *bias1, *slope, *bias2;
  int64_t rows, C;
};

struct BatchNormKernels {
  /// Adds rows to sums [2,C]: int64 sums of an integer v, double sums of a real one.
  void (*sums_rows)(void* sums, const void* v, int v_type, int64_t rows, int64_t C);
  void (*bwd_sums_rows)(double* sums, const float* dy, const void* v, int v_type, int64_t rows, int64_t C);
  void (*apply_rows)(const BatchNormRows& in, int v_type);
  /// One slice of rows of `in`, whose y is dz and whose bits are not looked at; sums [4,C]: of dz, dz v, dy, dy min(w, 0).
  void (*rprelu_bwd_slice)(double* sums, const BatchNormRows& in, const float* dy, int v_type);
  void (*bwd_apply_rows)(float* dz, const float* dy, const void* v, int v_type, const float* coefficients, int64_t rows,
                         int64_t C);
};
extern const BatchNormKernels batch_norm_kernels_avx2, batch_norm_kernels_avx512;

}  // namespace bireal::cpu
