// Fixed-point gradients with AVX2: tables in memory. See binary_conv_fixed16_lines.h.
//
// Two loads start in a cycle, so 80 multiply-adds are the ceiling, 73 with the loads of a tile's sums.
#include <immintrin.h>
#include <string.h>

#include "ops/binary_conv/binary_conv_fixed16_lines.h"
#include "ops/binary_conv/binary_conv_fixed16_lookup.h"

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

// 8 columns of a table. Entry i: bit b of i negates value b.
BIREAL_INLINE void store_table(int32_t* out, const V (&value)[kLineValues]) {
  const V plus = _mm256_add_epi32(value[2], value[1]), minus = _mm256_sub_epi32(value[2], value[1]);
  const V low[4] = {_mm256_add_epi32(plus, value[0]), _mm256_sub_epi32(plus, value[0]), _mm256_add_epi32(minus, value[0]),
                    _mm256_sub_epi32(minus, value[0])};  // those of entries 7 to 4 are the negatives
  const V sum = _mm256_add_epi32(value[4], value[3]), difference = _mm256_sub_epi32(value[4], value[3]);
  const V zero = _mm256_setzero_si256();
  const V high[4] = {sum, difference, _mm256_sub_epi32(zero, difference), _mm256_sub_epi32(zero, sum)};
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      store(out + kLineColumns * (8 * j + i), _mm256_add_epi32(high[j], low[i]));
      store(out + kLineColumns * (8 * j + 7 - i), _mm256_sub_epi32(high[j], low[i]));
    }
}

// One `asm` each, because gcc 12 would load first and then spill: all 16 registers hold sums.
template <int kGroup>
BIREAL_INLINE void add_entry(V (&sum)[2], const int32_t* tables, uint64_t entry) {
  enum { kBytes = kGroup * kLineTable * 4 };
  const auto* all = reinterpret_cast<const V(*)[kLineTable / 8]>(tables + kGroup * kLineTable);
  asm("vpaddd %c3(%1,%2,8), %0, %0" : "+x"(sum[0]) : "r"(tables), "r"(entry), "i"(kBytes), "m"(*all));
  asm("vpaddd %c3(%1,%2,8), %0, %0" : "+x"(sum[1]) : "r"(tables), "r"(entry), "i"(kBytes + 32), "m"(*all));
}

template <int kGroups>
struct Groups {
  BIREAL_INLINE void add(V (&sum)[kLineChannels][2], const int32_t* tables, const uint8_t* entries) {
    Groups<kGroups - 1>::add(sum, tables, entries);
    uint64_t eight;  // one load for eight bytes: loads are what this waits for
    memcpy(&eight, entries + (kGroups - 1) * kLineChannels, sizeof eight);
#pragma GCC unroll 8
    for (int c = 0; c < kLineChannels; ++c) add_entry<kGroups - 1>(sum[c], tables, uint8_t(eight >> (8 * c)));
  }
};
template <>
struct Groups<0> {
  BIREAL_INLINE void add(V (&)[kLineChannels][2], const int32_t*, const uint8_t*) {}
};

template <int kGroups>
BIREAL_INLINE void add_tile(int32_t* sums, bool first, const int32_t* tables, const uint8_t* entries) {
  V sum[kLineChannels][2];
#pragma GCC unroll 8
  for (int c = 0; c < kLineChannels; ++c)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) sum[c][half] = first ? _mm256_setzero_si256() : load(sums + c * kLineColumns + 8 * half);
  Groups<kGroups>::add(sum, tables, entries);
#pragma GCC unroll 8
  for (int c = 0; c < kLineChannels; ++c)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) store(sums + c * kLineColumns + 8 * half, sum[c][half]);
}

