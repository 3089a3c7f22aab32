#include "core/bits.h"
#include "cuda/launch.h"
#include "cuda/row_slices.h"
#include "ops/approx_sign/approx_sign.h"
#include "ops/approx_sign/approx_sign_params.h"

namespace bireal::cuda {

void approx_sign_bwd(const Device& device, void* dx, const void* db, const void* x, DType type, const float* threshold,
                     const void* shortcut, double* norm_sums, const void* norm_v, DType norm_v_type, int64_t rows, int64_t C,
                     ActivationGradient kind, Stream stream) {
  const int64_t slices = row_slice_count(rows, C);
  ApproxSignParams p{dx,
                     db,
                     x,
                     shortcut,
                     threshold,
                     norm_sums,
                     norm_v,
                     rows,
                     int32_t(C),
                     int32_t(slices),
                     kind == ActivationGradient::kClippedIdentity};
  launch(device, storage_kernel("approx_sign_bwd", type, norm_sums ? norm_v_type : type),
         LaunchShape(kRowBlockThreads, word_count(C) * slices), p, stream);
}

}  // namespace bireal::cuda
