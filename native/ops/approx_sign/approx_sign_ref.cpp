#include <cmath>

#include "cpu/context.h"
#include "ops/approx_sign/approx_sign.h"

namespace bireal {

int64_t approx_sign_workspace_bytes(int64_t C) {
  return cpu::Context::kSlices * (1 + 2 + 2) * C * int64_t(sizeof(double));  // dthreshold, and the sums of two norms
}

}  // namespace bireal

namespace bireal::ref {

static float surrogate(float u, ActivationGradient kind) {
  if (std::isnan(u)) return 0.0f;
  if (kind == ActivationGradient::kApproxSign) return std::fmax(0.0f, 2.0f - 2.0f * std::fabs(u));
  return std::fabs(u) <= 1.0f ? 1.0f : 0.0f;
}

void approx_sign_bwd(float* dx, float* dthreshold, const float* db, const float* x, const float* threshold, const float* shortcut,
                     int64_t pooled_W, int64_t rows, int64_t C, ActivationGradient kind, GradMode mode) {
  auto product = [&](int64_t j) { return db[j] * surrogate(threshold ? x[j] + threshold[j % C] : x[j], kind); };
  if (dthreshold) {
    for (int64_t c = 0; c < C; ++c) {
      double total = 0;
      for (int64_t slice = 0; slice < cpu::Context::kSlices; ++slice) {
        double sum = 0;
        for (int64_t i = cpu::Context::slice_begin(rows, slice); i < cpu::Context::slice_begin(rows, slice + 1); ++i)
          sum += double(product(i * C + c));
        total += sum;
      }
      dthreshold[c] = mode == GradMode::kAccumulate ? dthreshold[c] + float(total) : float(total);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    // Rows (n, h) of pixels: H is even, so the pairs of them are those of the images.
    const int64_t line = pooled_W ? i / pooled_W : 0, w = pooled_W ? i % pooled_W : 0;
    const int64_t from = pooled_W ? line / 2 * (pooled_W / 2) + w / 2 : i;
    for (int64_t c = 0; c < C; ++c) {
      const float p = product(i * C + c);
      dx[i * C + c] = !shortcut ? p : (pooled_W ? shortcut[from * C + c] / 4.0f : shortcut[from * C + c]) + p;
    }
  }
}

}  // namespace bireal::ref
