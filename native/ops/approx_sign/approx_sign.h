// approx_sign: gradient of the activation sign, joined with the gradient of the shortcut.
//
//   u = x + threshold[c]                               (threshold absent: 0)
//   surrogate(u) = kApproxSign:      max(0, 2 - 2|u|)
//                  kClippedIdentity: 1[|u| <= 1]       (XNOR-Net)
//   dthreshold[c] = sum_i db[i,c] * surrogate(u)       (of the same rounded products, in double, rounded once; added in mode
//                                                       accumulate; null: not wanted)
//   dx[i,c] = s[i,c] + db[i,c] * surrogate(u)          (one multiply, one add, not fused; shortcut absent: no addition, so a
//                                                       product of -0 stays -0)
//   s[i,c] = shortcut[i,c], or, where the shortcut begins with a 2x2 average pool and its gradient comes pooled,
//            shortcut[n,h/2,w/2,c] / 4 of pixel i = (n,h,w): what avg_pool_bwd would write, but for the sign of a zero
//
// Shapes    dx, db, x [rows, C] float; shortcut [rows, C], or, pooled, [n,H/2,W/2,C] where rows = n*H*W and pooled_W = W (else
//           pooled_W = 0), H and W even; threshold, dthreshold [C]; shortcut, threshold and dthreshold may be null, dthreshold
//           only with a threshold
// Range     any float; u = +-1 gives 0 (approx) or 1 (clipped); u = NaN gives surrogate 0 in both (finite_norm catches NaN)
// Aliasing  dx may be db, or shortcut where that is not pooled.  Allocates nothing.
// Sums      cpu and cuda, if wanted: what batch_norm_bwd_sums finds in dx for the norm before, and for the norm of the shortcut
//           that was added there, taken while dx is in a cache; on the CPU with the bits of that op
// Workspace approx_sign_workspace_bytes(C) where dthreshold or sums are wanted, 64-byte aligned
// Order     elementwise; dthreshold per channel in row order within a slice, slices in order: the same bits on every ISA and
//           thread count; where the result is NaN, any NaN
// Throws    nothing
// Source    Liu et al. 2018, eq. 7; threshold: Liu et al. 2020 (ReActNet), RSign; networks.md 0.3; docs/decisions.md, row 4
#pragma once
#include <array>

#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal {
/// Wire codes of bireal.backend.ActivationGradient.
enum class ActivationGradient : int32_t { kApproxSign = 0, kClippedIdentity = 1 };
int64_t approx_sign_workspace_bytes(int64_t C);
}  // namespace bireal
namespace bireal::ref {
void approx_sign_bwd(float* dx, float* dthreshold, const float* db, const float* x, const float* threshold, const float* shortcut,
                     int64_t pooled_W, int64_t rows, int64_t C, ActivationGradient kind, GradMode mode);
}
namespace bireal::cpu {
class Context;
/// sums [2,C] of batch_norm_bwd_sums for the norm whose input is v, or null: not wanted.
struct ApproxSignNorm {
  double* sums = nullptr;
  const void* v = nullptr;
  DType v_type = DType::kF32;
};
using ApproxSignNorms = std::array<ApproxSignNorm, 2>;  // of the norm before, and of the shortcut's
void approx_sign_bwd(Context& context, float* dx, float* dthreshold, const float* db, const float* x, const float* threshold,
                     const float* shortcut, int64_t pooled_W, int64_t rows, int64_t C, ActivationGradient kind, GradMode mode,
                     void* workspace, const ApproxSignNorms& norms = {});
}  // namespace bireal::cpu
namespace bireal::cuda {
/// dx, db, x and shortcut are of `type` (kF32, kF16, kBf16): computed in float32, rounded once (a pooled shortcut's quarter is
/// not: one rounding less than with avg_pool_bwd before).  A pooled shortcut needs rows < 2^31.
/// norm_sums [row_slice_count(rows, C), 2, C] double, or null: also the sums of dx and dx * v that batch_norm_bwd_coefficients of
/// the norm before takes, v [rows, C] being that norm's input (kI16, kI32 or `type`); second_sums are the same for the norm of
/// the shortcut that was added there, its v of `type`. All sums have the bound of batch_norm.h; dthreshold is one more launch,
/// and its products are not rounded to `type`.
void approx_sign_bwd(const Device& device, void* dx, float* dthreshold, const void* db, const void* x, DType type,
                     const float* threshold, const void* shortcut, int64_t pooled_W, double* norm_sums, const void* norm_v,
                     DType norm_v_type, double* second_sums, const void* second_v, int64_t rows, int64_t C,
                     ActivationGradient kind, GradMode mode, void* workspace, Stream stream);
/// Of dthreshold, whose launches alone use it; 0 bytes are needed without.
int64_t approx_sign_workspace_bytes(int64_t rows, int64_t C);
}  // namespace bireal::cuda
