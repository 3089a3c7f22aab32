// Fixed-point gradients with AMX. See binary_conv_fixed16_tiles.h.
#include <immintrin.h>
#include <string.h>

#include "ops/binary_conv/binary_conv_fixed16_tiles.h"

namespace bireal::cpu {
namespace {

struct TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes_a_row[16];
  uint8_t rows[16];
};

BIREAL_INLINE __mmask16 lanes(int64_t present) { return present >= 16 ? 0xFFFF : __mmask16((1u << present) - 1); }

// 64 bytes: byte 4 * i + j is -1 where bit i of bits[j] is set, else +1.
BIREAL_INLINE __m512i interleaved_signs(uint32_t b0, uint32_t b1, uint32_t b2, uint32_t b3) {
  const uint64_t every4 = 0x1111111111111111ull;
  const uint64_t negative =
      _pdep_u64(b0, every4) | _pdep_u64(b1, every4 << 1) | _pdep_u64(b2, every4 << 2) | _pdep_u64(b3, every4 << 3);
  return _mm512_mask_blend_epi8(negative, _mm512_set1_epi8(1), _mm512_set1_epi8(-1));
}

// In fixed16_round's rounding: to nearest, ties to even, the default mode of the processor.
BIREAL_INLINE __m512i quantised(__m512 v, __m512 inverse) { return _mm512_maskz_cvtps_epi32(0xFFFF, _mm512_mul_ps(v, inverse)); }

// To be added as 64-bit lanes: squares of the even lanes plus those of the odd ones.
BIREAL_INLINE __m512i squared_pairs(__m512i q) {
  const __m512i odd = _mm512_maskz_srli_epi64(0xFF, q, 32);
  return _mm512_add_epi64(_mm512_maskz_mul_epi32(0xFF, q, q), _mm512_maskz_mul_epi32(0xFF, odd, odd));
}

template <bool kSquares>
BIREAL_INLINE int64_t stage_row(int8_t* high, uint8_t* low, int64_t plane_pitch, const float* dz, const float* alpha,
                                float inverse, int64_t pixels, int64_t K) {
  const __m512 scale = _mm512_set1_ps(inverse);
  __m512i squares = _mm512_setzero_si512();
  for (int64_t i = 0; i < pixels; ++i, dz += K, high += plane_pitch, low += plane_pitch) {
    int64_t k = 0;
    for (; k < K; k += 16) {
      const __mmask16 present = lanes(K - k);
      const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(present, dz + k), _mm512_maskz_loadu_ps(present, alpha + k));
      const __m512i q = quantised(v, scale);
      _mm_storeu_si128((__m128i*)(low + k), _mm512_maskz_cvtepi32_epi8(0xFFFF, q));
      _mm_storeu_si128((__m128i*)(high + k), _mm512_maskz_cvtepi32_epi8(0xFFFF, _mm512_maskz_srai_epi32(0xFFFF, q, 8)));
      if (kSquares) squares = _mm512_add_epi64(squares, squared_pairs(q));
    }
    for (; k % kTileDepth != 0; k += 16) {
      _mm_storeu_si128((__m128i*)(low + k), _mm_setzero_si128());
      _mm_storeu_si128((__m128i*)(high + k), _mm_setzero_si128());
    }
  }
  int64_t sums[8], total = 0;
  _mm512_storeu_si512(sums, squares);
  for (int64_t sum : sums) total += sum;
  return total;
}

// sum of +-q = 256 * high + low of 16 lanes.
BIREAL_INLINE __m512i joined(const int32_t* high, const int32_t* low) {
  return _mm512_add_epi32(_mm512_maskz_slli_epi32(0xFFFF, _mm512_load_si512(high), 8), _mm512_load_si512(low));
}

BIREAL_INLINE __m256 scaled(__m256i sum, __m512d step) {
  return _mm512_maskz_cvtpd_ps(0xFF, _mm512_mul_pd(_mm512_maskz_cvtepi32_pd(0xFF, sum), step));
}

BIREAL_INLINE void store_scaled(float* out, __m512i sum, __m512d step, __mmask16 present) {
  _mm256_mask_storeu_ps(out, __mmask8(present), scaled(_mm512_maskz_extracti64x4_epi64(0xF, sum, 0), step));
  _mm256_mask_storeu_ps(out + 8, __mmask8(present >> 8), scaled(_mm512_maskz_extracti64x4_epi64(0xF, sum, 1), step));
}

