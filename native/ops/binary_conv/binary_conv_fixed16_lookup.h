// The kernels of binary_conv_fixed16.h. I, an instruction set, offers:
//   kLanes, kIndexWords           channels of an index vector (16, or a multiple), and its size in 32-bit words
//   kEntries                      size of a table of four +-q, in 32-bit words
//   kVectors, kPixels             tile of bwd_input: kPixels pixels x kVectors vectors of input channels, or one vector where
//   that
//                                 holds all channels that are left
//   kChannels, kStreams           tile of bwd_weight: kChannels tables x kStreams index vectors
//   store_table(out, pair, pair), store_index(out, nibbles [kLanes / 16])
//   V, zero load store add_lanes, look_up_add(sum, index, table), store_scaled(out, sum, step, present)
// Included by files compiled for one instruction set: C headers only, everything static and always inlined.
#pragma once
#include "ops/binary_conv/binary_conv_fixed16.h"

#define BIREAL_MEMBER inline __attribute__((always_inline))

namespace bireal::cpu {
namespace {

BIREAL_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

void magnitudes(uint32_t* max, const float* dz, const float* alpha, int64_t pixels, int64_t K) {
  for (int64_t i = 0; i < pixels; ++i, dz += K) {
    if (alpha) {
      for (int64_t k = 0; k < K; ++k) {
        const uint32_t m = fixed16_magnitude(dz[k] * alpha[k]);
        max[k] = int32_t(m) > int32_t(max[k]) ? m : max[k];
      }
    } else {
      for (int64_t k = 0; k < K; ++k) {
        const uint32_t m = fixed16_magnitude(dz[k]);
        max[k] = int32_t(m) > int32_t(max[k]) ? m : max[k];
      }
    }
  }
}

double squares(const float* dz, const float* alpha, float inverse, int64_t pixels, int64_t K) {
  int64_t sum = 0;
  for (int64_t i = 0; i < pixels; ++i, dz += K)
    for (int64_t k = 0; k < K; ++k) {
      const int32_t q = fixed16_round(dz[k] * alpha[k] * inverse);
      sum += q * q;
    }
  return double(sum);
}

BIREAL_INLINE void quantise_pairs(uint32_t* pairs, const float* dz, const float* inverse, int64_t pixels, int64_t quads,
                                  int64_t K, int64_t pitch, int64_t k_begin, int64_t k_end) {
  const int64_t present = smaller(K, k_end);
  for (int64_t i = 0; i < 2 * quads; ++i, pairs += pitch, dz += 2 * K) {
    int64_t k = k_begin;
    if (2 * i + 1 < pixels) {
      for (; k < present; ++k) {
        const uint32_t low = uint32_t(fixed16_round(dz[k] * inverse[k]));
        const uint32_t high = uint32_t(fixed16_round(dz[K + k] * inverse[k]));
        pairs[k] = (low & 0xFFFFu) | high << 16;
      }
    } else if (2 * i < pixels) {
      for (; k < present; ++k) pairs[k] = uint32_t(fixed16_round(dz[k] * inverse[k])) & 0xFFFFu;
    }
    for (; k < k_end; ++k) pairs[k] = 0;
  }
}

BIREAL_INLINE void finish(float* out, const int32_t* partials, int64_t stride, int64_t slices, double correction, double step,
                          int64_t count, bool accumulate) {
  enum { kBlock = 64 };
  double sum[kBlock];  // exact: integers below 2^53
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = smaller(kBlock, count - begin);
    for (int64_t i = 0; i < n; ++i) sum[i] = partials[begin + i] - correction;
    for (int64_t s = 1; s < slices; ++s)
      for (int64_t i = 0; i < n; ++i) sum[i] += partials[s * stride + begin + i];
    if (accumulate)
      for (int64_t i = 0; i < n; ++i) out[begin + i] += float(sum[i] * step);
    else
      for (int64_t i = 0; i < n; ++i) out[begin + i] = float(sum[i] * step);
  }
}

/// Sums of looked-up values of kTables tables and kVectors vectors of 32-bit lanes.
template <class I, int kTables, int kVectors>
struct Tile {
  using V = typename I::V;
  V sum[kTables][kVectors];

