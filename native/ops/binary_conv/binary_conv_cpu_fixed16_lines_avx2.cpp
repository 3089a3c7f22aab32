// Fixed-point gradients with AVX2: tables in memory. See binary_conv_fixed16_lines.h.
//
// Two loads start in a cycle, so 120 multiply-adds are the ceiling, 105 with the loads of entries and of a tile's H.
#include <immintrin.h>
#include <string.h>

#include "ops/binary_conv/binary_conv_fixed16_lines.h"
#include "ops/binary_conv/binary_conv_fixed16_lookup.h"

namespace bireal::cpu {
namespace {

using V = __m256i;

BIREAL_INLINE V load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const V*>(p)); }
BIREAL_INLINE V load(const int64_t* p) { return _mm256_load_si256(reinterpret_cast<const V*>(p)); }
BIREAL_INLINE void store(int32_t* p, V v) { _mm256_store_si256(reinterpret_cast<V*>(p), v); }
BIREAL_INLINE void store(int64_t* p, V v) { _mm256_store_si256(reinterpret_cast<V*>(p), v); }
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

// A row of a table is two vectors. Each 64-bit word has fields from bits 0, 21 and 43 on: vector i holds columns 8 i to 8 i + 7
// in pairs in the outer fields, which are then the low and the high half of a word, and column 16 + 2 j + i in the middle of
// word j.
enum { kMiddleBit = 21, kHighBit = 43 };

// Words that hold `outer` (8 columns) and `middle` (8, of which each vector takes every other): sums mod 2^64 stay those of the
// fields, also where a value is negative.
template <int kVector>
BIREAL_INLINE V packed(V outer, V middle) {
  if (kVector == 1) middle = _mm256_srli_epi64(middle, 32);
  const V low = _mm256_mul_epi32(outer, _mm256_set1_epi64x(1));                                    // the sign fills the word
  const V high = _mm256_sllv_epi32(outer, _mm256_set1_epi64x(int64_t(kHighBit - 32) << 32 | 32));  // 32: none of the low half
  return _mm256_add_epi64(_mm256_add_epi64(low, high), _mm256_mul_epi32(middle, _mm256_set1_epi64x(1 << kMiddleBit)));
}
BIREAL_INLINE V outer_fields(V words) {
  const V halves = _mm256_srlv_epi32(words, _mm256_set1_epi64x(int64_t(kHighBit - 32) << 32));
  return _mm256_and_si256(halves, _mm256_set1_epi64x(int64_t(0xFFFFFFFFull << 32) | kLineField));
}
BIREAL_INLINE V middle_fields(V first, V second) {
  const V both = _mm256_blend_epi32(_mm256_srli_epi64(first, kMiddleBit), _mm256_slli_epi64(second, 32 - kMiddleBit), 0xAA);
  return _mm256_and_si256(both, _mm256_set1_epi32(kLineField));
}

// One vector of each row of a table: h of all values without a sign bit, less the value of each bit that is set, since
// h of -q is h of q less q. Returns the sum of |q|: of all values without sign bits and with all of them.
BIREAL_INLINE V store_table(int64_t* out, V none, const V (&value)[kLineValues]) {
  V low[8];
  low[0] = none;
  low[1] = _mm256_sub_epi64(none, value[0]);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) low[2 + i] = _mm256_sub_epi64(low[i], value[1]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) low[4 + i] = _mm256_sub_epi64(low[i], value[2]);
  const V both = _mm256_add_epi64(value[3], value[4]);
  V all = none;
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    all = _mm256_sub_epi64(low[i], both);
    store(out + kLineWords * i, low[i]);
    store(out + kLineWords * (8 + i), _mm256_sub_epi64(low[i], value[3]));
    store(out + kLineWords * (16 + i), _mm256_sub_epi64(low[i], value[4]));
    store(out + kLineWords * (24 + i), all);
  }
  return _mm256_add_epi64(none, all);
}