// Rows and columns of a 16x16 matrix of 32-bit values exchanged.
BIREAL_INLINE void transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_maskz_unpacklo_epi32(0xFFFF, r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_maskz_unpackhi_epi32(0xFFFF, r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 2; ++j) {
      r[4 * i + 2 * j] = _mm512_maskz_unpacklo_epi64(0xFF, t[4 * i + j], t[4 * i + 2 + j]);
      r[4 * i + 2 * j + 1] = _mm512_maskz_unpackhi_epi64(0xFF, t[4 * i + j], t[4 * i + 2 + j]);
    }
  // r[4 * i + j]: column 4 * b + j of rows 4 * i .. 4 * i + 3 in 128-bit block b.
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_maskz_shuffle_i32x4(0xFFFF, r[j], r[4 + j], 0x88),
                  b = _mm512_maskz_shuffle_i32x4(0xFFFF, r[8 + j], r[12 + j], 0x88);
    const __m512i c = _mm512_maskz_shuffle_i32x4(0xFFFF, r[j], r[4 + j], 0xDD),
                  d = _mm512_maskz_shuffle_i32x4(0xFFFF, r[8 + j], r[12 + j], 0xDD);
    t[j] = _mm512_maskz_shuffle_i32x4(0xFFFF, a, b, 0x88);
    t[8 + j] = _mm512_maskz_shuffle_i32x4(0xFFFF, a, b, 0xDD);
    t[4 + j] = _mm512_maskz_shuffle_i32x4(0xFFFF, c, d, 0x88);
    t[12 + j] = _mm512_maskz_shuffle_i32x4(0xFFFF, c, d, 0xDD);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

}  // namespace

void fixed16_tiles_begin() {
  // static: gcc 12 takes the instruction to read 8 bytes, and leaves out the stores to the rest of a local.
  static const TileConfig config = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  _tile_loadconfig(&config);
}

void fixed16_tiles_end() { _tile_release(); }

void fixed16_tiles_weights(int8_t* out, const word_t* w, int64_t word, int64_t tap, int64_t K, int64_t C, int64_t taps) {
  const int64_t Cw = word_count(C);
  for (int64_t chunk = 0; chunk < K; chunk += kTileDepth)
    for (int64_t half = 0; half < 2; ++half)
      for (int64_t quad = 0; quad < 16; ++quad, out += 64) {
        uint32_t bits[4] = {0, 0, 0, 0};
        uint64_t present = 0;
        for (int64_t i = 0; i < 4; ++i) {
          const int64_t k = chunk + 4 * quad + i;
          if (k >= K) break;
          bits[i] = (w[(k * taps + tap) * Cw + word] >> (16 * half)) & 0xFFFFu;
          present |= 0x1111111111111111ull << i;
        }
        _mm512_storeu_si512(out, _mm512_maskz_mov_epi8(present, interleaved_signs(bits[0], bits[1], bits[2], bits[3])));
      }
}

int64_t fixed16_tiles_stage_row(int8_t* high, uint8_t* low, int64_t plane_pitch, const float* dz, const float* alpha,
                                float inverse, int64_t pixels, int64_t positions, int64_t K, bool squares) {
  const int64_t sum = squares ? stage_row<true>(high, low, plane_pitch, dz, alpha, inverse, pixels, K)
                              : stage_row<false>(high, low, plane_pitch, dz, alpha, inverse, pixels, K);
  memset(high + pixels * plane_pitch, 0, size_t((positions - pixels) * plane_pitch));
  memset(low + pixels * plane_pitch, 0, size_t((positions - pixels) * plane_pitch));
  return sum;
}

