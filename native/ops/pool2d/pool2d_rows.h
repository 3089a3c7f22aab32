// The row kernels of pool2d, one set per instruction set; each is defined in the file that is compiled for it. A row is one
// (image, p) of the output for the forward functions, one (image, h) of the input for the backward ones.
#pragma once
#include <stdint.h>

namespace bireal::cpu {

struct PoolRows {  // Conv2dShape without its STL, and the pointers of one call
  int64_t H, W, C, R, S, stride, pad, P, Q;
  float* y;        // forward
  const float* x;  // forward
  float* dx;       // backward
  const float* dy;
};

using PoolRowsFn = void(const PoolRows& pool, int64_t begin_row, int64_t end_row);
PoolRowsFn avg_pool_fwd_rows_avx2, avg_pool_bwd_rows_avx2;
PoolRowsFn avg_pool_fwd_rows_avx512, avg_pool_bwd_rows_avx512;

}  // namespace bireal::cpu