// A table, of q [columns / 8][value]; adds |q| to magnitudes.
template <bool kNarrow>
BIREAL_INLINE void store_group(int64_t* out, V (&magnitudes)[2], const V (&q)[3][kLineValues]) {
  const V zero = _mm256_setzero_si256();
  V none[3] = {zero, zero, zero};
#pragma GCC unroll 3
  for (int eight = 0; eight < (kNarrow ? 1 : 3); ++eight)
#pragma GCC unroll 5
    for (int i = 0; i < kLineValues; ++i) none[eight] = _mm256_add_epi32(none[eight], _mm256_max_epi32(q[eight][i], zero));
  V value[kLineValues];
#pragma GCC unroll 5
  for (int i = 0; i < kLineValues; ++i) value[i] = packed<0>(q[0][i], kNarrow ? zero : q[2][i]);
  magnitudes[0] = _mm256_add_epi64(magnitudes[0], store_table(out, packed<0>(none[0], none[2]), value));
  if (kNarrow) return;
#pragma GCC unroll 5
  for (int i = 0; i < kLineValues; ++i) value[i] = packed<1>(q[1][i], q[2][i]);
  magnitudes[1] = _mm256_add_epi64(magnitudes[1], store_table(out + kLineWords / 2, packed<1>(none[1], none[2]), value));
}

// Adds fields to 24 (8) sums, or overwrites them.
template <int kVectors, bool kFirst>
BIREAL_INLINE void add_fields(int32_t* sums, const V (&words)[kVectors]) {
  const auto add = [&](int column, V fields) {
    store(sums + column, kFirst ? fields : _mm256_add_epi32(fields, load(sums + column)));
  };
  if (kVectors == 2) add(16, middle_fields(words[0], words[kVectors - 1]));
#pragma GCC unroll 2
  for (int i = 0; i < kVectors; ++i) add(8 * i, outer_fields(words[i]));
}

// Adds fields to 24 (8) magnitudes; returns the largest of the fields.
template <bool kNarrow>
BIREAL_INLINE int32_t add_magnitudes(int32_t* magnitudes, const V (&words)[2]) {
  V largest = outer_fields(words[0]);
  if (kNarrow) {
    add_fields<1, false>(magnitudes, {words[0]});
  } else {
    add_fields<2, false>(magnitudes, words);
    largest = _mm256_max_epi32(_mm256_max_epi32(largest, outer_fields(words[1])), middle_fields(words[0], words[1]));
  }
  alignas(32) int32_t each[8];
  store(each, largest);
  int32_t result = 0;
  for (int32_t one : each) result = one > result ? one : result;
  return result;
}

// One `asm` each, because gcc 12 would load first and then spill: all 16 registers hold sums.
template <int kGroup, int kVectors>
BIREAL_INLINE void add_entry(V (&sum)[kVectors], const int64_t* tables, uint64_t entry) {
  enum { kBytes = kGroup * kLineTable * 8 };
  const auto* all = reinterpret_cast<const V(*)[kLineTable / 4]>(tables + kGroup * kLineTable);
  asm("vpaddq %c3(%1,%2,8), %0, %0" : "+x"(sum[0]) : "r"(tables), "r"(entry), "i"(kBytes), "m"(*all));
  if (kVectors == 2)
    asm("vpaddq %c3(%1,%2,8), %0, %0" : "+x"(sum[kVectors - 1]) : "r"(tables), "r"(entry), "i"(kBytes + 32), "m"(*all));
}

template <int kGroups, int kVectors>
struct Groups {
  BIREAL_INLINE void add(V (&sum)[kLineChannels][kVectors], const int64_t* tables, const uint8_t* entries) {
    Groups<kGroups - 1, kVectors>::add(sum, tables, entries);
    uint64_t eight;  // one load for eight bytes: loads are what this waits for
    memcpy(&eight, entries + (kGroups - 1) * kLineChannels, sizeof eight);
#pragma GCC unroll 8
    for (int c = 0; c < kLineChannels; ++c) add_entry<kGroups - 1, kVectors>(sum[c], tables, uint8_t(eight >> (8 * c)));
  }
};
template <int kVectors>
struct Groups<0, kVectors> {
  BIREAL_INLINE void add(V (&)[kLineChannels][kVectors], const int64_t*, const uint8_t*) {}
};

