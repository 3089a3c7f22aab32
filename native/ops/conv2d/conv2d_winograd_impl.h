// The kernels of conv2d_winograd.h, written once over `Vec`, as conv2d_direct_impl.h is.
#pragma once
#include "ops/conv2d/conv2d_direct_impl.h"
#include "ops/conv2d/conv2d_winograd.h"

namespace bireal::cpu {

static constexpr Winograd4x4 kWinograd;

/// out[point] = B d, of d `pitch` floats apart.
template <class Vec>
BIREAL_INLINE void conv2d_winograd_points(typename Vec::V (&out)[Winograd4x4::kPoints], const float* from, int64_t pitch) {
  using V = typename Vec::V;
  enum { kPairs = Winograd4x4::kPairs, kPoints = Winograd4x4::kPoints };
  constexpr auto& B = kWinograd.B;
  V d[kPoints];
#pragma GCC unroll 8
  for (int i = 0; i < kPoints; ++i) d[i] = Vec::load(from + i * pitch);
  // Of point 0 x^6 + B4 x^4 + B2 x^2 + B0; of +p and -p (x +- p) (x^5 + B4 x^3 + B2 x).
  V sum = Vec::multiply_add(Vec::all(B[0][4]), d[4], d[6]);
  sum = Vec::multiply_add(Vec::all(B[0][2]), d[2], sum);
  out[0] = Vec::multiply_add(Vec::all(B[0][0]), d[0], sum);
#pragma GCC unroll 4
  for (int pair = 0; pair < kPairs; ++pair) {
    const int plus = 1 + 2 * pair, minus = plus + 1;
    const V b4 = Vec::all(B[plus][4]), b2 = Vec::all(B[plus][2]);
    const V even = Vec::multiply_add(b2, d[2], Vec::multiply_add(b4, d[4], d[6]));
    const V odd = Vec::multiply_add(b2, d[1], Vec::multiply_add(b4, d[3], d[5]));
    out[plus] = Vec::multiply_add(Vec::all(B[plus][5]), odd, even);
    out[minus] = Vec::multiply_add(Vec::all(B[minus][5]), odd, even);
  }
}

/// out[output] = A m over the points, `pitch` floats apart.
template <class Vec>
BIREAL_INLINE void conv2d_winograd_outputs(typename Vec::V (&out)[Winograd4x4::kOutputs], const float* from, int64_t pitch) {
  using V = typename Vec::V;
  enum { kOutputs = Winograd4x4::kOutputs, kPairs = Winograd4x4::kPairs };
  // +p and -p share |p|^k: their sum for even powers, their difference for odd ones.
  V pairs[2][kPairs];
#pragma GCC unroll 4
  for (int pair = 0; pair < kPairs; ++pair) {
    const V plus = Vec::load(from + (1 + 2 * pair) * pitch), minus = Vec::load(from + (2 + 2 * pair) * pitch);
    pairs[0][pair] = plus + minus;
    pairs[1][pair] = plus - minus;
  }
#pragma GCC unroll 4
  for (int k = 0; k < kOutputs; ++k) {
    V sum = k == 0 ? Vec::load(from) : Vec::zero();
#pragma GCC unroll 4
    for (int pair = 0; pair < kPairs; ++pair)
      if (kWinograd.unit[pair] == k) sum = pairs[k % 2][pair];
#pragma GCC unroll 4
    for (int pair = 0; pair < kPairs; ++pair)
      if (kWinograd.unit[pair] != k) sum = Vec::multiply_add(Vec::all(kWinograd.A[k][1 + 2 * pair]), pairs[k % 2][pair], sum);
    out[k] = sum;
  }
}

template <class Vec>
BIREAL_INLINE void conv2d_winograd_transform(const Conv2dWinogradTiles& tiles, float* h, const float* x, int64_t rows) {
  using V = typename Vec::V;
  enum { kPoints = Winograd4x4::kPoints };
  const int64_t depth = tiles.depth;
  for (int64_t row = 0; row < rows; ++row, x += tiles.x_pitch_floats, h += tiles.row_floats())
    for (int64_t tile = 0; tile < tiles.tiles; ++tile)
      // A vector is phases and channels, which lie in sequence. The last may reach into the next tile, which is written after it.
      for (int64_t lane = 0; lane < depth; lane += Vec::kLanes) {
        V points[kPoints];
        conv2d_winograd_points<Vec>(points, x + tile * Winograd4x4::kOutputs * depth + lane, depth);
#pragma GCC unroll 8
        for (int point = 0; point < kPoints; ++point)
          Vec::store(h + point * tiles.plane_floats + tile * depth + lane, points[point]);
      }
}

/// v of a row of tiles: the other direction, for whatever lies in a row of h.
template <class Vec>
BIREAL_INLINE void conv2d_winograd_transform_columns(const Conv2dWinogradTiles& tiles, float* v, const float* h) {
  using V = typename Vec::V;
  enum { kPoints = Winograd4x4::kPoints };
  const int64_t row_floats = tiles.row_floats(), point_floats = tiles.stride * row_floats;
  for (int64_t i = 0; i < point_floats; i += Vec::kLanes) {  // the rows of all phases lie in sequence
    V points[kPoints];
    conv2d_winograd_points<Vec>(points, h + i, point_floats);
#pragma GCC unroll 8
    for (int point = 0; point < kPoints; ++point) Vec::store(v + point * point_floats + i, points[point]);
  }
}

/// sum[i] += x[i * kPitch + j] * w[j] over kTerms terms: one pointer, no loop.
template <class Vec, int kTerms, int kPitch, int kTiles>
BIREAL_INLINE void conv2d_winograd_add_products(typename Vec::V (&sum)[kTiles][Vec::kVectors], const float* x, const float* w) {
  using V = typename Vec::V;
  enum { kVectors = Vec::kVectors };
#pragma GCC unroll 8
  for (int j = 0; j < kTerms; ++j) {
    V weights[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) weights[v] = Vec::load(w + (j * kVectors + v) * Vec::kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kTiles; ++i) Vec::add_products(sum[i], x + i * kPitch + j, weights);
  }
}

/// y of a block of channels of some tiles, from its row points [row point][output column][tile][block]. A function of its own: in
/// the middle of the products gcc 12 keeps every address of it on the stack.
template <class Vec, int kTiles>
__attribute__((noinline)) void conv2d_winograd_finish(const float* lines, const Conv2dWinogradRow& row, int64_t tile0,
                                                      int64_t k0) {
  using V = typename Vec::V;
  enum { kBlock = Vec::kVectors * Vec::kLanes, kOutputs = Winograd4x4::kOutputs };
  const int64_t Q = row.Q, K = row.K, pitch = Q * K;
  for (int i = 0; i < kTiles; ++i)
    for (int o = 0; o < kOutputs; ++o) {
      const int64_t q = (tile0 + i) * kOutputs + o;
      if (q >= Q) break;
      const float* from = lines + (o * kTiles + i) * kBlock;
      float* y = row.y + q * K + k0;
      if (row.rows == kOutputs && k0 + kBlock <= K) {
#pragma GCC unroll 4
        for (int j = 0; j < kBlock; j += Vec::kLanes) {
          V out[kOutputs];
          conv2d_winograd_outputs<Vec>(out, from + j, kOutputs * kTiles * kBlock);
#pragma GCC unroll 4
          for (int r = 0; r < kOutputs; ++r) Vec::store(y + r * pitch + j, out[r]);
        }
        continue;
      }
      for (int j = 0; j < kBlock; j += Vec::kLanes) {
        V out[kOutputs];
        conv2d_winograd_outputs<Vec>(out, from + j, kOutputs * kTiles * kBlock);
        for (int64_t r = 0; r < row.rows; ++r) {
          float lanes[Vec::kLanes];
          Vec::store(lanes, out[r]);
          for (int64_t lane = 0; lane < Vec::kLanes && k0 + j + lane < K; ++lane) y[r * pitch + j + lane] = lanes[lane];
        }
      }
    }
}

/// kDepth: tiles.depth, where it is known.
template <class Vec, int kDepth, int kTiles>
BIREAL_INLINE void conv2d_winograd_tiles(const Conv2dWinogradTiles& tiles, const Conv2dWinogradRow& row, const float* u,
                                         int64_t tile0, int64_t k0) {
  using V = typename Vec::V;
  enum { kVectors = Vec::kVectors, kBlock = Vec::kVectors * Vec::kLanes };
  enum { kOutputs = Winograd4x4::kOutputs, kPoints = Winograd4x4::kPoints };
  const int64_t Q = row.Q, K = row.K, depth = kDepth > 0 ? kDepth : tiles.depth;
  alignas(64) float lines[kPoints][kOutputs][kTiles * kBlock];  // [row point][output column]
  const int64_t row_floats = tiles.row_floats(), phase_floats = depth * kBlock;
  const float* v = row.v + tile0 * depth;
  for (int64_t row_point = 0; row_point < kPoints; ++row_point) {
    alignas(64) float products[kPoints][kTiles * kBlock];
    const int64_t first_phase = row_point == 0 ? row.row_zeros : 0;
    const float* x = v;
    for (int64_t point = 0; point < kPoints; ++point, x += tiles.plane_floats) {
      // Lines of y that will be written are fetched meanwhile: written all at once, they would wait for the third-level cache.
      for (int64_t pixel = row_point * kPoints + point; row.fetch && pixel < kTiles * kOutputs * kOutputs;
           pixel += kPoints * kPoints) {
        const int64_t r = pixel % kOutputs, q = tile0 * kOutputs + pixel / kOutputs;
        if (r < row.rows && q < Q)
          for (int64_t k = k0; k < k0 + kBlock && k < K; k += 16) __builtin_prefetch(row.y + (r * Q + q) * K + k, 1);
      }
      const int64_t first_term = point == 0 ? row.column_zeros * (depth / tiles.stride) : 0;
      V sum[kTiles][kVectors];
#pragma GCC unroll 16
      for (int i = 0; i < kTiles; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) sum[i][j] = Vec::zero();
      const float *first = x + first_phase * row_floats + first_term, *w = u + first_phase * phase_floats + first_term * kBlock;
      for (int64_t phase = first_phase; phase < tiles.stride; ++phase, first += row_floats, w += phase_floats) {
        if constexpr (kDepth > 0) {
          enum { kHalf = kDepth / 2 };
          if (first_term == 0) {
            conv2d_winograd_add_products<Vec, kDepth, kDepth>(sum, first, w);
            continue;
          }
          if (first_term == kHalf) {
            conv2d_winograd_add_products<Vec, kHalf, kDepth>(sum, first, w);
            continue;
          }
        }
        const float* tile[kTiles];
#pragma GCC unroll 16
        for (int i = 0; i < kTiles; ++i) tile[i] = first + i * depth;
        conv2d_add_products<Vec>(sum, tile, w, depth - first_term);
      }
#pragma GCC unroll 16
      for (int i = 0; i < kTiles; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) Vec::store(products[point] + i * kBlock + j * Vec::kLanes, sum[i][j]);
      u += tiles.stride * phase_floats;
    }
    v += tiles.stride * row_floats;
    for (int i = 0; i < kTiles * kBlock; i += Vec::kLanes) {
      V out[kOutputs];
      conv2d_winograd_outputs<Vec>(out, products[0] + i, kTiles * kBlock);
#pragma GCC unroll 4
      for (int o = 0; o < kOutputs; ++o) Vec::store(lines[row_point][o] + i, out[o]);
    }
  }
  conv2d_winograd_finish<Vec, kTiles>(lines[0][0], row, tile0, k0);
}

template <class Vec, int kDepth, int kTiles>
BIREAL_INLINE void conv2d_winograd_tiles_of(int64_t count, const Conv2dWinogradTiles& tiles, const Conv2dWinogradRow& row,
                                            const float* u, int64_t tile0, int64_t k0) {
  if constexpr (kTiles > 1) {
    if (count < kTiles) return conv2d_winograd_tiles_of<Vec, kDepth, kTiles - 1>(count, tiles, row, u, tile0, k0);
  }
  conv2d_winograd_tiles<Vec, kDepth, kTiles>(tiles, row, u, tile0, k0);
}

template <class Vec, int kDepth>
BIREAL_INLINE void conv2d_winograd_row_of(const Conv2dWinogradTiles& tiles, const Conv2dWinogradRow& row) {
  enum { kBlock = Vec::kVectors * Vec::kLanes, kPoints = Winograd4x4::kPoints };
  conv2d_winograd_transform_columns<Vec>(tiles, row.v, row.h);
  // Groups of nearly equal width, as the direct kernel's.
  const int64_t groups = (tiles.tiles + Vec::kPixels - 1) / Vec::kPixels, narrow = tiles.tiles / groups;
  int64_t tile0 = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t count = narrow + (g < tiles.tiles % groups);
    const float* u = row.u;
    for (int64_t k0 = 0; k0 < row.K; k0 += kBlock, u += kPoints * kPoints * tiles.stride * tiles.depth * kBlock)
      conv2d_winograd_tiles_of<Vec, kDepth, Vec::kPixels>(count, tiles, row, u, tile0, k0);
    tile0 += count;
  }
}

