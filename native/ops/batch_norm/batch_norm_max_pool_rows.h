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

/// Up to four rows of v on their way through 3x3/2 with a border of one, which give two rows of vmax (three rows at least) or
/// one.
struct BatchNormMaxPoolBand {
  const float* v;         // [rows][W,C]
  int64_t rows, W, C, Q;  // Q = (W + 1) / 2
  const float* gamma;
  const float* above;  // [Q,C] what the call for the four rows above left in `last`, or null: there are none
  float* last;         // [Q,C] winners along the last row; their signs are turned where gamma < 0
  float* vmax;         // [1 or 2][Q,C]
};
enum { kBatchNormMaxPoolBandRows = 4 };

using BatchNormMaxPoolRowsFn = void(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row);
struct BatchNormMaxPoolKernels {
  BatchNormMaxPoolRowsFn *fwd, *bwd_apply;
  void (*band)(const BatchNormMaxPoolBand& band);
};
extern const BatchNormMaxPoolKernels batch_norm_max_pool_kernels_avx2, batch_norm_max_pool_kernels_avx512;

}  // namespace bireal::cpu
