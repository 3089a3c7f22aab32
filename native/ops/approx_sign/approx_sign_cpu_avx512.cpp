#include "ops/approx_sign/approx_sign_rows.h"

namespace bireal::cpu {

void approx_sign_rows_avx512(float* dx, const float* db, const float* x, const float* threshold, const float* shortcut,
                             int64_t rows, int64_t C, ActivationGradient kind) {
  approx_sign_dispatch(dx, db, x, threshold, shortcut, rows, C, kind);
}

}  // namespace bireal::cpu
