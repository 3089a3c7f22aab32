// Parameters of the pool2d kernels. Of T: float, half or bfloat16.
#pragma once
#include <stdint.h>

#include "core/shapes.h"

namespace bireal::cuda {

/// Sizes of a pooling (Conv2dShape without N and K), and the pixels of this run: n*P*Q forward, n*H*W backward.
struct PoolShape {
  int32_t H, W, C, R, S, stride, pad, P, Q;
  uint32_t pixels;
};

#ifndef __CUDACC__
/// For n images; throws InvalidArgument, which names `op`, where a kernel counts in 32 bits and they do not suffice.
PoolShape pool_shape(const char* op, const Conv2dShape& shape, int64_t pixels_of_image, int64_t n);
#endif

struct PoolFwdParams {
  void* y;        // T [n,P,Q,C]
  const void* x;  // T [n,H,W,C]
  PoolShape shape;
};

struct PoolBwdParams {
  void* dx;        // T [n,H,W,C]
  const void* dy;  // T [n,P,Q,C]
  PoolShape shape;
};

}  // namespace bireal::cuda
