// The loop of approx_sign, written once; each file that includes it is compiled for one instruction set, and the compiler
// vectorises it for that set. Everything is static and always inlined, so no set leaks into another file.
#pragma once
#include "core/bits.h"
#include "ops/approx_sign/approx_sign.h"

namespace bireal::cpu {

using ApproxSignRows = void(float* dx, const float* db, const float* x, const float* threshold, const float* shortcut,
                            int64_t rows, int64_t C, ActivationGradient kind);
ApproxSignRows approx_sign_rows, approx_sign_rows_avx2, approx_sign_rows_avx512;

template <bool kThreshold, bool kShortcut, bool kApprox>
BIREAL_INLINE void approx_sign_loop(float* dx, const float* db, const float* x, const float* threshold, const float* shortcut,
                                    int64_t rows, int64_t C) {
  // Without a threshold the channel does not matter: one long row.
  int64_t row_count = kThreshold ? rows : 1, columns = kThreshold ? C : rows * C;
  for (int64_t row = 0; row < row_count; ++row) {
    int64_t base = row * columns;
    // dx may be db or shortcut itself: element i depends on element i alone.
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) {
      float u = kThreshold ? x[base + c] + threshold[c] : x[base + c];
      float magnitude = __builtin_fabsf(u);
      // Both comparisons are false for NaN, which makes its surrogate 0.
      float ramp = 2.0f - 2.0f * magnitude;
      float surrogate = kApprox ? (ramp > 0.0f ? ramp : 0.0f) : (magnitude <= 1.0f ? 1.0f : 0.0f);
      float product = db[base + c] * surrogate;
      dx[base + c] = kShortcut ? shortcut[base + c] + product : product;
    }
  }
}

template <bool kApprox>
BIREAL_INLINE void approx_sign_pick(float* dx, const float* db, const float* x, const float* threshold, const float* shortcut,
                                    int64_t rows, int64_t C) {
  if (threshold && shortcut) return approx_sign_loop<true, true, kApprox>(dx, db, x, threshold, shortcut, rows, C);
  if (threshold) return approx_sign_loop<true, false, kApprox>(dx, db, x, threshold, shortcut, rows, C);
  if (shortcut) return approx_sign_loop<false, true, kApprox>(dx, db, x, threshold, shortcut, rows, C);
  approx_sign_loop<false, false, kApprox>(dx, db, x, threshold, shortcut, rows, C);
}

BIREAL_INLINE void approx_sign_dispatch(float* dx, const float* db, const float* x, const float* threshold, const float* shortcut,
                                        int64_t rows, int64_t C, ActivationGradient kind) {
  if (kind == ActivationGradient::kApproxSign)
    approx_sign_pick<true>(dx, db, x, threshold, shortcut, rows, C);
  else
    approx_sign_pick<false>(dx, db, x, threshold, shortcut, rows, C);
}

}  // namespace bireal::cpu
