// Parameters of the batch_norm_max_pool kernels. T: float, half or bfloat16.
#pragma once
#include "core/bits.h"
#include "ops/pool2d/pool2d_params.h"

namespace bireal::cuda {

/// How a launch is cut: tiles of tile x tile pixels (of vmax forward, of v backward) of one image; a block takes one word of 32
/// channels of the tiles of one slice. The other side of a tile, staged in shared memory, has at most staged x staged pixels.
struct PoolTiles {
  enum { kMost = 16 };  // tile <= kMost
  int32_t tile, staged;
  int32_t rows, columns;  // tiles of an image
  uint32_t count;         // tiles of this run
  int32_t slices;         // at most row_slice_count(n*H*W, C), forward exactly so many
};

struct BatchNormMaxPoolFwdParams {
  void* vmax;      // T [n,P,Q,C]
  uint8_t* index;  // [n,P,Q,C]
  double* sums;    // [slices,2,C], or null
  const void* v;   // T [n,H,W,C]
  const float* gamma;
  PoolShape shape;
  PoolTiles tiles;
};

struct BatchNormMaxPoolBwdParams {
  void* dz;              // T [n,H,W,C]
  const void* dy;        // T [n,P,Q,C]
  const uint8_t* index;  // [n,P,Q,C]
  const void* v;         // T [n,H,W,C]
  const float* coefficients;
  PoolShape shape;
  PoolTiles tiles;
};

}  // namespace bireal::cuda
