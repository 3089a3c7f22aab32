// pool2d: average and global average pooling (max-pooling: batch_norm_max_pool).
//
//   avg_fwd     y[n,p,q,c] = (sum over taps inside the image of x[n, p*stride+r-pad, q*stride+s-pad, c]) / (R*S)
//   avg_bwd     dx = (sum of dy of its windows, in (p,q) order) / (R*S)
//   global: R = H, S = W
//
// Shapes    Conv2dShape with K = C; x, dx [n,H,W,C], y, dy [n,P,Q,C] float (every window must hold at least one tap); output
//           size is floor((H + 2 pad - R)/stride) + 1, the last rows may be unused
// Padding   counts as 0 and is counted in the divisor (PyTorch's default)
// Aliasing  none.  Allocates nothing.  Workspace  none
// Order     sums taps in (r,s) order in float32, then divides: the same bits on every ISA and thread count
// Throws    InvalidArgument from check() only
// Source    PyTorch AvgPool2d, AdaptiveAvgPool2d(1)
#pragma once
#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal {
void avg_pool_check(const Conv2dShape& shape);
}  // namespace bireal
namespace bireal::ref {
void avg_pool_fwd(float* y, const float* x, const Conv2dShape& shape, int64_t n);
void avg_pool_bwd(float* dx, const float* dy, const Conv2dShape& shape, int64_t n);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
void avg_pool_fwd(Context& context, float* y, const float* x, const Conv2dShape& shape, int64_t n);
void avg_pool_bwd(Context& context, float* dx, const float* dy, const Conv2dShape& shape, int64_t n);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// `type` is that of x, y, dx and dy: kF32, kF16 or kBf16. Sums and quotients are float32, rounded once when they are stored.
/// Throws InvalidArgument if n images have 2^31 pixels or more.
void avg_pool_fwd(const Device& device, void* y, const void* x, DType type, const Conv2dShape& shape, int64_t n, Stream stream);
void avg_pool_bwd(const Device& device, void* dx, const void* dy, DType type, const Conv2dShape& shape, int64_t n, Stream stream);
}  // namespace bireal::cuda