template <class Vec>
BIREAL_INLINE void conv2d_winograd_row(const Conv2dWinogradTiles& tiles, const Conv2dWinogradRow& row) {
  enum { kStemDepth = 2 * 3 };  // stride 2 over three channels
  if (tiles.depth == kStemDepth) return conv2d_winograd_row_of<Vec, kStemDepth>(tiles, row);
  conv2d_winograd_row_of<Vec, 0>(tiles, row);
}

/// Of d: its part of even powers and that of odd ones, whose sum and difference are the points of a pair in A^T d.
template <class Vec>
BIREAL_INLINE void conv2d_winograd_gradient_parts(typename Vec::V (&parts)[2], const typename Vec::V (&d)[Winograd4x4::kOutputs],
                                                  int pair) {
  const int unit = kWinograd.unit[pair];
#pragma GCC unroll 2
  for (int odd = 0; odd < 2; ++odd) {
    const int first = unit == odd + 2 ? odd + 2 : odd, second = 2 * odd + 2 - first;
    const typename Vec::V sum = unit == first ? d[first] : Vec::all(kWinograd.A[first][1 + 2 * pair]) * d[first];
    parts[odd] = Vec::multiply_add(Vec::all(kWinograd.A[second][1 + 2 * pair]), d[second], sum);
  }
}

