#include "cpu/context.h"
#include "ops/approx_sign/approx_sign.h"
#include "ops/approx_sign/approx_sign_rows.h"

namespace bireal::cpu {

void approx_sign_rows(float* dx, double* sums, const float* db, const float* x, const float* threshold, const float* shortcut,
                      int64_t pooled_W, int64_t first_row, int64_t rows, int64_t C, int kind) {
  approx_sign_dispatch(dx, sums, db, x, threshold, shortcut, pooled_W, first_row, rows, C, kind);
}

static ApproxSignRows* select_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return approx_sign_rows_avx512;
  if (isa >= Isa::kAvx2) return approx_sign_rows_avx2;
  return approx_sign_rows;
}

void approx_sign_bwd(Context& context, float* dx, float* dthreshold, const float* db, const float* x, const float* threshold,
                     const float* shortcut, int64_t pooled_W, int64_t rows, int64_t C, ActivationGradient kind, GradMode mode,
                     void* workspace) {
  ApproxSignRows* run = select_rows(context.isa());
  double* slices = static_cast<double*>(workspace);
  auto part = [&](double* sums, int64_t begin, int64_t end) {
    int64_t at = begin * C;
    run(dx + at, sums, db + at, x + at, threshold, shortcut && !pooled_W ? shortcut + at : shortcut, pooled_W, begin, end - begin,
        C, int(kind));
  };
  if (!dthreshold)
    return context.rows(rows, C * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) { part(nullptr, begin, end); });
  context.parallel(Context::kSlices, [&](int64_t slice, int) {
    part(slices + slice * C, Context::slice_begin(rows, slice), Context::slice_begin(rows, slice + 1));
  });
  for (int64_t c = 0; c < C; ++c) {
    double total = 0;
    for (int64_t slice = 0; slice < Context::kSlices; ++slice) total += slices[slice * C + c];
    dthreshold[c] = mode == GradMode::kAccumulate ? dthreshold[c] + float(total) : float(total);
  }
}

}  // namespace bireal::cpu
