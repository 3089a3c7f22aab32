// batch_norm_max_pool: max-pooling in front of a batch normalisation instead of behind it. With no activation between the two,
// max_pool(BN(v)) = BN(max v) where gamma > 0 and BN(min v) where gamma < 0, and the sign of gamma is known before the pass. So
// the pooled v, a quarter of the values for 3x3/2, is all that batch_norm_apply and batch_norm_bwd_sums need to read.
//
//   fwd         vmax[n,p,q,c] = v at the winner of the window, index = r*S+s of the winner: the first tap inside the image, in
//               (r,s) order, that no other tap beats. Of gamma > 0 (or NaN) a greater v beats, of gamma < 0 a smaller one, and a
//               NaN beats what is none; of gamma = 0 nothing beats: the first tap inside the image.
//               sums = batch_norm_sums(v), of all of v, where they are wanted (sums may be null)
//   bwd_apply   du[n,h,w,c] = the sum of dy over the windows that chose this element, in (p,q) order;
//               dz = batch_norm_bwd_apply(du, v, coefficients): fma(a, du, fma(b, v, c))          (du is float32, never stored)
//
// Of the normalisation: y = batch_norm_apply(vmax), statistics from sums with m = n*H*W, the values of v, not of vmax; and since
// sum du = sum dy and sum du v = sum dy vmax, coefficients from batch_norm_bwd_sums(dy, vmax), with the same m.
//
// Shapes    Conv2dShape with K = C, the pooling (R*S <= 255, every window must hold at least one tap; output size is
//           floor((H + 2 pad - R)/stride) + 1, the last rows may be unused); v, dz [n,H,W,C], vmax, dy [n,P,Q,C] T,
//           index [n,P,Q,C] uint8, gamma [C], coefficients [3,C] float, sums double as batch_norm_sums; T is float, half or
//           bfloat16
// Padding   skipped
// Aliasing  none.  Allocates nothing.  Workspace  cpu fwd with sums: batch_norm_workspace_bytes(C)
// Order     vmax, index and dz: the same bits as the reference, given the same input. sums: cpu as batch_norm_sums; cuda
//           [row_slice_count(n*H*W, C), 2, C], in an order set by the shape alone, with the error of batch_norm_sums
// Throws    InvalidArgument from check() only
// Source    PyTorch MaxPool2d (of several NaN: the last); docs/decisions.md, "Max-pooling before the norm"
#pragma once
#include "core/bits.h"
#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal {
void batch_norm_max_pool_check(const Conv2dShape& shape);
}  // namespace bireal
namespace bireal::ref {
void batch_norm_max_pool_fwd(float* vmax, uint8_t* index, double* sums, const float* v, const float* gamma,
                             const Conv2dShape& shape, int64_t n);
void batch_norm_max_pool_bwd_apply(float* dz, const float* dy, const uint8_t* index, const float* v, const float* coefficients,
                                   const Conv2dShape& shape, int64_t n);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
struct BatchNormMaxPoolBand;
void batch_norm_max_pool_fwd(Context& context, float* vmax, uint8_t* index, double* sums, const float* v, const float* gamma,
                             const Conv2dShape& shape, int64_t n, void* workspace);
/// Some rows of vmax on the calling thread, for ops that make v row by row (batch_norm_max_pool_rows.h).
void batch_norm_max_pool_band(const Context& context, const BatchNormMaxPoolBand& band);
void batch_norm_max_pool_bwd_apply(Context& context, float* dz, const float* dy, const uint8_t* index, const float* v,
                                   const float* coefficients, const Conv2dShape& shape, int64_t n);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// As that of all backends, and a window so large that no tile of it fits shared memory is refused.
void batch_norm_max_pool_check(const Conv2dShape& shape, DType type);
/// `type` is that of v, vmax, dy and dz: kF32, kF16 or kBf16. Throws InvalidArgument if n images have 2^31 pixels or more.
void batch_norm_max_pool_fwd(const Device& device, void* vmax, uint8_t* index, double* sums, const void* v, DType type,
                             const float* gamma, const Conv2dShape& shape, int64_t n, Stream stream);
void batch_norm_max_pool_bwd_apply(const Device& device, void* dz, const void* dy, const uint8_t* index, const void* v,
                                   DType type, const float* coefficients, const Conv2dShape& shape, int64_t n, Stream stream);
}  // namespace bireal::cuda