/// m[point] = A^T d, of the points of a line.
template <class Vec>
BIREAL_INLINE void conv2d_winograd_gradient_line(float* m, const typename Vec::V (&d)[Winograd4x4::kOutputs]) {
  enum { kPitch = Conv2dWinogradTiles::kGroup * Vec::kVectors * Vec::kLanes, kPairs = Winograd4x4::kPairs };
  Vec::store(m, d[0]);
#pragma GCC unroll 4
  for (int pair = 0; pair < kPairs; ++pair) {
    typename Vec::V parts[2];
    conv2d_winograd_gradient_parts<Vec>(parts, d, pair);
    Vec::store(m + (1 + 2 * pair) * kPitch, parts[0] + parts[1]);
    Vec::store(m + (2 + 2 * pair) * kPitch, parts[0] - parts[1]);
  }
}

/// The lines of A^T dy A that belong to point 0 (kPair = -1) or to a pair of points, of kLanes channels of a tile.
template <class Vec, int kPair>
BIREAL_INLINE void conv2d_winograd_gradient_tile(float* m, const float* dy, int64_t row_pitch, int64_t pitch) {
  using V = typename Vec::V;
  enum { kLine = Winograd4x4::kPoints * Conv2dWinogradTiles::kGroup * Vec::kVectors * Vec::kLanes };
  enum { kOutputs = Winograd4x4::kOutputs };
  const float* rows[kOutputs] = {dy, dy + row_pitch, dy + 2 * row_pitch, dy + 3 * row_pitch};
  const int64_t columns[kOutputs] = {0, pitch, 2 * pitch, 3 * pitch};
  V line[2][kOutputs];
#pragma GCC unroll 4
  for (int q = 0; q < kOutputs; ++q) {
    if (kPair < 0) {
      line[0][q] = Vec::load(rows[0] + columns[q]);
      continue;
    }
    V d[kOutputs], parts[2];
#pragma GCC unroll 4
    for (int r = 0; r < kOutputs; ++r) d[r] = Vec::load(rows[r] + columns[q]);
    conv2d_winograd_gradient_parts<Vec>(parts, d, kPair);
    line[0][q] = parts[0] + parts[1];
    line[1][q] = parts[0] - parts[1];
  }
  conv2d_winograd_gradient_line<Vec>(m, line[0]);
  if (kPair >= 0) conv2d_winograd_gradient_line<Vec>(m + kLine, line[1]);
}

