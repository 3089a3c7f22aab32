// Parameters of the kernels in binary_conv.cu and binary_conv_sm80to90.cu.
#pragma once
#include <stdint.h>

#include "ops/batch_norm/batch_norm_params.h"

namespace bireal {

struct BinaryConvFwdParams {
  void* v;                   // [n,P,Q,K] int16 or int32; or null where a normalisation follows in the same pass
  unsigned long long* sums;  // [2,K] int64, added to; or null
  const uint32_t *x, *w;     // [n,H,W,Cw], [K,R,S,Cw]
  int64_t tiles;             // n * tiles_p * tiles_q
  int32_t H, W, C, Cw, K, R, S, stride, pad, P, Q;
  int32_t tile_p, tile_q;       // output pixels of a tile, at most 64
  int32_t tiles_p, tiles_q;     // tiles of an image
  int32_t halo_h, halo_w;       // input pixels of a tile: (tile - 1) * stride + filter
  int32_t chunk_words, chunks;  // words of a pixel that are in shared memory at once
  int32_t pixel_stride;         // words from pixel to pixel in shared memory
  int32_t columns;              // R*S*chunk_words, in the mma kernel rounded up to 8
  int32_t flush_tiles;          // mma: tiles whose squares fit 32 bits
};

/// Shared memory of a block of the mma kernels for what becomes of the values, for each of its channels: sums take 16 bytes;
/// constants of the normalisation 36, bits of a tile 8.
enum { kMmaOutputBytes = 44 };

struct BinaryConvApplyParams {
  BinaryConvFwdParams conv;   // sums are not looked at
  BatchNormApplyParams norm;  // of the same rows and channels; v and the cut into groups and slices are not looked at
};

struct BinaryConvBwdParams {
  void* dx;        // bwd_input: [n,H,W,C]
  float* partial;  // bwd_weight: [slices,K,R,S,C]
  const void* dz;  // [n,P,Q,K]
  const float* alpha;
  const uint32_t *w, *x;
  int64_t pixels;  // of the output of the pass: n*H*W (bwd_input); summed over: n*P*Q (bwd_weight)
  int32_t H, W, C, Cw, K, R, S, stride, pad, P, Q, slices;
};

struct BinaryConvBwdWeightSumParams {
  float* dw;             // [count]
  const float* partial;  // [slices, count]
  int64_t count;
  int32_t slices, accumulate;
};

}  // namespace bireal