void fixed16_tiles_input(const Fixed16TileInput& task) {
  alignas(64) int32_t sums[4][16][16];
  const __m512d step = _mm512_set1_pd(task.step);
  const size_t pitch = size_t(task.plane_pitch);
  for (int64_t c = 0; c < task.C; c += kTileChannels) {
    const __mmask16 present0 = lanes(task.C - c), present1 = task.C - c > 16 ? lanes(task.C - c - 16) : __mmask16(0);
    const int8_t* weights = task.weights + c / kTileChannels * task.weight_pitch;
    int64_t column = 0;
    float* dx_row = task.dx + task.first / task.row * task.row_step + c;
    for (int64_t position = task.first; position < task.last; position += kTilePositions) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      const int8_t* pair = weights;
      for (int64_t tap = 0; tap < task.taps; ++tap) {
        const int64_t at = (position + task.shifts[tap]) * task.plane_pitch;
        for (int64_t chunk = 0; chunk < task.depth_chunks; ++chunk, pair += kTilePairBytes) {
          _tile_loadd(4, task.high + at + chunk * kTileDepth, pitch);
          _tile_loadd(6, pair, 64);
          _tile_loadd(7, pair + kTilePairBytes / 2, 64);
          _tile_loadd(5, task.low + at + chunk * kTileDepth, pitch);
          _tile_dpbssd(0, 4, 6);
          _tile_dpbssd(1, 4, 7);
          _tile_dpbusd(2, 5, 6);
          _tile_dpbusd(3, 5, 7);
        }
      }
      _tile_stored(0, sums[0], 64);
      _tile_stored(1, sums[1], 64);
      _tile_stored(2, sums[2], 64);
      _tile_stored(3, sums[3], 64);
      for (int64_t i = 0; i < kTilePositions && position + i < task.last; ++i) {
        if (column < task.width) {
          float* out = dx_row + column * task.column_step;
          store_scaled(out, joined(sums[0][i], sums[2][i]), step, present0);
          if (present1) store_scaled(out + 16, joined(sums[1][i], sums[3][i]), step, present1);
        }
        if (++column == task.row) column = 0, dx_row += task.row_step;
      }
    }
  }
}

void fixed16_tiles_stage_channels(int8_t* high, uint8_t* low, int64_t plane_pitch, const float* const* pixels, int64_t positions,
                                  int64_t k, int64_t K, const float* inverse, int64_t* squares) {
  const __mmask16 present = lanes(K - k);
  const __m512 scale = _mm512_maskz_loadu_ps(present, inverse + k);
  // Four q of 16 bits in a lane -> two bytes of each half together.
  const __m512i evens_first =
      _mm512_maskz_broadcast_i32x4(0xFFFF, _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  __m512i even_squares = _mm512_setzero_si512(), odd_squares = _mm512_setzero_si512();
  for (int64_t begin = 0; begin < positions; begin += 64) {
    __m512i lows[16], highs[16];
    for (int64_t quad = 0; quad < 16; ++quad) {
      __m512i q[4];
      for (int64_t i = 0; i < 4; ++i) {
        q[i] = quantised(_mm512_maskz_loadu_ps(present, pixels[begin + 4 * quad + i] + k), scale);
        if (squares) {
          const __m512i odd = _mm512_maskz_srli_epi64(0xFF, q[i], 32);
          even_squares = _mm512_add_epi64(even_squares, _mm512_maskz_mul_epi32(0xFF, q[i], q[i]));
          odd_squares = _mm512_add_epi64(odd_squares, _mm512_maskz_mul_epi32(0xFF, odd, odd));
        }
      }
      __m512i q01 = _mm512_mask_blend_epi16(0xAAAAAAAA, q[0], _mm512_maskz_slli_epi32(0xFFFF, q[1], 16));
      __m512i q23 = _mm512_mask_blend_epi16(0xAAAAAAAA, q[2], _mm512_maskz_slli_epi32(0xFFFF, q[3], 16));
      q01 = _mm512_shuffle_epi8(q01, evens_first);
      q23 = _mm512_shuffle_epi8(q23, evens_first);
      lows[quad] = _mm512_mask_blend_epi16(0xAAAAAAAA, q01, _mm512_maskz_slli_epi32(0xFFFF, q23, 16));
      highs[quad] = _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_maskz_srli_epi32(0xFFFF, q01, 16), q23);
    }
    transpose(lows);
    transpose(highs);
    for (int64_t i = 0; i < 16; ++i) {
      _mm512_storeu_si512(low + i * plane_pitch + begin, lows[i]);
      _mm512_storeu_si512(high + i * plane_pitch + begin, highs[i]);
    }
  }
  if (squares) {
    int64_t even[8], odd[8];
    _mm512_storeu_si512(even, even_squares);
    _mm512_storeu_si512(odd, odd_squares);
    for (int i = 0; i < 8; ++i) squares[2 * i] += even[i], squares[2 * i + 1] += odd[i];
  }
}