/// The same of `count` tiles, for one block of channels from k0 on. Meanwhile row kPair + 1 of the gradients at `next`, which are
/// read next, is fetched: it would be waited for.
template <class Vec, int kPair>
BIREAL_INLINE void conv2d_winograd_gradient(const Conv2dWinogradWeightRow& row, int64_t tile0, int64_t count, int64_t k0,
                                            const float* next) {
  enum { kBlock = Vec::kVectors * Vec::kLanes, kOutputs = Winograd4x4::kOutputs };
  next += (kPair + 1) * row.Q * row.K;
  for (int64_t tile = 0; tile < count; ++tile) {
    for (int q = 0; q < kOutputs; ++q, next += row.K)
      for (int k = 0; k < kBlock; k += 16) __builtin_prefetch(next + k);
    const int64_t q0 = (tile0 + tile) * kOutputs;
    const float* dy = row.dy + q0 * row.K + k0;
    int64_t row_pitch = row.Q * row.K, pitch = row.K;
    alignas(64) float padded[kOutputs][kOutputs][kBlock];
    if (row.rows < kOutputs || q0 + kOutputs > row.Q || k0 + kBlock > row.K) {
      for (int64_t r = 0; r < kOutputs; ++r)
        for (int64_t q = 0; q < kOutputs; ++q)
          for (int64_t k = 0; k < kBlock; ++k)
            padded[r][q][k] = r < row.rows && q0 + q < row.Q && k0 + k < row.K ? dy[r * row_pitch + q * pitch + k] : 0.0f;
      dy = padded[0][0];
      row_pitch = kOutputs * kBlock;
      pitch = kBlock;
    }
#pragma GCC unroll 4
    for (int j = 0; j < kBlock; j += Vec::kLanes)
      conv2d_winograd_gradient_tile<Vec, kPair>(row.m + tile * kBlock + j, dy + j, row_pitch, pitch);
  }
}

