#include "core/bits.h"
#include "cuda/launch.h"
#include "cuda/row_slices.h"
#include "ops/approx_sign/approx_sign.h"
#include "ops/approx_sign/approx_sign_params.h"

namespace bireal::cuda {

int64_t approx_sign_workspace_bytes(int64_t rows, int64_t C) { return row_slice_count(rows, C) * C * int64_t(sizeof(double)); }

void approx_sign_bwd(const Device& device, void* dx, float* dthreshold, const void* db, const void* x, DType type,
                     const float* threshold, const void* shortcut, int64_t pooled_W, double* norm_sums, const void* norm_v,
                     DType norm_v_type, double* second_sums, const void* second_v, int64_t rows, int64_t C,
                     ActivationGradient kind, GradMode mode, void* workspace, Stream stream) {
  require(!pooled_W || rows < int64_t(1) << 31,
          [&] { return "approx_sign_bwd: a pooled shortcut needs rows < 2^31, got " + std::to_string(rows); });
  const int64_t slices = row_slice_count(rows, C);
  double* threshold_sums = dthreshold ? static_cast<double*>(workspace) : nullptr;
  ApproxSignParams p{};
  p.dx = dx, p.db = db, p.x = x, p.shortcut = shortcut, p.pooled_W = int32_t(pooled_W);
  p.threshold = threshold, p.threshold_sums = threshold_sums;
  p.norm_sums = norm_sums, p.norm_v = norm_v, p.second_sums = second_sums, p.second_v = second_v;
  p.rows = rows, p.C = int32_t(C), p.slices = int32_t(slices), p.clipped_identity = kind == ActivationGradient::kClippedIdentity;
  launch(device, storage_kernel("approx_sign_bwd", type, norm_sums ? norm_v_type : type),
         LaunchShape(kRowBlockThreads, word_count(C) * slices), p, stream);
  if (!dthreshold) return;
  FinishRowSumsParams finish{{{threshold_sums, dthreshold}}, C, int32_t(C), int32_t(slices), mode == GradMode::kAccumulate};
  launch(device, "approx_sign_bwd_threshold_kernel", LaunchShape(kSliceThreads, word_count(C)), finish, stream);
}

}  // namespace bireal::cuda
