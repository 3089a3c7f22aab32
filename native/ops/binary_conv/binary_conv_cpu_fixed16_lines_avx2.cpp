// Fixed-point gradients with AVX2: tables in memory. See binary_conv_fixed16_lines.h.
//
// Two loads start in a cycle, so 64 multiply-adds are the ceiling. Measured on Zen 3: 50 in a loop of its own with everything in
// the first-level cache, 40 in fixed16_lines_add, 45 in fixed16_lines_weight_add, beside which tables are built and results
// written. VPMADDWD with +-1 reached 24 (of 32).
#include <immintrin.h>
#include <string.h>

#include "ops/binary_conv/binary_conv_fixed16_lines.h"

namespace bireal::cpu {
namespace {

using V = __m256i;

BIREAL_INLINE V load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const V*>(p)); }
BIREAL_INLINE void store(int32_t* p, V v) { _mm256_store_si256(reinterpret_cast<V*>(p), v); }
BIREAL_INLINE V first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

BIREAL_INLINE void transpose(__m256 (&row)[8]) {
  __m256 pair[8], four[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
    pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    four[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
    four[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xEE);
    four[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
    four[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    row[i] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x20);
    row[i + 4] = _mm256_permute2f128_ps(four[i], four[i + 4], 0x31);
  }
}

// Entry i: bit b of i negates value b.
BIREAL_INLINE void store_table(int32_t* out, V a, V b, V c, V d) {
  const V low[2] = {_mm256_add_epi32(a, b), _mm256_sub_epi32(a, b)}, high[2] = {_mm256_add_epi32(c, d), _mm256_sub_epi32(c, d)};
  const V zero = _mm256_setzero_si256();
  const V lows[4] = {low[0], _mm256_sub_epi32(zero, low[1]), low[1], _mm256_sub_epi32(zero, low[0])};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    store(out + (i + 0) * kLineColumns, _mm256_add_epi32(lows[i], high[0]));
    store(out + (i + 4) * kLineColumns, _mm256_sub_epi32(lows[i], high[1]));
    store(out + (i + 8) * kLineColumns, _mm256_add_epi32(lows[i], high[1]));
    store(out + (i + 12) * kLineColumns, _mm256_sub_epi32(lows[i], high[0]));
  }
}

// One `asm` each, because gcc 12 would load first and then spill: all 16 registers hold sums.
BIREAL_INLINE void add_entry(V (&sum)[2], const int32_t* table, uint64_t entry) {
  const auto* all = reinterpret_cast<const V(*)[2 * kLineTable / kLineColumns]>(table);
  asm("vpaddd (%1,%2,8), %0, %0" : "+x"(sum[0]) : "r"(table), "r"(entry), "m"(*all));
  asm("vpaddd 32(%1,%2,8), %0, %0" : "+x"(sum[1]) : "r"(table), "r"(entry), "m"(*all));
}

// One strip, one column of the filter, a block of channels; `rows` rows from `row` on, quads [first, first + count). The rows
// stand side by side in the loop, because a short loop for each would end in a wrong guess of its branch.
template <int kRows>
BIREAL_INLINE void add_tile(const Fixed16LineTask& task, int64_t row, int64_t strip, int64_t first, int64_t count, int64_t block,
                            int64_t t) {
  const int64_t pitch = task.columns;
  int32_t* target = task.sums + (block * task.S + t) * kLineChannels * pitch + strip * kLineColumns;
  const int32_t* table[kRows];
  const uint8_t* entry[kRows];
#pragma GCC unroll 3
  for (int i = 0; i < kRows; ++i) {
    table[i] = task.rows[row + i] + (strip * task.quads + first) * kLineTable;
    entry[i] = task.weights + (((block * task.S + t) * task.R + task.filter_rows[row + i]) * task.quads + first) * kLineChannels;
  }
  V sum[kLineChannels][2];
  if (first == 0 && row == 0) {
#pragma GCC unroll 8
    for (int c = 0; c < kLineChannels; ++c) sum[c][0] = sum[c][1] = _mm256_setzero_si256();
  } else {
#pragma GCC unroll 8
    for (int c = 0; c < kLineChannels; ++c) {
      sum[c][0] = load(target + c * pitch);
      sum[c][1] = load(target + c * pitch + 8);
    }
  }
  for (int64_t quad = 0; quad < count; ++quad) {
#pragma GCC unroll 3
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        uint32_t four;  // one load for four bytes: loads are what this loop waits for
        memcpy(&four, entry[i] + quad * kLineChannels + 4 * half, sizeof four);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) add_entry(sum[4 * half + c], table[i], uint8_t(four >> (8 * c)));
      }
      table[i] += kLineTable;
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < kLineChannels; ++c) {
    store(target + c * pitch, sum[c][0]);
    store(target + c * pitch + 8, sum[c][1]);
  }
}