void fixed16_tiles_stage_x(int8_t* out, const word_t* const* pixels, int64_t positions, int64_t words) {
  for (int64_t i = 0; i < positions; i += 4, pixels += 4) {
    uint64_t present = 0;
    const word_t* pixel[4];
    for (int64_t j = 0; j < 4; ++j) {
      pixel[j] = pixels[j];
      if (pixels[j]) present |= 0x1111111111111111ull << j;
    }
    int8_t* target = out + i * kTileChannels;
    for (int64_t word = 0; word < words; ++word, target += positions * kTileChannels) {
      uint32_t bits[4];
      for (int64_t j = 0; j < 4; ++j) bits[j] = pixel[j] ? pixel[j][word] : 0u;
      const __m512i first = interleaved_signs(bits[0] & 0xFFFFu, bits[1] & 0xFFFFu, bits[2] & 0xFFFFu, bits[3] & 0xFFFFu);
      const __m512i second = interleaved_signs(bits[0] >> 16, bits[1] >> 16, bits[2] >> 16, bits[3] >> 16);
      _mm512_storeu_si512(target, _mm512_maskz_mov_epi8(present, first));
      _mm512_storeu_si512(target + 64, _mm512_maskz_mov_epi8(present, second));
    }
  }
}

void fixed16_tiles_weight(const Fixed16TileWeight& task) {
  // Blocks of positions whose operands, 16 kB each, stay in a first-level cache of 48 kB for all taps; the tiles of sums come
  // and go between them (one block of 8 steps: 512 cycles of products, some 100 for the sums).
  enum { kBlock = 8 * kTileDepth };
  const size_t x_pitch = 4 * kTileChannels, plane_pitch = size_t(task.plane_pitch);
  for (int64_t k_tile = 0; k_tile < task.channel_tiles; ++k_tile)
    for (int64_t c = 0; c < task.channels; c += kTileChannels) {
      for (int64_t block = 0; block < task.positions; block += kBlock) {
        const int64_t end = block + kBlock < task.positions ? block + kBlock : task.positions;
        for (int64_t tap = 0; tap < task.taps; ++tap) {
          const int64_t at = k_tile * 16 * task.plane_pitch - task.shifts[tap];
          const int8_t* x = task.x + task.tap_x[tap] + c * task.positions + block * kTileChannels;
          int32_t* tiles = task.tiles + tap * kTileSums;
          if (block == 0) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
          } else {
            _tile_loadd(0, tiles, 64);
            _tile_loadd(1, tiles + 256, 64);
            _tile_loadd(2, tiles + 512, 64);
            _tile_loadd(3, tiles + 768, 64);
          }
          for (int64_t position = block; position < end; position += kTileDepth, x += 16 * x_pitch) {
            _tile_loadd(4, task.high + at + position, plane_pitch);
            _tile_loadd(6, x, x_pitch);
            _tile_loadd(7, x + 64, x_pitch);
            _tile_loadd(5, task.low + at + position, plane_pitch);
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 4, 7);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
          }
          _tile_stored(0, tiles, 64);
          _tile_stored(1, tiles + 256, 64);
          _tile_stored(2, tiles + 512, 64);
          _tile_stored(3, tiles + 768, 64);
        }
      }
      for (int64_t tap = 0; tap < task.taps; ++tap) {
        const int32_t* tiles = task.tiles + tap * kTileSums;
        int32_t* sums = task.sums + (k_tile * 16 * task.taps + tap) * task.channels + c;
        for (int64_t i = 0; i < 16; ++i, sums += task.taps * task.channels) {
          __m512i first = joined(tiles + 16 * i, tiles + 512 + 16 * i);
          __m512i second = joined(tiles + 256 + 16 * i, tiles + 768 + 16 * i);
          if (!task.first) {
            first = _mm512_add_epi32(first, _mm512_loadu_si512(sums));
            second = _mm512_add_epi32(second, _mm512_loadu_si512(sums + 16));
          }
          _mm512_storeu_si512(sums, first);
          _mm512_storeu_si512(sums + 16, second);
        }
      }
    }
}

}  // namespace bireal::cpu
