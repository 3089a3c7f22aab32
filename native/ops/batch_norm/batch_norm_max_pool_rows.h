// The row kernels of batch_norm_max_pool, one per instruction set; each is defined in the file that is compiled for it. A row is
// one (image, p) of the output.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

struct BatchNormMaxPoolRows {  // Conv2dShape without its STL, and the pointers of one call
  int64_t H, W, C, R, S, stride, pad, P, Q;
  float* y;
  uint8_t* index;
  word_t* bits;  // or null
  const float *v, *scale, *shift;
  const float* threshold;  // or null
};

using BatchNormMaxPoolRowsFn = void(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row);
BatchNormMaxPoolRowsFn batch_norm_max_pool_rows_avx2, batch_norm_max_pool_rows_avx512;

}  // namespace bireal::cpu
