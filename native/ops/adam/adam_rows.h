// Adam over consecutive parameters of one segment, compiled once for each instruction set.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

/// What is the same for a whole segment, each rounded once to float.
struct AdamConstants {
  float decay, beta1, rest1, beta2, rest2;  // rest = 1 - beta
  float step_size;                          // lr / (1 - beta1^t)
  float root_correction;                    // sqrt(1 - beta2^t)
  float eps;
};

// Builtins instead of <math.h>, which in C++ brings inline functions along. fma stands where the reference has it; plain
// x86-64 calls libm for it, slow but with the same bits.
BIREAL_INLINE void adam_rows(float* __restrict__ p, float* __restrict__ m, float* __restrict__ v, const float* __restrict__ g,
                             int64_t count, const AdamConstants* constants) {
  const AdamConstants a = *constants;
  for (int64_t i = 0; i < count; ++i) {
    float gradient = __builtin_fmaf(a.decay, p[i], g[i]);
    float m_new = __builtin_fmaf(a.beta1, m[i], a.rest1 * gradient);
    float v_new = __builtin_fmaf(a.beta2, v[i], (a.rest2 * gradient) * gradient);
    m[i] = m_new;
    v[i] = v_new;
    p[i] = p[i] - a.step_size * (m_new / (__builtin_sqrtf(v_new) / a.root_correction + a.eps));
  }
}

using AdamRows = void(float* p, float* m, float* v, const float* g, int64_t count, const AdamConstants* constants);
AdamRows adam_rows_avx2, adam_rows_avx512;

}  // namespace bireal::cpu