BIREAL_INLINE void fetch(Fixed16LineFetcher* fetcher) {
  for (int64_t i = 0; i < fetcher->share && fetcher->piece < fetcher->end; ++i) {
    _mm_prefetch(reinterpret_cast<const char*>(fetcher->piece->begin + fetcher->done), _MM_HINT_T0);
    fetcher->done += kLineColumns;
    if (fetcher->done >= fetcher->piece->count) ++fetcher->piece, fetcher->done = 0;
  }
}

template <int kGroups>
void add_groups(const Fixed16LineTask& task, Fixed16LineFetcher* fetcher) {
  for (const Fixed16LineRow* row = task.rows; row < task.rows + task.row_count; ++row)
    for (int64_t t = 0; t < task.S; ++t) {
      int32_t* sums = row->sums + t * task.tap_sums;
      const uint8_t* entries = row->entries + t * task.tap_entries;
      for (int64_t block = 0; block < task.blocks; ++block) {
        fetch(fetcher);
        add_tile<kGroups>(sums, row->first, task.tables, entries);
        sums += kLineChannels * kLineColumns;
        entries += task.block_entries;
      }
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

void fixed16_lines_add(const Fixed16LineTask& task, Fixed16LineFetcher* fetcher) {
  static constexpr decltype(&add_groups<1>) kAdd[kLineGroups] = {add_groups<1>, add_groups<2>,  add_groups<3>,  add_groups<4>,
                                                                 add_groups<5>, add_groups<6>,  add_groups<7>,  add_groups<8>,
                                                                 add_groups<9>, add_groups<10>, add_groups<11>, add_groups<12>};
  kAdd[task.groups - 1](task, fetcher);
}

void fixed16_lines_weights(uint8_t* out, const word_t* w, int64_t block, int64_t blocks, int64_t groups, int64_t k, int64_t K,
                           int64_t C, int64_t R, int64_t S) {
  const int64_t Cw = word_count(C), c = block * kLineChannels, row = R * S * Cw;
  for (int64_t tap = 0; tap < R * S; ++tap)
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t k0 = k + group * kLineValues;
      const word_t* from = w + k0 * row + tap * Cw + c / kWordBits;
      uint64_t entries = 0;
      for (int64_t i = 0; i < kLineValues && k0 + i < K; ++i) {
        // Bit c of a byte to byte c.
        const uint64_t bits = (from[i * row] >> (c % kWordBits) & 0xFFu) * 0x0101010101010101ull & 0x8040201008040201ull;
        entries |= ((bits + 0x7F7F7F7F7F7F7F7Full) >> 7 & 0x0101010101010101ull) * uint64_t(kLineEntry << i);
      }
      memcpy(out + ((tap * blocks + block) * groups + group) * kLineChannels, &entries, sizeof entries);
    }
}

void fixed16_lines_stage(int32_t* out, const float* const* column, int64_t offset, const float* inverse, const float* alpha,
                         int64_t groups, int64_t k, int64_t K) {
  enum { kMost = (kLineGroups * kLineValues + 7) / 8 };
  for (int half = 0; half < kLineColumns; half += 8) {
    __m256 q[kMost * 8];  // [output channel]
    for (int64_t eight = 0; 8 * eight < groups * kLineValues; ++eight) {
      const int64_t k0 = k + 8 * eight;
      const V present = first_lanes(K - k0 < 8 ? K - k0 : 8);
      const __m256 scale = _mm256_maskload_ps(alpha + k0, present);
      __m256 values[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const __m256 value = _mm256_mul_ps(_mm256_maskload_ps(column[half + i] + offset + k0, present), scale);
        values[i] = _mm256_castsi256_ps(_mm256_cvtps_epi32(_mm256_mul_ps(value, _mm256_set1_ps(inverse[half + i]))));
      }
      transpose(values);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) q[8 * eight + i] = values[i];
    }
    for (int64_t group = 0; group < groups; ++group) {
      V value[kLineValues];
#pragma GCC unroll 5
      for (int i = 0; i < kLineValues; ++i) value[i] = _mm256_castps_si256(q[group * kLineValues + i]);
      store_table(out + group * kLineTable + half, value);
    }
  }
}