  BIREAL_MEMBER void clear() {
#pragma GCC unroll 16
    for (int t = 0; t < kTables; ++t)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[t][v] = I::zero();
  }

  /// Pixel i and tap j look up in the table of column i - j + taps - 1.
  template <int kTaps>
  BIREAL_MEMBER void add_row(const int32_t* tables, int64_t table_step, const int32_t* index, int64_t quads) {
    for (int64_t quad = 0; quad < quads; ++quad, tables += table_step, index += kTaps * kVectors * I::kIndexWords) {
      V at[kTaps][kVectors];
#pragma GCC unroll 8
      for (int j = 0; j < kTaps; ++j)
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) at[j][v] = I::load(index + (j * kVectors + v) * I::kIndexWords);
#pragma GCC unroll 16
      for (int column = 0; column < kTables + kTaps - 1; ++column) {
        const V table = I::load(tables + column * I::kEntries);
#pragma GCC unroll 8
        for (int j = 0; j < kTaps; ++j) {
          const int t = column - (kTaps - 1) + j;
          if (t < 0 || t >= kTables) continue;
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) sum[t][v] = I::look_up_add(sum[t][v], at[j][v], table);
        }
      }
    }
  }

  /// All tables with all vectors.
  BIREAL_MEMBER void add(const int32_t* tables, const int32_t* index, int64_t quads) {
    for (int64_t quad = 0; quad < quads; ++quad, tables += kTables * I::kEntries, index += kVectors * I::kIndexWords) {
      V at[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) at[v] = I::load(index + v * I::kIndexWords);
#pragma GCC unroll 8
      for (int t = 0; t < kTables; ++t) {
        const V table = I::load(tables + t * I::kEntries);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[t][v] = I::look_up_add(sum[t][v], at[v], table);
      }
    }
  }

  BIREAL_MEMBER void store_scaled(int t, int v, float* out, double step, int64_t present) const {
    I::store_scaled(out, sum[t][v], step, present);
  }
  BIREAL_MEMBER void add_to(int t, int v, int32_t* target, bool overwrite) const {
    I::store(target, overwrite ? sum[t][v] : I::add_lanes(sum[t][v], I::load(target)));
  }
};

template <class I>
struct Fixed16 {
  enum {
    kLanes = I::kLanes,
    kIndexWords = I::kIndexWords,
    kEntries = I::kEntries,
    kVectors = I::kVectors,
    kGroups = kLanes / 16
  };

  static void prepare_weights(int32_t* out, const word_t* w, int64_t block, int64_t r, int64_t K, int64_t C, int64_t R, int64_t S,
                              int64_t stride) {
    const int64_t Cw = word_count(C), row = R * S * Cw;
    for (int64_t residue = 0; residue < stride && residue < S; ++residue)
      for (int64_t first = residue; first < S; first += kFixed16GroupTaps * stride) {
        const int64_t taps = smaller(kFixed16GroupTaps, (S - first + stride - 1) / stride);
        for (int64_t k = 0; k < K; k += 4)
          for (int64_t j = 0; j < taps; ++j) {
            const word_t* tap = w + k * row + (r * S + first + j * stride) * Cw;
            const int64_t vectors = vectors_of(block, C);
            for (int64_t v = 0; v < vectors; ++v, out += kIndexWords) {
              uint64_t nibbles[kGroups];
              for (int64_t group = 0; group < kGroups; ++group) {
                const int64_t c = (block * kVectors + v) * kLanes + group * 16;
                nibbles[group] = 0;
                if (c < C)
                  for (int64_t i = 0; i < 4 && k + i < K; ++i)
                    nibbles[group] |= fixed16_spread(tap[i * row + c / kWordBits] >> (c / 16 * 16 % kWordBits)) << i;
              }
              I::store_index(out, nibbles);
            }
          }
      }
  }