// Cache lines of Fixed16LineAhead, some with every tile.
struct Fetcher {
  const Fixed16LineAhead *piece, *end;
  int64_t done, share;

  Fetcher(const Fixed16LineAhead* pieces, int64_t count, int64_t tiles) : piece(pieces), end(pieces + count), done(0), share(0) {
    for (const Fixed16LineAhead* p = piece; p < end; ++p) share += (p->count + kLineColumns - 1) / kLineColumns;
    share = (share + tiles - 1) / tiles;
  }
  void fetch() {
    for (int64_t i = 0; i < share && piece < end; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(piece->begin + done), _MM_HINT_T0);
      done += kLineColumns;
      if (done >= piece->count) ++piece, done = 0;
    }
  }
};

template <int kRows>
BIREAL_INLINE void add_tiles(const Fixed16LineTask& task, int64_t row, int64_t strip, int64_t first, int64_t quad_block,
                             Fetcher* fetcher) {
  const int64_t count = task.quads - first < quad_block ? task.quads - first : quad_block;
  for (int64_t block = 0; block < task.blocks; ++block)
    for (int64_t t = 0; t < task.S; ++t) {
      fetcher->fetch();
      add_tile<kRows>(task, row, strip, first, count, block, t);
    }
}

// One tap and block of channels of bwd_weight.
BIREAL_INLINE void weight_tile(int32_t* target, const int32_t* table, const uint8_t* entries, int64_t quads, bool first) {
  V sum[kLineChannels][2];
#pragma GCC unroll 8
  for (int c = 0; c < kLineChannels; ++c) {
    sum[c][0] = first ? _mm256_setzero_si256() : load(target + c * kLineColumns);
    sum[c][1] = first ? _mm256_setzero_si256() : load(target + c * kLineColumns + 8);
  }
  for (int64_t quad = 0; quad < quads; ++quad, table += kLineTable, entries += kLineChannels) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      uint32_t four;
      memcpy(&four, entries + 4 * half, sizeof four);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) add_entry(sum[4 * half + c], table, uint8_t(four >> (8 * c)));
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < kLineChannels; ++c) {
    store(target + c * kLineColumns, sum[c][0]);
    store(target + c * kLineColumns + 8, sum[c][1]);
  }
}

BIREAL_INLINE V rounded(const float* dz, __m256 inverse, V present) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_maskload_ps(dz, present), inverse));
}

BIREAL_INLINE __m256 scaled(V sum, __m256d step) {
  const __m128 low = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(sum)), step));
  const __m128 high = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(sum, 1)), step));
  return _mm256_set_m128(high, low);
}

}  // namespace

void fixed16_lines_weights(uint8_t* out, const word_t* w, int64_t block, int64_t K, int64_t C, int64_t R, int64_t S) {
  const int64_t Cw = word_count(C), c = block * kLineChannels, row = R * S * Cw;
  for (int64_t t = 0; t < S; ++t)
    for (int64_t r = 0; r < R; ++r)
      for (int64_t k = 0; k < K; k += 4, out += kLineChannels) {
        const word_t* tap = w + k * row + (r * S + t) * Cw + c / kWordBits;
        uint64_t entries = 0;
        for (int64_t i = 0; i < 4 && k + i < K; ++i) {
          // Bit c of a byte to byte c.
          const uint64_t bits = (tap[i * row] >> (c % kWordBits) & 0xFFu) * 0x0101010101010101ull & 0x8040201008040201ull;
          entries |= ((bits + 0x7F7F7F7F7F7F7F7Full) >> 7 & 0x0101010101010101ull) << (3 + i);
        }
        memcpy(out, &entries, sizeof entries);
      }
}

void fixed16_lines_stage(int32_t* out, const float* const* column, int64_t offset, const float* inverse, const float* alpha,
                         int64_t columns, int64_t K) {
  const int64_t quads = (K + 3) / 4;
  for (int64_t strip = 0; strip < columns; strip += kLineColumns)
    for (int64_t quad = 0; quad < quads; quad += 2, out += 2 * kLineTable) {
      const int64_t k = 4 * quad;
      const V present = first_lanes(K - k < 8 ? K - k : 8);
      const __m256 scale = _mm256_maskload_ps(alpha + k, present);
#pragma GCC unroll 2
      for (int half = 0; half < kLineColumns; half += 8) {
        const int64_t x = strip + half;
        __m256 q[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
          const __m256 value = _mm256_mul_ps(_mm256_maskload_ps(column[x + i] + offset + k, present), scale);
          q[i] = _mm256_castsi256_ps(_mm256_cvtps_epi32(_mm256_mul_ps(value, _mm256_set1_ps(inverse[x + i]))));
        }
        transpose(q);
        auto table = [&](int32_t* target, const __m256* v) {
          store_table(target, _mm256_castps_si256(v[0]), _mm256_castps_si256(v[1]), _mm256_castps_si256(v[2]),
                      _mm256_castps_si256(v[3]));
        };
        table(out + half, q);
        if (quad + 1 < quads) table(out + kLineTable + half, q + 4);
      }
      if (quad + 1 == quads) out -= kLineTable;
    }
}

