// The kernels of conv2d_winograd.h, written once over `Vec`, as conv2d_direct_impl.h is.
#pragma once
#include "ops/conv2d/conv2d_direct_impl.h"
#include "ops/conv2d/conv2d_winograd.h"

namespace bireal::cpu {

static constexpr Winograd4x4 kWinograd;

template <class Vec>
BIREAL_INLINE void conv2d_winograd_transform(const Conv2dWinogradTiles& tiles, float* v, const float* x) {
  using V = typename Vec::V;
  enum { kPoints = Winograd4x4::kPoints };
  const int64_t depth = tiles.depth, point_floats = tiles.point_floats();
  for (int64_t tile = 0; tile < tiles.tiles; ++tile, x += Winograd4x4::kOutputs * depth, v += tiles.tile_floats())
    for (int64_t row = 0; row < tiles.rows; ++row)
      // A vector is phases and channels, which lie in sequence. The last may reach into the next row, which is written after it.
      for (int64_t lane = 0; lane < depth; lane += Vec::kLanes) {
        const float* from = x + row * tiles.x_pitch_floats + lane;
        float* to = v + row * depth + lane;
        V d[kPoints];
#pragma GCC unroll 8
        for (int i = 0; i < kPoints; ++i) d[i] = Vec::load(from + i * depth);
#pragma GCC unroll 8
        for (int point = 0; point < kPoints; ++point) {
          V sum = Vec::zero();
#pragma GCC unroll 8
          for (int i = 0; i < kPoints; ++i)
            if (kWinograd.B[point][i] != 0) sum = Vec::multiply_add(Vec::all(kWinograd.B[point][i]), d[i], sum);
          Vec::store(to + point * point_floats, sum);
        }
      }
}

/// out[output] = A m over the points, `pitch` floats apart in m.
template <class Vec>
BIREAL_INLINE void conv2d_winograd_outputs(typename Vec::V* out, const float* m, int64_t pitch) {
  using V = typename Vec::V;
  enum { kOutputs = Winograd4x4::kOutputs, kPoints = Winograd4x4::kPoints };
  const V m1 = Vec::load(m + pitch), m2 = Vec::load(m + 2 * pitch), m3 = Vec::load(m + 3 * pitch), m4 = Vec::load(m + 4 * pitch);
  const V half = Vec::load(m + 5 * pitch);
  // +p and -p share |p|^k: their sum for even powers, their difference for odd ones.
  const V one[2] = {m1 + m2, m1 - m2}, two[2] = {m3 + m4, m3 - m4};
#pragma GCC unroll 4
  for (int k = 0; k < kOutputs; ++k) {
    V sum = Vec::multiply_add(Vec::all(kWinograd.A[k][3]), two[k % 2], one[k % 2]);
    sum = Vec::multiply_add(Vec::all(kWinograd.A[k][5]), half, sum);
    if (k == 0) sum = sum + Vec::load(m);
    if (k == kOutputs - 1) sum = sum + Vec::load(m + (kPoints - 1) * pitch);
    out[k] = sum;
  }
}

template <class Vec, int kTiles>
BIREAL_INLINE void conv2d_winograd_tiles(const Conv2dWinogradRow& row, const float* u, int64_t tile0, int64_t k0) {
  using V = typename Vec::V;
  enum { kVectors = Vec::kVectors, kBlock = Vec::kVectors * Vec::kLanes, kPoints = Winograd4x4::kPoints };
  const int64_t Q = row.Q, K = row.K, terms = row.terms;
  alignas(64) float m[kPoints][kTiles * kBlock];
  for (int64_t point = 0; point < kPoints; ++point) {
    V sum[kTiles][kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kTiles; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = Vec::zero();
    const float* x[kTiles];
#pragma GCC unroll 16
    for (int i = 0; i < kTiles; ++i) x[i] = row.v + point * row.point_floats + (tile0 + i) * row.tile_floats;
    conv2d_add_products<Vec>(sum, x, u + point * row.u_point_floats, terms);
#pragma GCC unroll 16
    for (int i = 0; i < kTiles; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) Vec::store(m[point] + i * kBlock + v * Vec::kLanes, sum[i][v]);
  }
  for (int i = 0; i < kTiles; ++i)
    for (int v = 0; v < kVectors; ++v) {
      V out[Winograd4x4::kOutputs];
      conv2d_winograd_outputs<Vec>(out, m[0] + i * kBlock + v * Vec::kLanes, kTiles * kBlock);
      const int64_t q = (tile0 + i) * Winograd4x4::kOutputs, k = k0 + v * Vec::kLanes;
      float* y = row.y + q * K + k;
      if (q + Winograd4x4::kOutputs <= Q && k + Vec::kLanes <= K) {
#pragma GCC unroll 4
        for (int o = 0; o < Winograd4x4::kOutputs; ++o) Vec::store(y + o * K, out[o]);
      } else {
        for (int o = 0; o < Winograd4x4::kOutputs && q + o < Q; ++o) {
          float lanes[Vec::kLanes];
          Vec::store(lanes, out[o]);
          for (int64_t lane = 0; lane < Vec::kLanes && k + lane < K; ++lane) y[o * K + lane] = lanes[lane];
        }
      }
    }
}

template <class Vec, int kTiles>
BIREAL_INLINE void conv2d_winograd_tiles_of(int64_t tiles, const Conv2dWinogradRow& row, const float* u, int64_t tile0,
                                            int64_t k0) {
  if constexpr (kTiles > 1) {
    if (tiles < kTiles) return conv2d_winograd_tiles_of<Vec, kTiles - 1>(tiles, row, u, tile0, k0);
  }
  conv2d_winograd_tiles<Vec, kTiles>(row, u, tile0, k0);
}

template <class Vec>
BIREAL_INLINE void conv2d_winograd_row(const Conv2dWinogradRow& row) {
  enum { kBlock = Vec::kVectors * Vec::kLanes };
  // Groups of nearly equal width, as the direct kernel's.
  const int64_t tiles = row.tiles, groups = (tiles + Vec::kPixels - 1) / Vec::kPixels, narrow = tiles / groups;
  const float* u = row.u;
  for (int64_t k0 = 0; k0 < row.K; k0 += kBlock, u += Winograd4x4::kPoints * row.u_point_floats) {
    int64_t tile0 = 0;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t count = narrow + (g < tiles % groups);
      conv2d_winograd_tiles_of<Vec, Vec::kPixels>(count, row, u, tile0, k0);
      tile0 += count;
    }
  }
}

}  // namespace bireal::cpu
