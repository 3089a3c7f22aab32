#include "core/bits.h"
#include "cuda/launch.h"
#include "cuda/row_slices.h"
#include "ops/approx_sign/approx_sign.h"
#include "ops/approx_sign/approx_sign_params.h"

namespace bireal::cuda {

int64_t approx_sign_workspace_bytes(int64_t rows, int64_t C) { return row_slice_count(rows, C) * C * int64_t(sizeof(double)); }

void approx_sign_bwd(const Device& device, void* dx, float* dthreshold, const void* db, const void* x, DType type,
                     const float* threshold, const void* shortcut, double* norm_sums, const void* norm_v, DType norm_v_type,
                     int64_t rows, int64_t C, ActivationGradient kind, GradMode mode, void* workspace, Stream stream) {
  const int64_t slices = row_slice_count(rows, C);
  double* threshold_sums = dthreshold ? static_cast<double*>(workspace) : nullptr;
  ApproxSignParams p{dx,        db,     x,    shortcut,   threshold,       threshold_sums,
                     norm_sums, norm_v, rows, int32_t(C), int32_t(slices), kind == ActivationGradient::kClippedIdentity};
  launch(device, storage_kernel("approx_sign_bwd", type, norm_sums ? norm_v_type : type),
         LaunchShape(kRowBlockThreads, word_count(C) * slices), p, stream);
  if (!dthreshold) return;
  FinishRowSumsParams finish{{{threshold_sums, dthreshold}}, C, int32_t(C), int32_t(slices), mode == GradMode::kAccumulate};
  launch(device, "approx_sign_bwd_threshold_kernel", LaunchShape(kSliceThreads, word_count(C)), finish, stream);
}

}  // namespace bireal::cuda