template <int kGroups, int kVectors>
BIREAL_INLINE void add_tile(int64_t* words, bool first, const int64_t* tables, const uint8_t* entries) {
  V sum[kLineChannels][kVectors];
#pragma GCC unroll 8
  for (int c = 0; c < kLineChannels; ++c)
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) sum[c][i] = first ? _mm256_setzero_si256() : load(words + c * kLineWords + 4 * i);
  Groups<kGroups, kVectors>::add(sum, tables, entries);
#pragma GCC unroll 8
  for (int c = 0; c < kLineChannels; ++c)
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) store(words + c * kLineWords + 4 * i, sum[c][i]);
}

BIREAL_INLINE void fetch(Fixed16LineFetcher* fetcher) {
  for (int64_t i = 0; i < fetcher->share && fetcher->piece < fetcher->end; ++i) {
    _mm_prefetch(reinterpret_cast<const char*>(fetcher->piece->begin + fetcher->done), _MM_HINT_T0);
    fetcher->done += kLineFetch;
    if (fetcher->done >= fetcher->piece->count) ++fetcher->piece, fetcher->done = 0;
  }
}

template <int kGroups, int kVectors>
void add_groups(const Fixed16LineTask& task, Fixed16LineFetcher* fetcher) {
  for (const Fixed16LineRow* row = task.rows; row < task.rows + task.row_count; ++row)
    for (int64_t t = 0; t < task.S; ++t) {
      int64_t* words = row->words + t * task.tap_words;
      const uint8_t* entries = row->entries + t * task.tap_entries;
      for (int64_t block = 0; block < task.blocks; ++block) {
        fetch(fetcher);
        add_tile<kGroups, kVectors>(words, row->first, task.tables, entries);
        words += kLineChannels * kLineWords;
        entries += task.block_entries;
      }
    }
}

// q. What is not finite comes out as -2^31: it belongs to a group that is left to float32, but must not reach its neighbours.
BIREAL_INLINE V rounded(__m256 value, __m256 inverse) {
  return _mm256_max_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(value, inverse)), _mm256_set1_epi32(-kFixed16Max));
}

BIREAL_INLINE __m256 scaled(V sum, __m256d step) {
  const __m128 low = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(sum)), step));
  const __m128 high = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(sum, 1)), step));
  return _mm256_set_m128(high, low);
}

}  // namespace

void fixed16_lines_add(const Fixed16LineTask& task, Fixed16LineFetcher* fetcher) {
  using Add = decltype(&add_groups<1, 1>);
#define BIREAL_GROUPS(n) \
  { add_groups<n, 1>, add_groups<n, 2> }
  static constexpr Add kAdd[kLineGroups][2] = {BIREAL_GROUPS(1), BIREAL_GROUPS(2),  BIREAL_GROUPS(3),  BIREAL_GROUPS(4),
                                               BIREAL_GROUPS(5), BIREAL_GROUPS(6),  BIREAL_GROUPS(7),  BIREAL_GROUPS(8),
                                               BIREAL_GROUPS(9), BIREAL_GROUPS(10), BIREAL_GROUPS(11), BIREAL_GROUPS(12),
                                               BIREAL_GROUPS(13)};
#undef BIREAL_GROUPS
  kAdd[task.groups - 1][task.narrow ? 0 : 1](task, fetcher);
}

