// The row kernels of batch_norm_max_pool, one set per instruction set; each is defined in the file that is compiled for it. A row
// is one (image, p) of the output forward, one (image, h) of the input backward.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

struct BatchNormMaxPoolRows {  // Conv2dShape without its STL, and the pointers of one call
  int64_t H, W, C, R, S, stride, pad, P, Q;
  const float* v;
  float* vmax;  // forward
  uint8_t* index;
  const float* gamma;
  float* dz;  // backward
  const float* dy;
  const uint8_t* chosen;
  const float* coefficients;
};

using BatchNormMaxPoolRowsFn = void(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row);
struct BatchNormMaxPoolKernels {
  BatchNormMaxPoolRowsFn *fwd, *bwd_apply;
};
extern const BatchNormMaxPoolKernels batch_norm_max_pool_kernels_avx2, batch_norm_max_pool_kernels_avx512;

}  // namespace bireal::cpu
