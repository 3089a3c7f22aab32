// Parameters of the batch_norm_max_pool kernels. T: float, half or bfloat16.
#pragma once
#include "core/bits.h"
#include "ops/pool2d/pool2d_params.h"

namespace bireal::cuda {

/// How a launch is cut: tiles of tile x tile pixels (of y forward, of v backward) of one image. The other side of a tile, staged
/// in shared memory, has at most staged x staged pixels; 32 channels of them are held.
struct PoolTiles {
  int32_t tile, staged;
  int32_t rows, columns;  // tiles of an image
  uint32_t count;         // tiles of this run
};

struct BatchNormMaxPoolFwdParams {
  void* y;         // T [n,P,Q,C]
  uint8_t* index;  // [n,P,Q,C]
  word_t* bits;    // [n,P,Q,Cw], or null
  const void* v;   // T [n,H,W,C]
  const float *affine, *threshold;
  PoolShape shape;
  PoolTiles tiles;
};

struct BatchNormMaxPoolBwdParams {
  void* dz;              // bwd_apply: T [n,H,W,C]
  double* sums;          // bwd_sums: [2,C]
  double* slices;        // bwd_sums: [slice_count, 2, C], workspace
  const void* dy;        // T [n,P,Q,C]
  const uint8_t* index;  // [n,P,Q,C]
  const void* v;         // T [n,H,W,C]
  const float* coefficients;
  PoolShape shape;
  PoolTiles tiles;
  int32_t slice_count;  // bwd_sums: a block adds the tiles of one slice
};

}  // namespace bireal::cuda
