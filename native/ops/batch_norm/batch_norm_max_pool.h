// batch_norm_max_pool: batch normalisation, max-pool and sign-pack of a stem in one pass, and its backward, so that the
// normalised tensor and its gradient (four times the pooled one) are never stored. There is no activation between them.
//
//   fwd         u = fma(scale[c], v, shift[c]) in float32;  y, index = max_pool_fwd(u);  bits = sign_pack_fwd(y, threshold)
//               The maximum is one of u, not of v: its ties (the first wins) also hold where rounding made different v equal,
//               for a negative scale and for scale 0. y is rounded once, when it is stored; the bits are those of the stored y.
//   bwd_sums    du = max_pool_bwd(dy, index);  sums = batch_norm_bwd_sums(du, v)
//   bwd_apply   dz = batch_norm_bwd_apply(du, v, coefficients)                 (du is float32 and never stored)
//
// Shapes    Conv2dShape with K = C, the pooling; v, dz [n,H,W,C], y, dy [n,P,Q,C] T, index [n,P,Q,C] uint8, bits [n,P,Q,Cw]
//           word_t or null, affine [2,C], threshold [C] or null, coefficients [3,C] float, sums [2,C] double
//           T is float, half or bfloat16
// Padding   as max_pool: skipped
// Aliasing  none.  Allocates nothing.  Workspace  batch_norm_max_pool_workspace_bytes(shape), for bwd_sums
// Order     y, index, bits and dz: the same bits as the reference, given the same input. sums: double, in an order set by the
//           shape alone; off by at most n*H*W * 2^-53 * sum |du|, or sum |du v|
// Throws    InvalidArgument from check() only: a window so large that no tile of it fits shared memory (CUDA)
// On the CPU, fwd only: its backward pass is max_pool_bwd and batch_norm
// Source    the unfused ops; performance: one read of v forward, two backward
#pragma once
#include "core/bits.h"
#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal::ref {
void batch_norm_max_pool_fwd(float* y, uint8_t* index, word_t* bits, const float* v, const float* affine, const float* threshold,
                             const Conv2dShape& shape, int64_t n);
void batch_norm_max_pool_bwd_sums(double* sums, const float* dy, const uint8_t* index, const float* v, const Conv2dShape& shape,
                                  int64_t n);
void batch_norm_max_pool_bwd_apply(float* dz, const float* dy, const uint8_t* index, const float* v, const float* coefficients,
                                   const Conv2dShape& shape, int64_t n);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
void batch_norm_max_pool_fwd(Context& context, float* y, uint8_t* index, word_t* bits, const float* v, const float* affine,
                             const float* threshold, const Conv2dShape& shape, int64_t n);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// Throws InvalidArgument if a pooling of this shape and type does not fit shared memory.
void batch_norm_max_pool_check(const Conv2dShape& shape, DType type);
int64_t batch_norm_max_pool_workspace_bytes(const Conv2dShape& shape, DType type);
/// `type` is that of y, v, dy and dz: kF32, kF16 or kBf16.
void batch_norm_max_pool_fwd(const Device& device, void* y, uint8_t* index, word_t* bits, const void* v, DType type,
                             const float* affine, const float* threshold, const Conv2dShape& shape, int64_t n, Stream stream);
/// Two launches.
void batch_norm_max_pool_bwd_sums(const Device& device, double* sums, const void* dy, const uint8_t* index, const void* v,
                                  DType type, const Conv2dShape& shape, int64_t n, void* workspace, Stream stream);
void batch_norm_max_pool_bwd_apply(const Device& device, void* dz, const void* dy, const uint8_t* index, const void* v,
                                   DType type, const float* coefficients, const Conv2dShape& shape, int64_t n, Stream stream);
}  // namespace bireal::cuda
