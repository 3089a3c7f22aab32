// Forward kernel for AVX-512 with VPOPCNTDQ. Unit: a word_t of 32 channels.
//
// Lanes are output channels. A tile of 8 pixels x 32 channels (2 registers) keeps 16 accumulators; one word of a pixel is
// broadcast and met by 2 vectors of weights: 3 instructions (xor, popcount, add) for 512 products, 24 independent ones in a
// step, so that VPOPCNTD (one a cycle, on one port) is the limit: 341 MAC a cycle with the other two beside it. Measured on Zen
// 4, staging and sums included: 240 (32 channels) to 324 (512).
#include <immintrin.h>

#include "ops/binary_conv/binary_conv_kernels.h"

namespace bireal::cpu {

// Sums of v and v^2 of 32 channels, 32 bits each (v^2 unsigned), in the channel order of word_lane_channel.
struct TileSums {
  __m512i v[2], square[2];
};

BIREAL_INLINE void sum_clear(TileSums* s) { s->v[0] = s->v[1] = s->square[0] = s->square[1] = _mm512_setzero_si512(); }

// Adds two pixels: a multiply-add of 16-bit pairs does both pixels of a channel at once.
BIREAL_INLINE void sum_add(TileSums* s, __m512i first, __m512i second) {
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i low = _mm512_unpacklo_epi16(first, second), high = _mm512_unpackhi_epi16(first, second);
  s->v[0] = _mm512_add_epi32(s->v[0], _mm512_madd_epi16(low, ones));
  s->v[1] = _mm512_add_epi32(s->v[1], _mm512_madd_epi16(high, ones));
  s->square[0] = _mm512_add_epi32(s->square[0], _mm512_madd_epi16(low, low));
  s->square[1] = _mm512_add_epi32(s->square[1], _mm512_madd_epi16(high, high));
}

BIREAL_INLINE void sum_flush(TileSums* s, int64_t* sums, int64_t padded_K) {
  alignas(64) int32_t v[32];
  alignas(64) uint32_t square[32];
  for (int i = 0; i < 2; ++i) {
    _mm512_store_si512(v + 16 * i, s->v[i]);
    _mm512_store_si512(square + 16 * i, s->square[i]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    int64_t channel = word_lane_channel(lane);
    sums[channel] += v[lane];
    sums[padded_K + channel] += square[lane];
  }
  sum_clear(s);
}

template <int kPixels, bool kWide>
BIREAL_INLINE void tile(const BinaryConvTask& task, const word_t* weights, int64_t first, int64_t k0, TileSums* sums) {
  const word_t* x[kPixels];
  __m512i a[kPixels], b[kPixels];
#pragma GCC unroll 8
  for (int i = 0; i < kPixels; ++i) {
    x[i] = (const word_t*)task.x + task.pixel[first + i];
    a[i] = b[i] = _mm512_setzero_si512();
  }
  for (int64_t r = 0, begin = 0; r < task.R; ++r, begin += task.pitch_units)
    for (int64_t unit = begin; unit < begin + task.row_units; ++unit, weights += 32) {
      __m512i w0 = _mm512_load_si512(weights), w1 = _mm512_load_si512(weights + 16);
#pragma GCC unroll 8
      for (int i = 0; i < kPixels; ++i) {
        __m512i bits = _mm512_set1_epi32((int)x[i][unit]);
        a[i] = _mm512_add_epi32(a[i], _mm512_popcnt_epi32(_mm512_xor_si512(w0, bits)));
        b[i] = _mm512_add_epi32(b[i], _mm512_popcnt_epi32(_mm512_xor_si512(w1, bits)));
      }
    }

  if (kWide) {
    for (int i = 0; i < kPixels; ++i) {
      alignas(64) int32_t count[32];
      _mm512_store_si512(count, a[i]);
      _mm512_store_si512(count + 16, b[i]);
      const int32_t* constant = (const int32_t*)task.constants + task.constant[first + i] + k0;
      int32_t* v = (int32_t*)task.v + (first + i) * task.K + k0;
      for (int lane = 0; lane < 32; ++lane) {
        int64_t channel = word_lane_channel(lane);
        if (k0 + channel < task.K) v[channel] = constant[channel] - 2 * count[lane];
      }
    }
    return;
  }
  const __mmask32 present = task.K - k0 >= 32 ? 0xFFFFFFFFu : (1u << (task.K - k0)) - 1u;
  __m512i v[kPixels + 1];
#pragma GCC unroll 8
  for (int i = 0; i < kPixels; ++i) {
    // int16: counts are at most R*S*C < 2^15, and constant - 2*count is right modulo 2^16.
    __m512i count = _mm512_packs_epi32(a[i], b[i]);
    const int16_t* constant = (const int16_t*)task.constants + task.constant[first + i] + k0;
    v[i] = _mm512_sub_epi16(_mm512_load_si512(constant), _mm512_add_epi16(count, count));
    _mm512_mask_storeu_epi16((int16_t*)task.v + (first + i) * task.K + k0, present, v[i]);
  }
  v[kPixels] = _mm512_setzero_si512();
  if (task.sums)
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; i += 2) sum_add(sums, v[i], v[i + 1]);
}

template <bool kWide>
BIREAL_INLINE void run(const BinaryConvTask& task) {
  // Tiles of nearly equal width: 49 pixels are 7 tiles of 7, not 6 of 8 and 1 of 1, which would cost as much as 4.
  const int64_t tiles = (task.pixel_count + kTilePixels - 1) / kTilePixels;
  const int64_t narrow = task.pixel_count / tiles, wide_tiles = task.pixel_count % tiles;
  for (int64_t k0 = 0; k0 < task.padded_K; k0 += 32) {
    const word_t* weights = (const word_t*)task.weights + k0 * task.R * task.row_units;
    TileSums sums;
    sum_clear(&sums);
    int64_t first = 0, left = task.tiles_per_flush;
    for (int64_t t = 0; t < tiles; ++t) {
      int64_t width = narrow + (t < wide_tiles);
      switch (width) {
        case 1: tile<1, kWide>(task, weights, first, k0, &sums); break;
        case 2: tile<2, kWide>(task, weights, first, k0, &sums); break;
        case 3: tile<3, kWide>(task, weights, first, k0, &sums); break;
        case 4: tile<4, kWide>(task, weights, first, k0, &sums); break;
        case 5: tile<5, kWide>(task, weights, first, k0, &sums); break;
        case 6: tile<6, kWide>(task, weights, first, k0, &sums); break;
        case 7: tile<7, kWide>(task, weights, first, k0, &sums); break;
        default: tile<8, kWide>(task, weights, first, k0, &sums); break;
      }
      first += width;
      if (task.sums && (--left == 0 || t + 1 == tiles)) {
        sum_flush(&sums, task.sums + k0, task.padded_K);
        left = task.tiles_per_flush;
      }
    }
  }
}

void binary_conv_run_i16_avx512_vpopcnt(const BinaryConvTask& task) { run<false>(task); }
void binary_conv_run_i32_avx512_vpopcnt(const BinaryConvTask& task) { run<true>(task); }

}  // namespace bireal::cpu