  static void stage_row(int32_t* out, int16_t* scratch, const float* dz, const float* alpha, float inverse, int64_t Q, int64_t K,
                        int64_t columns, int64_t halo) {
    const int64_t quads = (K + 3) / 4;
    for (int64_t quad = 0; quad < quads; ++quad)
      for (int64_t column = 0; column < columns; ++column) {
        if (column == halo) column += Q;
        if (column < columns) I::store_table(out + (quad * columns + column) * kEntries, 0, 0);
      }
    out += halo * kEntries;
    for (int64_t k = K; k < 4 * quads; ++k) scratch[k] = 0;
    for (int64_t q = 0; q < Q; ++q, dz += K, out += kEntries) {
      for (int64_t k = 0; k < K; ++k) scratch[k] = int16_t(fixed16_round(dz[k] * alpha[k] * inverse));
      for (int64_t quad = 0; quad < quads; ++quad) {
        uint32_t pair[2];
        memcpy(pair, scratch + 4 * quad, sizeof pair);
        I::store_table(out + quad * columns * kEntries, pair[0], pair[1]);
      }
    }
  }

  /// Of a block of bwd_input: 1 where that holds what is left, else kVectors.
  BIREAL_INLINE int64_t vectors_of(int64_t block, int64_t C) { return C - block * kVectors * kLanes <= kLanes ? 1 : kVectors; }

  // Pixels w0, w0 + stride, ... of row h.
  template <int kPixels, int kWidth>
  static void input_tile(const Fixed16InputTask& task, int64_t h, int64_t w0, int64_t block) {
    Tile<I, kPixels, kWidth> tile;
    tile.clear();
    const int64_t tap_step = task.quads * kWidth * kIndexWords, table_step = task.columns * kEntries;
    const int32_t* block_weights = task.weights + block * task.R * task.S * task.quads * kVectors * kIndexWords;
    const int64_t residue = (w0 + task.pad) % task.stride;
    int64_t taps_before = 0;
    for (int64_t e = 0; e < residue && e < task.S; ++e) taps_before += (task.S - e + task.stride - 1) / task.stride;
    for (int64_t r = (h + task.pad) % task.stride; r < task.R; r += task.stride) {
      const int64_t p = (h + task.pad - r) / task.stride;
      if (h + task.pad < r || p >= task.P) continue;
      const int32_t* weights = block_weights + r * task.S * task.quads * kVectors * kIndexWords + taps_before * tap_step;
      const int32_t* row = task.tables + (p - task.first_p) * task.quads * table_step;
      for (int64_t first = residue; first < task.S; first += kFixed16GroupTaps * task.stride) {
        const int64_t taps = smaller(kFixed16GroupTaps, (task.S - first + task.stride - 1) / task.stride);
        // w0 + pad - first is a multiple of the stride, perhaps a negative one.
        const int32_t* tables = row + ((w0 + task.pad - first) / task.stride - (taps - 1) + task.halo) * kEntries;
        if (taps == 3)
          tile.template add_row<3>(tables, table_step, weights, task.quads);
        else if (taps == 2)
          tile.template add_row<2>(tables, table_step, weights, task.quads);
        else
          tile.template add_row<1>(tables, table_step, weights, task.quads);
        weights += taps * tap_step;
      }
    }
    const int64_t c = block * kVectors * kLanes;
    float* dx = task.dx + (h * task.W + w0) * task.C + c;
#pragma GCC unroll 16
    for (int i = 0; i < kPixels; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < kWidth; ++v)
        if (c + v * kLanes < task.C)
          tile.store_scaled(i, v, dx + i * task.stride * task.C + v * kLanes, task.step, task.C - c - v * kLanes);
  }

  template <int kPixels, int kWidth>
  BIREAL_INLINE void input_tile_of(int64_t pixels, const Fixed16InputTask& task, int64_t h, int64_t w0, int64_t block) {
    if constexpr (kPixels > 1) {
      if (pixels < kPixels) return input_tile_of<kPixels - 1, kWidth>(pixels, task, h, w0, block);
    }
    input_tile<kPixels, kWidth>(task, h, w0, block);
  }

  template <int kPixels, int kWidth>
  BIREAL_INLINE void input_block(const Fixed16InputTask& task, int64_t block) {
    for (int64_t h = task.h_begin; h < task.h_end; ++h)
      for (int64_t w = 0; w < task.stride && w < task.W; ++w) {
        const int64_t pixels = (task.W - w + task.stride - 1) / task.stride;
        const int64_t tiles = (pixels + kPixels - 1) / kPixels, most = (pixels + tiles - 1) / tiles;
        for (int64_t i = 0; i < pixels; i += most)
          input_tile_of<kPixels, kWidth>(smaller(most, pixels - i), task, h, w + i * task.stride, block);
      }
  }

