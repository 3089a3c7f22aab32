#include <algorithm>

#include "cpu/context.h"
#include "ops/approx_sign/approx_sign.h"
#include "ops/approx_sign/approx_sign_rows.h"
#include "ops/batch_norm/batch_norm.h"

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
                     void* workspace, const ApproxSignNorms& norms) {
  ApproxSignRows* run = select_rows(context.isa());
  double* threshold_slices = static_cast<double*>(workspace);
  auto norm_slice = [&](size_t norm, int64_t slice) {
    return threshold_slices + (Context::kSlices * (1 + 2 * int64_t(norm)) + 2 * slice) * C;
  };
  auto part = [&](double* sums, int64_t begin, int64_t end) {
    int64_t at = begin * C;
    run(dx + at, sums, db + at, x + at, threshold, shortcut && !pooled_W ? shortcut + at : shortcut, pooled_W, begin, end - begin,
        C, int(kind));
  };
  if (!dthreshold && !norms[0].sums && !norms[1].sums)
    return context.rows(rows, C * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) { part(nullptr, begin, end); });
  const int64_t chunk = std::max<int64_t>(8, 64 * 1024 / (C * int64_t(sizeof(float))) / 8 * 8);  // dx stays in a cache
  context.parallel(Context::kSlices, [&](int64_t slice, int) {
    double* own_threshold = threshold_slices + slice * C;
    if (dthreshold) std::fill_n(own_threshold, C, 0.0);
    for (size_t i = 0; i < norms.size(); ++i)
      if (norms[i].sums) std::fill_n(norm_slice(i, slice), 2 * C, 0.0);
    const int64_t last = Context::slice_begin(rows, slice + 1);
    for (int64_t begin = Context::slice_begin(rows, slice), end; begin < last; begin = end) {
      end = std::min(begin + chunk, last);
      part(dthreshold ? own_threshold : nullptr, begin, end);
      for (size_t i = 0; i < norms.size(); ++i)
        if (norms[i].sums)
          batch_norm_bwd_sums_rows(context, norm_slice(i, slice), dx, norms[i].v, norms[i].v_type, begin, end, C);
    }
  });
  for (size_t i = 0; i < norms.size(); ++i)
    if (norms[i].sums) batch_norm_add_slices(norms[i].sums, norm_slice(i, 0), C);
  for (int64_t c = 0; dthreshold && c < C; ++c) {
    double total = 0;
    for (int64_t slice = 0; slice < Context::kSlices; ++slice) total += threshold_slices[slice * C + c];
    dthreshold[c] = mode == GradMode::kAccumulate ? dthreshold[c] + float(total) : float(total);
  }
}

}  // namespace bireal::cpu
