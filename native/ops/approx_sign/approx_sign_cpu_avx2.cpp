#include "ops/approx_sign/approx_sign_rows.h"

namespace bireal::cpu {

void approx_sign_rows_avx2(float* dx, double* sums, const float* db, const float* x, const float* threshold,
                           const float* shortcut, int64_t pooled_W, int64_t first_row, int64_t rows, int64_t C, int kind) {
  approx_sign_dispatch(dx, sums, db, x, threshold, shortcut, pooled_W, first_row, rows, C, kind);
}

}  // namespace bireal::cpu
