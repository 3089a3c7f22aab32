// The loop of approx_sign, written once; each file that includes it is compiled for one instruction set, and the compiler
// vectorises it for that set. Everything is static and always inlined, so no set leaks into another file.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

/// `kind` is the wire code of ActivationGradient, whose header holds STL. `sums` [C], of the threshold's gradient over these
/// rows, or null.
using ApproxSignRows = void(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                            const float* shortcut, int64_t rows, int64_t C, int kind);
ApproxSignRows approx_sign_rows, approx_sign_rows_avx2, approx_sign_rows_avx512;

template <bool kThreshold, bool kShortcut, bool kSums, bool kApprox>
BIREAL_INLINE void approx_sign_loop(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                                    const float* shortcut, int64_t rows, int64_t C) {
  // Without a threshold the channel does not matter: one long row.
  int64_t row_count = kThreshold ? rows : 1, columns = kThreshold ? C : rows * C;
  if (kSums)
    for (int64_t c = 0; c < C; ++c) sums[c] = 0;
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
      if (kSums) sums[c] += (double)product;
      dx[base + c] = kShortcut ? shortcut[base + c] + product : product;
    }
  }
}

template <bool kApprox>
BIREAL_INLINE void approx_sign_pick(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                                    const float* shortcut, int64_t rows, int64_t C) {
  if (sums && shortcut) return approx_sign_loop<true, true, true, kApprox>(dx, sums, db, x, threshold, shortcut, rows, C);
  if (sums) return approx_sign_loop<true, false, true, kApprox>(dx, sums, db, x, threshold, shortcut, rows, C);
  if (threshold && shortcut) return approx_sign_loop<true, true, false, kApprox>(dx, sums, db, x, threshold, shortcut, rows, C);
  if (threshold) return approx_sign_loop<true, false, false, kApprox>(dx, sums, db, x, threshold, shortcut, rows, C);
  if (shortcut) return approx_sign_loop<false, true, false, kApprox>(dx, sums, db, x, threshold, shortcut, rows, C);
  approx_sign_loop<false, false, false, kApprox>(dx, sums, db, x, threshold, shortcut, rows, C);
}

BIREAL_INLINE void approx_sign_dispatch(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                                        const float* shortcut, int64_t rows, int64_t C, int kind) {
  if (kind == 0)
    approx_sign_pick<true>(dx, sums, db, x, threshold, shortcut, rows, C);
  else
    approx_sign_pick<false>(dx, sums, db, x, threshold, shortcut, rows, C);
}

}  // namespace bireal::cpu