  static void run_input(const Fixed16InputTask& task) {
    for (int64_t block = 0; block * kVectors * kLanes < task.C; ++block)
      if (vectors_of(block, task.C) == kVectors)
        input_block<I::kPixels, kVectors>(task, block);
      else
        input_block<I::kPixels, 1>(task, block);
  }

  // out [tile of kStreams][quads][streams of the tile][kIndexWords]; stream = tap * vectors + vector.
  static void expand_index(int32_t* out, const uint64_t* spread, const int32_t* pixel, int64_t quads, int64_t groups,
                           int64_t pitch, int64_t R, int64_t S) {
    const int64_t vectors = groups / kGroups, streams = R * S * vectors;
    for (int64_t r = 0; r < R; ++r)
      for (int64_t t = 0; t < S; ++t)
        for (int64_t v = 0; v < vectors; ++v) {
          const uint64_t* tap = spread + r * pitch + t * groups + v * kGroups;
          const int64_t stream = (r * S + t) * vectors + v;
          const int64_t first = stream - stream % I::kStreams, width = smaller(I::kStreams, streams - first);
          int32_t* target = out + (first * quads + stream - first) * kIndexWords;
          for (int64_t quad = 0; quad < quads; ++quad, target += width * kIndexWords) {
            const int32_t* at = pixel + 4 * quad;
            uint64_t nibbles[kGroups];
            for (int group = 0; group < kGroups; ++group)
              nibbles[group] = tap[at[0] + group] | tap[at[1] + group] << 1 | tap[at[2] + group] << 2 | tap[at[3] + group] << 3;
            I::store_index(target, nibbles);
          }
        }
  }

  template <int kStreams>
  static void weight_tile(const Fixed16WeightTask& task, int64_t stream, int64_t k0) {
    Tile<I, I::kChannels, kStreams> tile;
    tile.clear();
    tile.add(task.tables, task.index + stream * task.quads * kIndexWords, task.quads);
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const int64_t tap = (stream + s) / task.vectors, vector = (stream + s) % task.vectors;
      int32_t* target = task.sums + (k0 * task.taps + tap) * task.sum_channels + vector * kLanes;
#pragma GCC unroll 8
      for (int k = 0; k < I::kChannels; ++k, target += task.taps * task.sum_channels) tile.add_to(k, s, target, task.first);
    }
  }

  template <int kStreams>
  BIREAL_INLINE void weight_tile_of(int64_t streams, const Fixed16WeightTask& task, int64_t stream, int64_t k0) {
    if constexpr (kStreams > 1) {
      if (streams < kStreams) return weight_tile_of<kStreams - 1>(streams, task, stream, k0);
    }
    weight_tile<kStreams>(task, stream, k0);
  }

  static void run_weight(const Fixed16WeightTask& task) {
    const int64_t streams = task.taps * task.vectors;
    for (int64_t k0 = task.k_begin; k0 < task.k_end; k0 += I::kChannels) {
      int32_t* table = task.tables;
      const uint32_t* pairs = task.pairs + k0;
      for (int64_t quad = 0; quad < task.quads; ++quad, pairs += 2 * task.pitch)
        for (int k = 0; k < I::kChannels; ++k, table += kEntries) I::store_table(table, pairs[k], pairs[task.pitch + k]);
      for (int64_t stream = 0; stream < streams; stream += I::kStreams)
        weight_tile_of<I::kStreams>(smaller(I::kStreams, streams - stream), task, stream, k0);
    }
  }

  static constexpr Fixed16Kernel kernel(const char* name) {
    return {name,        magnitudes,      squares,   kLanes,    kIndexWords,    kEntries,     kVectors,   I::kChannels,
            I::kStreams, prepare_weights, stage_row, run_input, quantise_pairs, expand_index, run_weight, finish};
  }
};

}  // namespace
}  // namespace bireal::cpu
