// conv2d: real convolution without bias; on the CPU through oneDNN, but for up to 4 input channels (images), where forward pass
// and gradient of the weights are our own (conv2d_direct.h; with 4 taps to each phase of the stride, as 7x7/2 has,
// conv2d_winograd.h).
//
//   fwd         y[n,p,q,k] = sum_{r,s,c} x[n, p*stride+r-pad, q*stride+s-pad, c] * w[k,r,s,c]
//   bwd_input   dx[n,h,w,c] = sum over the same terms of dy[n,p,q,k] * w[k,r,s,c]
//   bwd_weight  dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] * x[n, p*stride+r-pad, q*stride+s-pad, c]
//
// Shapes    x, dx [n,H,W,C], w, dw [K,R,S,C], y, dy [n,P,Q,K], all float; 1 <= n <= shape.N
// Padding   0
// Aliasing  none.  Allocates nothing in a run.  Workspace  plan.workspace_bytes, 64-byte aligned
//           In fwd and bwd_weight of up to 4 channels the padding is zeros that are multiplied: a weight of Inf or NaN shows
//           beside the image too, a dy of it at the border makes NaN of taps that lie beside the image there. By Winograd's
//           algorithm an input of Inf or NaN makes all 16 pixels of a tile NaN, and a weight of it all pixels; in the gradient
//           such an input makes all taps of its channel and phases NaN, such a dy all of its filter
// Order     fixed slices of the batch, each on one thread, slice results added in order: the same bits for any thread count;
//           against the reference within (terms + 4) * 2^-24 * sum|terms|, by Winograd's algorithm within (stride^2*C + 28)
//           * 2^-24 * sum |A| (|B| |x| |B|^T) (|G| |w| |G|^T) |A|^T, its gradient of the weights within (tiles of a slice +
//           slices + 24) * 2^-24 * sum |G|^T (|B| |x| |B|^T) (|A|^T |dy| |A|) |G|
// Throws    InvalidArgument from plan() (shape, or oneDNN offers only a kernel that it names "ref"); DeviceError if oneDNN fails
// Source    PyTorch conv2d; library: oneDNN 3.11
#pragma once
#include <memory>

#include "core/shapes.h"

namespace bireal::ref {
void conv2d_fwd(float* y, const float* x, const float* w, const Conv2dShape& shape, int64_t n);
void conv2d_bwd_input(float* dx, const float* dy, const float* w, const Conv2dShape& shape, int64_t n);
void conv2d_bwd_weight(float* dw, const float* x, const float* dy, const Conv2dShape& shape, int64_t n, GradMode mode);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
struct Conv2dPlan {
  Conv2dShape shape;
  int64_t workspace_bytes = 0;
  const char* kernel_name = "";  // what oneDNN chose for the forward pass, e.g. "brgconv:avx512_core"
  struct Primitives;
  std::shared_ptr<const Primitives> primitives;
};
Conv2dPlan conv2d_plan(Context& context, const Conv2dShape& shape);
void conv2d_fwd(Context& context, const Conv2dPlan& plan, float* y, const float* x, const float* w, int64_t n, void* workspace);
void conv2d_bwd_input(Context& context, const Conv2dPlan& plan, float* dx, const float* dy, const float* w, int64_t n,
                      void* workspace);
void conv2d_bwd_weight(Context& context, const Conv2dPlan& plan, float* dw, const float* x, const float* dy, int64_t n,
                       GradMode mode, void* workspace);
}  // namespace bireal::cpu
