// The kernel of conv2d_direct.h, written once: `Vec` is the instruction set, a struct with V (a vector of kLanes floats), kPixels
// and kVectors (the tile: their product is the count of accumulators), and always inlined functions.
#pragma once
#include "ops/conv2d/conv2d_direct.h"

namespace bireal::cpu {

/// sum[i] += x[i][j] * w[j] over `terms` terms, w [terms][kVectors * kLanes]. Returns the end of w.
template <class Vec, int kRows>
BIREAL_INLINE const float* conv2d_add_products(typename Vec::V (&sum)[kRows][Vec::kVectors], const float* const (&x)[kRows],
                                               const float* w, int64_t terms) {
  using V = typename Vec::V;
  enum { kVectors = Vec::kVectors };
  for (int64_t j = 0; j < terms; ++j, w += kVectors * Vec::kLanes) {
    V weights[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) weights[v] = Vec::load(w + v * Vec::kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      V value = Vec::broadcast(x[i] + j);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = Vec::multiply_add(value, weights[v], sum[i][v]);
    }
  }
  return w;
}

template <class Vec, int kPixels>
BIREAL_INLINE void conv2d_direct_tile(const Conv2dRow& row, const float* w, int64_t q, int64_t k0) {
  using V = typename Vec::V;
  enum { kVectors = Vec::kVectors, kBlock = Vec::kVectors * Vec::kLanes };
  V sum[kPixels][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kPixels; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[i][v] = Vec::zero();
  w += row.r_begin * row.row_floats * kBlock;
  for (int64_t r = row.r_begin; r < row.r_end; ++r) {
    const float* x[kPixels];
#pragma GCC unroll 16
    for (int i = 0; i < kPixels; ++i) x[i] = row.x + r * row.pitch_floats + (q + i) * row.step_floats;
    w = conv2d_add_products<Vec>(sum, x, w, row.row_floats);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kPixels; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const int64_t k = k0 + v * Vec::kLanes;
      float* y = row.y + (q + i) * row.K + k;
      if (k + Vec::kLanes <= row.K) {
        Vec::store(y, sum[i][v]);
      } else {
        float lanes[Vec::kLanes];
        Vec::store(lanes, sum[i][v]);
        for (int64_t lane = 0; k + lane < row.K; ++lane) y[lane] = lanes[lane];
      }
    }
}

template <class Vec, int kPixels>
BIREAL_INLINE void conv2d_direct_tile_of(int64_t pixels, const Conv2dRow& row, const float* w, int64_t q, int64_t k0) {
  if constexpr (kPixels > 1) {
    if (pixels < kPixels) return conv2d_direct_tile_of<Vec, kPixels - 1>(pixels, row, w, q, k0);
  }
  conv2d_direct_tile<Vec, kPixels>(row, w, q, k0);
}

template <class Vec>
BIREAL_INLINE void conv2d_direct_row(const Conv2dRow& row) {
  enum { kBlock = Vec::kVectors * Vec::kLanes };
  // Tiles of nearly equal width: no tail of one pixel, which has too few sums to hide the latency of an addition.
  const int64_t tiles = (row.Q + Vec::kPixels - 1) / Vec::kPixels, narrow = row.Q / tiles, wide_tiles = row.Q % tiles;
  const float* w = row.w;
  for (int64_t k0 = 0; k0 < row.K; k0 += kBlock, w += row.R * row.row_floats * kBlock) {
    int64_t q = 0;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t pixels = narrow + (t < wide_tiles);
      conv2d_direct_tile_of<Vec, Vec::kPixels>(pixels, row, w, q, k0);
      q += pixels;
    }
  }
}

/// dw[term][k] += sum over q of x[q * step_floats + term] * dy[q * pitch_floats + k], for kTerms terms and one block of channels.
template <class Vec, int kTerms>
BIREAL_INLINE void conv2d_weight_tile(float* dw, const float* x, int64_t step_floats, const float* dy, int64_t pitch_floats,
                                      int64_t Q) {
  using V = typename Vec::V;
  enum { kVectors = Vec::kVectors, kBlock = Vec::kVectors * Vec::kLanes };
  V sum[kTerms][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kTerms; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[i][v] = Vec::load(dw + i * kBlock + v * Vec::kLanes);
  for (int64_t q = 0; q < Q; ++q, x += step_floats, dy += pitch_floats) {
    V gradient[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) gradient[v] = Vec::load(dy + v * Vec::kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kTerms; ++i) {
      V value = Vec::broadcast(x + i);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = Vec::multiply_add(value, gradient[v], sum[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kTerms; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) Vec::store(dw + i * kBlock + v * Vec::kLanes, sum[i][v]);
}

template <class Vec, int kTerms>
BIREAL_INLINE void conv2d_weight_tile_of(int64_t terms, float* dw, const float* x, int64_t step_floats, const float* dy,
                                         int64_t pitch_floats, int64_t Q) {
  if constexpr (kTerms > 1) {
    if (terms < kTerms) return conv2d_weight_tile_of<Vec, kTerms - 1>(terms, dw, x, step_floats, dy, pitch_floats, Q);
  }
  conv2d_weight_tile<Vec, kTerms>(dw, x, step_floats, dy, pitch_floats, Q);
}

/// The same for any number of terms.
template <class Vec>
BIREAL_INLINE void conv2d_weight_terms(int64_t count, float* dw, const float* x, int64_t step_floats, const float* dy,
                                       int64_t pitch_floats, int64_t Q) {
  enum { kBlock = Vec::kVectors * Vec::kLanes };
  if (count <= Vec::kPixels) return conv2d_weight_tile_of<Vec, Vec::kPixels>(count, dw, x, step_floats, dy, pitch_floats, Q);
  const int64_t tiles = (count + Vec::kPixels - 1) / Vec::kPixels, narrow = count / tiles;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t terms = narrow + (t < count % tiles);
    conv2d_weight_tile_of<Vec, Vec::kPixels>(terms, dw, x, step_floats, dy, pitch_floats, Q);
    x += terms;
    dw += terms * kBlock;
  }
}

template <class Vec>
BIREAL_INLINE void conv2d_direct_weight_row(const Conv2dWeightRow& row) {
  enum { kBlock = Vec::kVectors * Vec::kLanes };
  for (int64_t k0 = 0; k0 < row.padded_K; k0 += kBlock)
    for (int64_t r = row.r_begin; r < row.r_end; ++r)
      conv2d_weight_terms<Vec>(row.row_floats, row.dw + (k0 * row.R + r * kBlock) * row.row_floats, row.x + r * row.pitch_floats,
                               row.step_floats, row.dy + k0, row.padded_K, row.Q);
}

}  // namespace bireal::cpu
