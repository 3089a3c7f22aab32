// SGD over consecutive parameters of one segment, compiled once for each instruction set.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

/// What is the same for a whole segment, each rounded once to float.
struct SgdConstants {
  float decay, momentum, lr;
  bool caffe;
};

// The builtin instead of <math.h>, which in C++ brings inline functions along.
BIREAL_INLINE void sgd_rows(float* __restrict__ p, float* __restrict__ b, const float* __restrict__ g, int64_t count,
                            const SgdConstants* constants) {
  const SgdConstants s = *constants;
  if (s.caffe) {
    for (int64_t i = 0; i < count; ++i) {
      b[i] = __builtin_fmaf(s.momentum, b[i], s.lr * __builtin_fmaf(s.decay, p[i], g[i]));
      p[i] = p[i] - b[i];
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      b[i] = __builtin_fmaf(s.momentum, b[i], __builtin_fmaf(s.decay, p[i], g[i]));
      p[i] = p[i] - s.lr * b[i];
    }
  }
}

using SgdRows = void(float* p, float* b, const float* g, int64_t count, const SgdConstants* constants);
SgdRows sgd_rows_avx2, sgd_rows_avx512;

}  // namespace bireal::cpu