void fixed16_lines_weights(uint8_t* out, const word_t* w, int64_t block, int64_t blocks, int64_t groups, int64_t k, int64_t k_end,
                           int64_t C, int64_t R, int64_t S) {
  const int64_t Cw = word_count(C), c = block * kLineChannels, row = R * S * Cw;
  for (int64_t tap = 0; tap < R * S; ++tap)
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t k0 = k + group * kLineValues;
      const word_t* from = w + k0 * row + tap * Cw + c / kWordBits;
      uint64_t entries = 0;
      for (int64_t i = 0; i < kLineValues && k0 + i < k_end; ++i) {
        // Bit c of a byte to byte c.
        const uint64_t bits = (from[i * row] >> (c % kWordBits) & 0xFFu) * 0x0101010101010101ull & 0x8040201008040201ull;
        entries |= ((bits + 0x7F7F7F7F7F7F7F7Full) >> 7 & 0x0101010101010101ull) * uint64_t(kLineEntry << i);
      }
      memcpy(out + ((tap * blocks + block) * groups + group) * kLineChannels, &entries, sizeof entries);
    }
}

namespace {

template <bool kNarrow>
BIREAL_INLINE int32_t stage(int64_t* out, int32_t* magnitudes, const float* const* column, int64_t offset, const float* inverse,
                            const float* alpha, int64_t groups, int64_t k, int64_t k_end) {
  enum { kEights = (kLineGroups * kLineValues + 7) / 8 };
  __m256 q[3][kEights * 8];  // [columns / 8][output channel]
  for (int part = 0; part < (kNarrow ? 1 : 3); ++part)
    for (int64_t eight = 0; 8 * eight < groups * kLineValues; ++eight) {
      const int64_t k0 = k + 8 * eight;
      __m256* values = q[part] + 8 * eight;
      if (k0 >= k_end) {
        for (int i = 0; i < 8; ++i) values[i] = _mm256_setzero_ps();
        continue;
      }
      const V present = first_lanes(k_end - k0 < 8 ? k_end - k0 : 8);
      const __m256 scale = _mm256_maskload_ps(alpha + k0, present);
      __m256 rows[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const __m256 value = _mm256_mul_ps(_mm256_maskload_ps(column[8 * part + i] + offset + k0, present), scale);
        rows[i] = _mm256_castsi256_ps(rounded(value, _mm256_set1_ps(inverse[8 * part + i])));
      }
      transpose(rows);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) values[i] = rows[i];
    }
  V sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int64_t group = 0; group < groups; ++group) {
    V value[3][kLineValues];
#pragma GCC unroll 3
    for (int part = 0; part < (kNarrow ? 1 : 3); ++part)
#pragma GCC unroll 5
      for (int i = 0; i < kLineValues; ++i) value[part][i] = _mm256_castps_si256(q[part][group * kLineValues + i]);
    store_group<kNarrow>(out + group * kLineTable, sums, value);
  }
  return add_magnitudes<kNarrow>(magnitudes, sums);
}

}  // namespace

int32_t fixed16_lines_stage(int64_t* out, int32_t* magnitudes, const float* const* column, int64_t offset, const float* inverse,
                            const float* alpha, int64_t groups, int64_t k, int64_t k_end, bool narrow) {
  return (narrow ? stage<true> : stage<false>)(out, magnitudes, column, offset, inverse, alpha, groups, k, k_end);
}

void fixed16_lines_flush(int32_t* sums, const int64_t* words, int64_t count, bool first, bool narrow) {
  for (int64_t i = 0; i < count; ++i, sums += kLineColumns, words += kLineWords) {
    const V row[2] = {load(words), narrow ? _mm256_setzero_si256() : load(words + 4)};
    if (first)
      add_fields<2, true>(sums, row);
    else
      add_fields<2, false>(sums, row);
  }
}

