// The sum of squares of one block of finite_norm, compiled once for each instruction set.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

// A square of two floats has at most 48 significant bits, so it is exact in double and a fused multiply-add could not differ.
BIREAL_INLINE double finite_norm_sum(const float* g, int64_t count) {
  double partial[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int j = 0; j < 8; ++j) partial[j] += (double)g[i + j] * (double)g[i + j];
  for (int j = 0; i + j < count; ++j) partial[j] += (double)g[i + j] * (double)g[i + j];
  double sum = 0;
  for (int j = 0; j < 8; ++j) sum += partial[j];
  return sum;
}

using FiniteNormSum = double(const float* g, int64_t count);
FiniteNormSum finite_norm_sum_avx2, finite_norm_sum_avx512;

}  // namespace bireal::cpu
