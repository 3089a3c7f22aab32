// binary_conv: convolution of {-1,+1} tensors by XOR and popcount, and its two real-valued backward passes.
//
//   fwd         v[n,p,q,k] = sum_{r,s,c} x[n, p*stride+r-pad, q*stride+s-pad, c] * w[k,r,s,c]
//                          = valid_taps*C - 2*popcount(x XOR w)
//               sums[0,k] = sum_{n,p,q} v,   sums[1,k] = sum_{n,p,q} v^2           (what batch_norm needs)
//   bwd_input   dx[n,h,w,c] = sum_{k,r,s: (h,w) = (p,q)*stride + (r,s) - pad} dz[n,p,q,k] * alpha[k] * w[k,r,s,c]
//               the gradient of the signs; the activation gradient (approx_sign) is the caller's
//   bwd_weight  dw[k,r,s,c] = sum_{n,p,q} dz[n,p,q,k] * x[n, p*stride+r-pad, q*stride+s-pad, c]
//               dL/dWb; the weight-gradient rule (weight_binarize) is the caller's
//
// Shapes    x [n,H,W,Cw] word_t, w bits [K,R,S,Cw] word_t, v [n,P,Q,K] int16 or int32 (plan.v_type), sums [2,K] int64,
//           dz [n,P,Q,K] float, alpha [K] float, dx [n,H,W,C] float, dw [K,R,S,C] float; 1 <= n <= shape.N
// Padding   a tap outside the image contributes 0; it is skipped, not packed (docs/decisions.md, row 2)
// Range     |v| <= R*S*C; int16 where R*S*C < 2^15, else int32; plan() rejects R*S*C >= 2^31 / 2,
//           and padded images of 2^27 words or more (32-bit indices within an image)
// Aliasing  none.  Allocates nothing in a run.  Workspace  plan.workspace_bytes, 64-byte aligned
// Order     fwd: integer sums, exact on every ISA, thread count and device. bwd with kFloat32: fixed slices of the batch added
//           in order: the same bits for any thread count; across ISAs within (terms + 4) * 2^-24 * sum|terms|. bwd with kFixed16:
//           integer sums, the same bits as the reference on every ISA and thread count
// kFixed16  dz (bwd_weight: one scale per output channel) or dz * alpha (bwd_input: one scale per image) is rounded to 16 bits
//           with the step max / 32767; everything after that is exact but for the rounding of the result to float:
//             |error| <= terms * step * (1/2 + 2^-7) + 2^-23 * |result|     (binary_conv_fixed16.h has the rule)
//           Images and channels with max / rms > 400, with a max below 2^-100, or with NaN or Inf go through float32 (so a NaN
//           shows in the result) and are counted in plan.fallbacks. Shapes with R*S*K > 65,536 (bwd_input) or Q > 65,536
//           (bwd_weight) would overflow 32 bits: that pass is float32 for them, uncounted
// Throws    InvalidArgument from plan() only
// Source    Liu et al. 2018, sec. 3
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "core/bits.h"
#include "core/shapes.h"
#include "cuda/forward.h"
#include "ops/batch_norm/batch_norm.h"