/// Adds the products of `count` tiles with m in row point 0 (kPair = -1) or those of a pair to the sums of a block of channels.
/// m is that much, 26 KB with AVX2, to stay in the first-level cache.
template <class Vec, int kPair>
BIREAL_INLINE void conv2d_winograd_weight_products(const Conv2dWinogradTiles& tiles, const Conv2dWinogradWeightRow& row,
                                                   float* sums, int64_t tile0, int64_t count, int64_t k0, const float* next) {
  enum { kBlock = Vec::kVectors * Vec::kLanes, kPoints = Winograd4x4::kPoints };
  conv2d_winograd_gradient<Vec, kPair>(row, tile0, count, k0, next);
  const int64_t depth = tiles.depth, channels = depth / tiles.stride;
  const float* m = row.m;
  for (int64_t row_point = kPair < 0 ? 0 : 1 + 2 * kPair; row_point < 3 + 2 * kPair; ++row_point)
    for (int64_t point = 0; point < kPoints; ++point, m += Conv2dWinogradTiles::kGroup * kBlock) {
      const int64_t first_term = point == 0 ? row.column_zeros * channels : 0;
      for (int64_t phase = row_point == 0 ? row.row_zeros : 0; phase < tiles.stride; ++phase) {
        const int64_t row_of = row_point * tiles.stride + phase;
        const float* x = row.v + row_of * tiles.row_floats() + point * tiles.plane_floats + tile0 * depth;
        float* sum = sums + ((row_point * kPoints + point) * tiles.stride + phase) * depth * kBlock;
        conv2d_weight_terms<Vec>(depth - first_term, sum + first_term * kBlock, x + first_term, depth, m, kBlock, count);
      }
    }
}

template <class Vec>
BIREAL_INLINE void conv2d_winograd_weight_row(const Conv2dWinogradTiles& tiles, const Conv2dWinogradWeightRow& row) {
  enum { kBlock = Vec::kVectors * Vec::kLanes, kOutputs = Winograd4x4::kOutputs, kPoints = Winograd4x4::kPoints };
  conv2d_winograd_transform_columns<Vec>(tiles, row.v, row.h);
  // Groups of nearly equal width.
  const int64_t groups = (tiles.tiles + Conv2dWinogradTiles::kGroup - 1) / Conv2dWinogradTiles::kGroup;
  int64_t tile0 = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t count = tiles.tiles / groups + (g < tiles.tiles % groups);
    const float* dy = row.dy + tile0 * kOutputs * row.K;
    float* sums = row.sums;
    for (int64_t k0 = 0; k0 < row.K; k0 += kBlock, sums += kPoints * kPoints * tiles.stride * tiles.depth * kBlock) {
      const float* next = k0 + kBlock < row.K ? dy + k0 + kBlock : g + 1 < groups ? dy + count * kOutputs * row.K : row.next_dy;
      conv2d_winograd_weight_products<Vec, -1>(tiles, row, sums, tile0, count, k0, next);
      conv2d_winograd_weight_products<Vec, 0>(tiles, row, sums, tile0, count, k0, next);
      conv2d_winograd_weight_products<Vec, 1>(tiles, row, sums, tile0, count, k0, next);
      conv2d_winograd_weight_products<Vec, 2>(tiles, row, sums, tile0, count, k0, next);
    }
    tile0 += count;
  }
}

}  // namespace bireal::cpu
