// pool2d: max, average and global average pooling.
//
//   max_fwd     y[n,p,q,c] = max over taps inside the image of x[n, p*stride+r-pad, q*stride+s-pad, c];
//               index = r*S+s of the first maximum in (r,s) order; a NaN is a maximum, the first of several (PyTorch: the last)
//   max_bwd     dx = the sum of dy over the windows that chose this element, in (p,q) order
//   avg_fwd     y = (sum over taps inside the image) / (R*S);  avg_bwd   dx = (sum of dy of its windows, in (p,q) order) / (R*S)
//   global: avg with R = H, S = W
//
// Shapes    Conv2dShape with K = C; x, dx [n,H,W,C], y, dy [n,P,Q,C] float, index [n,P,Q,C] uint8 (R*S <= 255, every window
//           must hold at least one tap); output size is floor((H + 2 pad - R)/stride) + 1, the last rows may be unused
// Padding   max: skipped (-inf); avg: counts as 0 and is counted in the divisor (PyTorch's default)
// Aliasing  none.  Allocates nothing.  Workspace  none
// Order     avg sums taps in (r,s) order in float32, then divides: the same bits on every ISA and thread count
// Throws    InvalidArgument from check() only
// Source    PyTorch MaxPool2d, AvgPool2d, AdaptiveAvgPool2d(1)
#pragma once
#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal {
void max_pool_check(const Conv2dShape& shape);
void avg_pool_check(const Conv2dShape& shape);
}  // namespace bireal
namespace bireal::ref {
void max_pool_fwd(float* y, uint8_t* index, const float* x, const Conv2dShape& shape, int64_t n);
void max_pool_bwd(float* dx, const float* dy, const uint8_t* index, const Conv2dShape& shape, int64_t n);
void avg_pool_fwd(float* y, const float* x, const Conv2dShape& shape, int64_t n);
void avg_pool_bwd(float* dx, const float* dy, const Conv2dShape& shape, int64_t n);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
void max_pool_fwd(Context& context, float* y, uint8_t* index, const float* x, const Conv2dShape& shape, int64_t n);
void max_pool_bwd(Context& context, float* dx, const float* dy, const uint8_t* index, const Conv2dShape& shape, int64_t n);
void avg_pool_fwd(Context& context, float* y, const float* x, const Conv2dShape& shape, int64_t n);
void avg_pool_bwd(Context& context, float* dx, const float* dy, const Conv2dShape& shape, int64_t n);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// `type` is that of x, y, dx and dy: kF32, kF16 or kBf16. Sums and quotients are float32, rounded once when they are stored.
/// Throws InvalidArgument if n images have 2^31 pixels or more.
void max_pool_fwd(const Device& device, void* y, uint8_t* index, const void* x, DType type, const Conv2dShape& shape, int64_t n,
                  Stream stream);
void max_pool_bwd(const Device& device, void* dx, const void* dy, const uint8_t* index, DType type, const Conv2dShape& shape,
                  int64_t n, Stream stream);
void avg_pool_fwd(const Device& device, void* y, const void* x, DType type, const Conv2dShape& shape, int64_t n, Stream stream);
void avg_pool_bwd(const Device& device, void* dx, const void* dy, DType type, const Conv2dShape& shape, int64_t n, Stream stream);
}  // namespace bireal::cuda