namespace bireal {
/// Arithmetic of the two backward passes, or none: such a plan is for inference. Wire codes of bireal.backend.Gradient.
enum class BinaryConvGradient : int32_t { kFloat32 = 0, kFixed16 = 1, kNone = 2 };
}  // namespace bireal
namespace bireal::ref {
/// v_type: kI16 or kI32. sums may be null.
void binary_conv_fwd(void* v, DType v_type, int64_t* sums, const word_t* x, const word_t* w, const Conv2dShape& shape, int64_t n);
void binary_conv_bwd_input(float* dx, const float* dz, const float* alpha, const word_t* w, const Conv2dShape& shape, int64_t n);
void binary_conv_bwd_weight(float* dw, const word_t* x, const float* dz, const Conv2dShape& shape, int64_t n, GradMode mode);
/// The same passes with kFixed16; each returns how many images or channels were left to the functions above.
int64_t binary_conv_bwd_input_fixed16(float* dx, const float* dz, const float* alpha, const word_t* w, const Conv2dShape& shape,
                                      int64_t n);
int64_t binary_conv_bwd_weight_fixed16(float* dw, const word_t* x, const float* dz, const Conv2dShape& shape, int64_t n,
                                       GradMode mode);
}  // namespace bireal::ref
namespace bireal {
/// DType of v for this shape: the same rule for every backend.
DType binary_conv_v_type(const Conv2dShape& shape);
}  // namespace bireal
namespace bireal::cpu {
class Context;
/// Immutable after plan(). The layout of `prepared` belongs to the chosen kernel.
struct BinaryConvPlan {
  Conv2dShape shape;
  BinaryConvGradient gradient = BinaryConvGradient::kFloat32;
  DType v_type = DType::kI16;
  const char* kernel_name = "";  // which forward kernel was chosen, e.g. "avx512_vpopcntdq"
  int64_t prepared_bytes = 0;    // buffer of binary_conv_prepare
  int64_t workspace_bytes = 0;   // largest of the passes
  struct Backward;               // oneDNN primitives of the float32 backward passes; null with kNone
  std::shared_ptr<const Backward> backward;
  struct Fixed16;  // kernel and sizes of the fixed-point backward passes; null with kFloat32
  std::shared_ptr<const Fixed16> fixed16;
  std::shared_ptr<std::atomic<int64_t>> fallbacks;  // images and channels that kFixed16 has left to float32 since plan()
};
BinaryConvPlan binary_conv_plan(Context& context, const Conv2dShape& shape,
                                BinaryConvGradient gradient = BinaryConvGradient::kFloat32);
/// Re-lays weight bits for the forward kernel; call after every change of the weights.
void binary_conv_prepare(Context& context, const BinaryConvPlan& plan, void* prepared, const word_t* w);
void binary_conv_fwd(Context& context, const BinaryConvPlan& plan, void* v, int64_t* sums, const word_t* x, const void* prepared,
                     int64_t n, void* workspace);
/// The convolution and batch_norm_apply of its v, with the same results to the bit; norm.v and norm.v_type are not looked at. v
/// lives task by task in the workspace only: for evaluation, where the normalisation does not wait for the sums over all of it.
void binary_conv_norm_fwd(Context& context, const BinaryConvPlan& plan, float* y, word_t* bits, const BatchNormApply& norm,
                          const word_t* x, const void* prepared, int64_t n, void* workspace);
void binary_conv_bwd_input(Context& context, const BinaryConvPlan& plan, float* dx, const float* dz, const float* alpha,
                           const word_t* w, int64_t n, void* workspace);
void binary_conv_bwd_weight(Context& context, const BinaryConvPlan& plan, float* dw, const word_t* x, const float* dz, int64_t n,
                            GradMode mode, void* workspace);
}  // namespace bireal::cpu
namespace bireal::cuda {
// What differs from cpu: w are the plain weight bits (nothing is prepared); fwd adds to sums, so that one memset clears those of
// a whole network; dz and dx are stored as kF32, kF16 or kBf16. The backward passes accumulate in float32, each result in one
// fixed order: |error| <= (terms + 4) * 2^-24 * sum|terms|, plus the rounding of dx to its type.
struct BinaryConvPlan {
  Conv2dShape shape;
  DType v_type = DType::kI16;
  const char* kernel_name =
      "";                       // of the forward pass: "mma_wide", "mma_narrow" (b1 tensor cores, 8.0 to 9.0) or "popc" (any GPU)
  int64_t workspace_bytes = 0;  // of bwd_weight
};
/// Forward kernels that can run the shape on this GPU, best guess first; popc is always among them.
std::vector<const char*> binary_conv_kernel_names(const Device& device, const Conv2dShape& shape);
/// Without `kernel` the candidates are timed on the device, which takes some 128 MB for a moment: binary_conv_norm_fwd with y of
/// `type`, of a training step or of an evaluation. "" is the best guess. Throws InvalidArgument.
BinaryConvPlan binary_conv_plan(const Device& device, const Conv2dShape& shape, const char* kernel = nullptr,
                                DType type = DType::kF32, bool training = true);
/// The name of the fastest of `names`: three runs each.
const char* binary_conv_fastest(const Device& device, const BinaryConvPlan& plan, const std::vector<const char*>& names,
                                DType type, bool training);

/// sums [2,K] int64 are added to; or null.
void binary_conv_fwd(const Device& device, const BinaryConvPlan& plan, void* v, int64_t* sums, const word_t* x, const word_t* w,
                     int64_t n, Stream stream);

/// Whether binary_conv_norm_fwd normalises as it convolves: the mma kernels do.
bool binary_conv_fuses_norm(const BinaryConvPlan& plan);
/// The convolution and batch_norm_apply of its v, with the same results to the bit; norm.v and norm.v_type are not looked at.
/// With norm.statistics the sums are added to first, as binary_conv_fwd does. Where it fuses, the convolution is computed once
/// for the sums and once more for y, which costs less than reading v; v is still written, or null where nobody wants it. Else it
/// is those two launches, and v must be there.
void binary_conv_norm_fwd(const Device& device, const BinaryConvPlan& plan, void* v, void* y, DType y_type, word_t* bits,
                          const BatchNormApplyCuda& norm, const word_t* x, const word_t* w, int64_t n, Stream stream);

void binary_conv_bwd_input(const Device& device, const BinaryConvPlan& plan, void* dx, const void* dz, DType type,
                           const float* alpha, const word_t* w, int64_t n, Stream stream);
/// dw float32. Output pixels are summed in slices, and slices in order, both by shape and n alone.
int64_t binary_conv_bwd_weight_slices(const Conv2dShape& shape, int64_t n);
void binary_conv_bwd_weight(const Device& device, const BinaryConvPlan& plan, float* dw, const word_t* x, const void* dz,
                            DType type, int64_t n, GradMode mode, void* workspace, Stream stream);
}  // namespace bireal::cuda