void fixed16_lines_add(const Fixed16LineTask& task) {
  if (task.row_count == 0) memset(task.sums, 0, size_t(task.blocks * task.S * kLineChannels * task.columns) * sizeof(int32_t));
  const int64_t rows = task.row_count < 3 ? task.row_count : 3, most = rows == 0 ? task.quads : kLineTerms / rows;
  const int64_t strips = task.columns / kLineColumns, quad_blocks = (task.quads + most - 1) / most;
  const int64_t quad_block = (task.quads + quad_blocks - 1) / quad_blocks;
  Fetcher fetcher(task.ahead, task.ahead_count, strips * quad_blocks * task.blocks * task.S);
  for (int64_t strip = 0; strip < strips; ++strip)
    for (int64_t first = 0; first < task.quads; first += quad_block)
      for (int64_t row = 0; row < task.row_count; row += 3) switch (task.row_count - row) {
          case 1: add_tiles<1>(task, row, strip, first, quad_block, &fetcher); break;
          case 2: add_tiles<2>(task, row, strip, first, quad_block, &fetcher); break;
          default: add_tiles<3>(task, row, strip, first, quad_block, &fetcher);
        }
}

void fixed16_lines_finish(const Fixed16LineImage& image) {
  const __m256d step = _mm256_set1_pd(image.step);
  for (int64_t phase = 0; phase < image.stride && phase < image.W; ++phase) {
    const int64_t pixels = (image.W - phase + image.stride - 1) / image.stride;
    int64_t first_tap = (phase + image.pad) % image.stride;  // of those that this phase sees
    for (int64_t j = 0; j < pixels; j += 8) {
      const int64_t here = pixels - j < 8 ? pixels - j : 8;
      float* dx = image.dx + (phase + j * image.stride) * image.C;
      for (int64_t c = 0; c < image.C; c += kLineChannels, dx += kLineChannels) {
        V sum[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) sum[i] = _mm256_setzero_si256();
        for (int64_t t = first_tap; t < image.S; t += image.stride) {
          const int64_t q = j + (phase + image.pad - t) / image.stride;  // without remainder
          const int32_t* from = image.sums + (c / kLineChannels * image.S + t) * kLineChannels * image.columns + q;
          const V mask = load(image.inside + q);
#pragma GCC unroll 8
          for (int i = 0; i < 8; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_and_si256(mask, load(from + i * image.columns)));
        }
        __m256 value[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) value[i] = scaled(sum[i], step);
        transpose(value);
        const int64_t pitch = image.stride * image.C;
        if (here == 8 && image.C - c >= 8) {
#pragma GCC unroll 8
          for (int i = 0; i < 8; ++i) _mm256_storeu_ps(dx + i * pitch, value[i]);
        } else {
          const V present = first_lanes(image.C - c < 8 ? image.C - c : 8);
#pragma GCC unroll 8
          for (int i = 0; i < 8; ++i)
            if (i < here) _mm256_maskstore_ps(dx + i * pitch, present, value[i]);
        }
      }
    }
  }
}

void fixed16_lines_entries(uint8_t* out, int64_t block_bytes, const word_t* x, const int32_t* column, int64_t quads,
                           int64_t words) {
  const V byte_of_channel = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                             2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const V bit_of_channel = _mm256_set1_epi64x(int64_t(0x8040201008040201ull));
  for (int64_t quad = 0; quad < quads; ++quad, column += 4, out += kLineChannels)
    for (int64_t word = 0; word < words; ++word) {
      V entries = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const V bits = _mm256_shuffle_epi8(_mm256_set1_epi32(int(x[column[i] + word])), byte_of_channel);
        const V is_set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit_of_channel), bit_of_channel);
        entries = _mm256_or_si256(entries, _mm256_and_si256(is_set, _mm256_set1_epi8(char(kLineEntry << i))));
      }
      const __m128i half[2] = {_mm256_castsi256_si128(entries), _mm256_extracti128_si256(entries, 1)};
      uint8_t* target = out + word * (kWordBits / kLineChannels) * block_bytes;
