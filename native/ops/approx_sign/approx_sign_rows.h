// The loop of approx_sign, written once; each file that includes it is compiled for one instruction set, and the compiler
// vectorises it for that set. Everything is static and always inlined, so no set leaks into another file.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

/// `kind` is the wire code of ActivationGradient, whose header holds STL. `sums` [C], to which the threshold's gradient over
/// these rows is added, or null. `shortcut` begins at these rows; with pooled_W at the tensor's first, and these rows are
/// first_row and more.
using ApproxSignRows = void(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                            const float* shortcut, int64_t pooled_W, int64_t first_row, int64_t rows, int64_t C, int kind);
ApproxSignRows approx_sign_rows, approx_sign_rows_avx2, approx_sign_rows_avx512;

enum class ShortcutGradient { kNone, kWhole, kPooled };

template <bool kThreshold, bool kSums, ShortcutGradient kShortcut, bool kApprox>
BIREAL_INLINE void approx_sign_loop(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                                    const float* shortcut, int64_t pooled_W, int64_t first_row, int64_t rows, int64_t C) {
  constexpr bool kPooled = kShortcut == ShortcutGradient::kPooled, kWhole = kShortcut == ShortcutGradient::kWhole;
  // Without a threshold or pooling the channel does not matter: one long row.
  int64_t row_count = kThreshold || kPooled ? rows : 1, columns = kThreshold || kPooled ? C : rows * C;
  int64_t line = kPooled ? first_row / pooled_W : 0, w = kPooled ? first_row % pooled_W : 0;
  for (int64_t row = 0; row < row_count; ++row) {
    int64_t base = row * columns;
    const float* added = kWhole ? shortcut + base : kPooled ? shortcut + (line / 2 * (pooled_W / 2) + w / 2) * C : nullptr;
    // dx may be db or a whole shortcut itself: element i depends on element i alone.
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) {
      float u = kThreshold ? x[base + c] + threshold[c] : x[base + c];
      float magnitude = __builtin_fabsf(u);
      // Both comparisons are false for NaN, which makes its surrogate 0.
      float ramp = 2.0f - 2.0f * magnitude;
      float surrogate = kApprox ? (ramp > 0.0f ? ramp : 0.0f) : (magnitude <= 1.0f ? 1.0f : 0.0f);
      float product = db[base + c] * surrogate;
      if (kSums) sums[c] += (double)product;
      dx[base + c] = kWhole ? added[c] + product : kPooled ? added[c] * 0.25f + product : product;
    }
    if (kPooled && ++w == pooled_W) {
      w = 0;
      ++line;
    }
  }
}

template <bool kThreshold, bool kSums, bool kApprox>
BIREAL_INLINE void approx_sign_pick_shortcut(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                                             const float* shortcut, int64_t pooled_W, int64_t first_row, int64_t rows,
                                             int64_t C) {
  if (!shortcut)
    return approx_sign_loop<kThreshold, kSums, ShortcutGradient::kNone, kApprox>(dx, sums, db, x, threshold, nullptr, 0, 0, rows,
                                                                                 C);
  if (!pooled_W)
    return approx_sign_loop<kThreshold, kSums, ShortcutGradient::kWhole, kApprox>(dx, sums, db, x, threshold, shortcut, 0, 0,
                                                                                  rows, C);
  approx_sign_loop<kThreshold, kSums, ShortcutGradient::kPooled, kApprox>(dx, sums, db, x, threshold, shortcut, pooled_W,
                                                                          first_row, rows, C);
}

template <bool kApprox>
BIREAL_INLINE void approx_sign_pick(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                                    const float* shortcut, int64_t pooled_W, int64_t first_row, int64_t rows, int64_t C) {
  if (sums)
    approx_sign_pick_shortcut<true, true, kApprox>(dx, sums, db, x, threshold, shortcut, pooled_W, first_row, rows, C);
  else if (threshold)
    approx_sign_pick_shortcut<true, false, kApprox>(dx, sums, db, x, threshold, shortcut, pooled_W, first_row, rows, C);
  else
    approx_sign_pick_shortcut<false, false, kApprox>(dx, sums, db, x, threshold, shortcut, pooled_W, first_row, rows, C);
}

BIREAL_INLINE void approx_sign_dispatch(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                                        const float* shortcut, int64_t pooled_W, int64_t first_row, int64_t rows, int64_t C,
                                        int kind) {
  if (kind == 0)
    approx_sign_pick<true>(dx, sums, db, x, threshold, shortcut, pooled_W, first_row, rows, C);
  else
    approx_sign_pick<false>(dx, sums, db, x, threshold, shortcut, pooled_W, first_row, rows, C);
}

}  // namespace bireal::cpu