void fixed16_lines_gather(int32_t* out, const int32_t* sums, int64_t S, int64_t tap_sums, int64_t strips, int64_t strip_sums) {
  const int64_t columns = strips * kLineColumns;
  for (int64_t t = 0; t < S; ++t, sums += tap_sums, out += kLineChannels * columns)
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int32_t* from = sums + strip * strip_sums;
      int32_t* to = out + strip * kLineColumns;
#pragma GCC unroll 8
      for (int c = 0; c < kLineChannels; ++c)
#pragma GCC unroll 2
        for (int half = 0; half < kLineColumns; half += 8) store(to + c * columns + half, load(from + c * kLineColumns + half));
    }
}

void fixed16_lines_finish(const Fixed16LineImage& image) {
  const __m256d step = _mm256_set1_pd(image.step);
  const int64_t pitch = image.stride * image.C;
  const V present = first_lanes(image.channels);
  for (int64_t phase = 0; phase < image.stride && phase < image.W; ++phase) {
    const int64_t pixels = (image.W - phase + image.stride - 1) / image.stride;
    const int64_t first_tap = (phase + image.pad) % image.stride;  // of those that this phase sees
    for (int64_t j = 0; j < pixels; j += 8) {
      const int64_t here = pixels - j < 8 ? pixels - j : 8;
      float* dx = image.dx + (phase + j * image.stride) * image.C;
      V sum[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) sum[i] = _mm256_setzero_si256();
      for (int64_t t = first_tap; t < image.S; t += image.stride) {
        const int64_t q = j + (phase + image.pad - t) / image.stride;  // without remainder
        const int32_t* from = image.sums + t * kLineChannels * image.columns + q;
        const V mask = load(image.inside + q);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_and_si256(mask, load(from + i * image.columns)));
      }
      __m256 value[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) value[i] = scaled(sum[i], step);
      transpose(value);
      if (here == 8 && image.channels == 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) _mm256_storeu_ps(dx + i * pitch, value[i]);
      } else {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i)
          if (i < here) _mm256_maskstore_ps(dx + i * pitch, present, value[i]);
      }
    }
  }
}

void fixed16_lines_entries(uint8_t* out, int64_t block_bytes, const word_t* x, const int32_t* column, int64_t groups,
                           int64_t words) {
  const V byte_of_channel = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                             2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const V bit_of_channel = _mm256_set1_epi64x(int64_t(0x8040201008040201ull));
  for (int64_t group = 0; group < groups; ++group, column += kLineValues, out += kLineChannels)
    for (int64_t word = 0; word < words; ++word) {
      V entries = _mm256_setzero_si256();
#pragma GCC unroll 5
      for (int i = 0; i < kLineValues; ++i) {
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

void fixed16_lines_weight_stage(int32_t* out, const float* const* pixels, const float* inverse, int64_t groups, int64_t k,
                                int64_t K) {
  for (int64_t half = 0; half < kLineColumns; half += 8) {
    const V present = first_lanes(K - k - half);
    const __m256 scale = _mm256_maskload_ps(inverse + k + half, present);
    for (int64_t group = 0; group < groups; ++group) {
      V value[kLineValues];
#pragma GCC unroll 5
      for (int i = 0; i < kLineValues; ++i) {
        const float* pixel = pixels[kLineValues * group + i];
        value[i] = pixel ? rounded(pixel + k + half, scale, present) : _mm256_setzero_si256();
      }
      store_table(out + group * kLineTable + half, value);
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

const Fixed16Kernel kFixed16Avx2 = {"avx2_lines", magnitudes, squares, 0,       0,       0,       0,      0, 0,
                                    nullptr,      nullptr,    nullptr, nullptr, nullptr, nullptr, nullptr};

}  // namespace bireal::cpu