void fixed16_lines_gather(int32_t* out, int64_t columns, const int64_t* words, int64_t tap_words, const int32_t* sums,
                          int64_t tap_sums, int64_t S) {
  for (int64_t t = 0; t < S; ++t, words += tap_words)
#pragma GCC unroll 2
    for (int c = 0; c < kLineChannels; ++c, out += columns) {
      const V row[2] = {load(words + c * kLineWords), load(words + c * kLineWords + 4)};
      V fields[3] = {outer_fields(row[0]), outer_fields(row[1]), middle_fields(row[0], row[1])};
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        if (sums) fields[i] = _mm256_add_epi32(fields[i], load(sums + t * tap_sums + c * kLineColumns + 8 * i));
        store(out + 8 * i, fields[i]);
      }
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
      V magnitudes = _mm256_setzero_si256();
      for (int64_t t = first_tap; t < image.S; t += image.stride) {
        const int64_t q = j + (phase + image.pad - t) / image.stride;  // without remainder
        const int32_t* from = image.sums + t * kLineChannels * image.columns + q;
        const V mask = load(image.inside + q);
        magnitudes = _mm256_add_epi32(magnitudes, _mm256_and_si256(mask, load(image.magnitudes + q)));
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_and_si256(mask, load(from + i * image.columns)));
      }
      __m256 value[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) value[i] = scaled(_mm256_sub_epi32(_mm256_add_epi32(sum[i], sum[i]), magnitudes), step);
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

namespace {

template <bool kNarrow>
BIREAL_INLINE int32_t weight_stage(int64_t* out, int32_t* magnitudes, const float* const* pixels, const float* inverse,
                                   int64_t groups, int64_t k, int64_t K) {
  V present[3], sums[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  __m256 scale[3];
#pragma GCC unroll 3
  for (int part = 0; part < (kNarrow ? 1 : 3); ++part) {
    present[part] = first_lanes(K - k - 8 * part);
    scale[part] = _mm256_maskload_ps(inverse + k + 8 * part, present[part]);
  }
  for (int64_t group = 0; group < groups; ++group) {
    V value[3][kLineValues];
#pragma GCC unroll 5
    for (int i = 0; i < kLineValues; ++i) {
      const float* pixel = pixels[kLineValues * group + i];
#pragma GCC unroll 3
      for (int part = 0; part < (kNarrow ? 1 : 3); ++part)
        value[part][i] =
            pixel ? rounded(_mm256_maskload_ps(pixel + k + 8 * part, present[part]), scale[part]) : _mm256_setzero_si256();
    }
    store_group<kNarrow>(out + group * kLineTable, sums, value);
  }
  return add_magnitudes<kNarrow>(magnitudes, sums);
}

}  // namespace

int32_t fixed16_lines_weight_stage(int64_t* out, int32_t* magnitudes, const float* const* pixels, const float* inverse,
                                   int64_t groups, int64_t k, int64_t K) {
  return (K - k <= kLineNarrow ? weight_stage<true> : weight_stage<false>)(out, magnitudes, pixels, inverse, groups, k, K);
}

void fixed16_lines_pixel(int32_t* sums, int64_t* squares, const float* dz, const float* inverse, int64_t channels) {
  for (int64_t k = 0; k < channels; k += 8) {
    const V present = first_lanes(channels - k);
    const V q = rounded(_mm256_maskload_ps(dz + k, present), _mm256_maskload_ps(inverse + k, present));
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
#pragma GCC unroll 3
    for (int k0 = 0; k0 < kLineColumns; k0 += 8) {
      const __m256d off[2] = {_mm256_loadu_pd(correction + k0), _mm256_loadu_pd(correction + k0 + 4)};
      const __m256d scale[2] = {_mm256_loadu_pd(step + k0), _mm256_loadu_pd(step + k0 + 4)};
      __m256 value[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const int32_t* from = sums + i * kLineColumns + k0;
        __m256d sum[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};  // exact: integers below 2^53
        for (int64_t slice = 0; slice < slices; ++slice, from += slice_sums)
#pragma GCC unroll 2
          for (int part = 0; part < 2; ++part) {
            const __m128i four = _mm_load_si128(reinterpret_cast<const __m128i*>(from + 4 * part));
            sum[part] = _mm256_add_pd(sum[part], _mm256_cvtepi32_pd(four));
          }
        const __m128 low = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(_mm256_add_pd(sum[0], sum[0]), off[0]), scale[0]));
        const __m128 high = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_sub_pd(_mm256_add_pd(sum[1], sum[1]), off[1]), scale[1]));
        value[i] = _mm256_set_m128(high, low);
      }
      transpose(value);
      const V present = first_lanes(C - c);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        float* target = out[k0 + i];
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