#pragma GCC unroll 4
      for (int block = 0; block < 4; ++block) {
        const int64_t eight = block % 2 ? _mm_extract_epi64(half[block / 2], 1) : _mm_cvtsi128_si64(half[block / 2]);
        memcpy(target + block * block_bytes, &eight, sizeof eight);
      }
    }
}

void fixed16_lines_weight_stage(int32_t* out, const float* const* pixels, const float* inverse, int64_t quads, int64_t k,
                                int64_t K) {
  for (int64_t half = 0; half < kLineColumns; half += 8) {
    const V present = first_lanes(K - k - half);
    const __m256 scale = _mm256_maskload_ps(inverse + k + half, present);
    for (int64_t quad = 0; quad < quads; ++quad) {
      V q[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const float* pixel = pixels[4 * quad + i];
        q[i] = pixel ? rounded(pixel + k + half, scale, present) : _mm256_setzero_si256();
      }
      store_table(out + quad * kLineTable + half, q[0], q[1], q[2], q[3]);
    }
  }
}

void fixed16_lines_weight_add(const Fixed16LineWeight& task) {
  const int64_t tiles = task.R * task.S * task.blocks, share = (task.next_count + tiles - 1) / tiles;
  int64_t fetched = 0;
  for (int64_t r = 0; r < task.R; ++r)
    for (int64_t t = 0; t < task.S; ++t) {
      int32_t* sums = task.sums + (r * task.S + t) * task.row_channels * kLineColumns;
      const uint8_t* entries = task.entries + task.rows[r] + t * task.entry_blocks * task.block_bytes;
      for (int64_t block = 0; block < task.blocks; ++block) {
        for (const int64_t end = fetched + share < task.next_count ? fetched + share : task.next_count; fetched < end; ++fetched)
          if (task.next[fetched]) _mm_prefetch(reinterpret_cast<const char*>(task.next[fetched] + task.next_k), _MM_HINT_T0);
        weight_tile(sums + block * kLineChannels * kLineColumns, task.tables, entries + block * task.block_bytes, task.quads,
                    task.first);
      }
    }
}

void fixed16_lines_pixel(int32_t* sums, int64_t* squares, const float* dz, const float* inverse, int64_t channels) {
  for (int64_t k = 0; k < channels; k += 8) {
    const V present = first_lanes(channels - k);
    const V q = rounded(dz + k, _mm256_maskload_ps(inverse + k, present), present);
    if (sums) store(sums + k, _mm256_add_epi32(q, load(sums + k)));
    if (!squares) continue;
    const V low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(q)), high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(q, 1));
    V* target = reinterpret_cast<V*>(squares + k);
    target[0] = _mm256_add_epi64(target[0], _mm256_mul_epi32(low, low));
    target[1] = _mm256_add_epi64(target[1], _mm256_mul_epi32(high, high));
  }
}

void fixed16_lines_weight_finish(float* const* out, const int32_t* sums, int64_t slice_sums, int64_t slices,
                                 const double* correction, const double* step, int64_t C, bool accumulate) {
  for (int64_t c = 0; c < C; c += 8, sums += 8 * kLineColumns)
#pragma GCC unroll 2
    for (int half = 0; half < kLineColumns; half += 8) {
      const __m256d off[2] = {_mm256_loadu_pd(correction + half), _mm256_loadu_pd(correction + half + 4)};
      const __m256d scale[2] = {_mm256_loadu_pd(step + half), _mm256_loadu_pd(step + half + 4)};
      __m256 value[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const int32_t* from = sums + i * kLineColumns + half;
        __m256d sum[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};  // exact: integers below 2^53
        for (int64_t slice = 0; slice < slices; ++slice, from += slice_sums)
#pragma GCC unroll 2
          for (int part = 0; part < 2; ++part) {
            const __m128i four = _mm_load_si128(reinterpret_cast<const __m128i*>(from + 4 * part));
            sum[part] = _mm256_add_pd(sum[part], _mm256_cvtepi32_pd(four));
          }
        const __m128 low = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(sum[0], off[0]), scale[0]));
        const __m128 high = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(sum[1], off[1]), scale[1]));
        value[i] = _mm256_set_m128(high, low);
      }
      transpose(value);
      const V present = first_lanes(C - c);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        float* target = out[half + i];
        if (!target) continue;
        if (C - c >= 8)
          _mm256_storeu_ps(target + c, accumulate ? _mm256_add_ps(_mm256_loadu_ps(target + c), value[i]) : value[i]);
        else
          _mm256_maskstore_ps(target + c, present,
                              accumulate ? _mm256_add_ps(_mm256_maskload_ps(target + c, present), value[i]) : value[i]);
      }
    }
}

}  // namespace bireal::cpu
