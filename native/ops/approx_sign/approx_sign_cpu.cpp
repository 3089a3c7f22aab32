#include "cpu/context.h"
#include "ops/approx_sign/approx_sign_rows.h"

namespace bireal::cpu {

void approx_sign_rows(float* dx, const float* db, const float* x, const float* threshold, const float* shortcut, int64_t rows,
                      int64_t C, ActivationGradient kind) {
  approx_sign_dispatch(dx, db, x, threshold, shortcut, rows, C, kind);
}

static ApproxSignRows* select_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return approx_sign_rows_avx512;
  if (isa >= Isa::kAvx2) return approx_sign_rows_avx2;
  return approx_sign_rows;
}

void approx_sign_bwd(Context& context, float* dx, const float* db, const float* x, const float* threshold, const float* shortcut,
                     int64_t rows, int64_t C, ActivationGradient kind) {
  ApproxSignRows* run = select_rows(context.isa());
  context.rows(rows, C * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
    int64_t at = begin * C;
    run(dx + at, db + at, x + at, threshold, shortcut ? shortcut + at : nullptr, end - begin, C, kind);
  });
}

}  // namespace bireal::cpu
