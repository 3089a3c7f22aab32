// Fixed-point backward input with AVX2: VPSHUFB looks up 32 channels at once. See binary_conv_fixed16.h. (Few channels, and
// backward weight: binary_conv_cpu_fixed16_lines_avx2.cpp.)
//
// A sum of four +-q, plus 2^17, has 18 bits. Its table is three tables of 16 bytes with 6 bits each, so that bytes hold the sum
// of four values looked up (4 * 63 < 256) before they are added to 16-bit lanes: 3 shuffles, 3 additions and, every fourth time,
// 9 instructions more for 128 multiply-adds, 17 a vector instruction. VPERMD on 32-bit lanes and VPSIGND did 8 (and VPERMD is
// two instructions inside Zen 3), VPMADDWD does 8, a float32 FMA 8.
#include <immintrin.h>

#include "ops/binary_conv/binary_conv_fixed16_lookup.h"

namespace bireal::cpu {
namespace {

struct Avx2 {
  using V = __m256i;
  enum { kLanes = 32, kIndexWords = 8, kEntries = 12, kVectors = 2, kPixels = 2, kNarrowPixels = 4 };
  enum { kPlanes = 3, kOffset = 1 << 17 };
  BIREAL_INLINE V load(const void* p) { return _mm256_load_si256(reinterpret_cast<const V*>(p)); }
  BIREAL_INLINE void store(void* p, V v) { _mm256_store_si256(reinterpret_cast<V*>(p), v); }

  // Entry i: bit b of i negates value b. Three planes of 16 bytes, low bits first. Two tables side by side, one in each half of
  // the registers: their values 0 and 1, and 2 and 3.
  BIREAL_INLINE void store_two_tables(int32_t* out0, int32_t* out1, V low, V high) {
    const V signs_01 = _mm256_setr_epi16(1, 1, -1, 1, 1, -1, -1, -1, 1, 1, -1, 1, 1, -1, -1, -1);
    const V base = _mm256_add_epi32(_mm256_madd_epi16(low, signs_01), _mm256_set1_epi32(kOffset));
    const V sum = _mm256_madd_epi16(high, _mm256_set1_epi16(1));                        // bits 2 and 3: 00, and less of it 11
    const V difference = _mm256_madd_epi16(high, _mm256_set1_epi32(1 << 16 | 0xFFFF));  // 10, and less of it 01
    const V entries_0 = _mm256_add_epi32(base, sum), entries_4 = _mm256_add_epi32(base, difference);
    const V entries_8 = _mm256_sub_epi32(base, difference), entries_12 = _mm256_sub_epi32(base, sum);
    const V low_12 = _mm256_set1_epi32(0xFFF), low_6 = _mm256_set1_epi16(0x3F);
    auto lower = [&](V a, V b) { return _mm256_packus_epi32(_mm256_and_si256(a, low_12), _mm256_and_si256(b, low_12)); };
    auto upper = [&](V a, V b) { return _mm256_packus_epi32(_mm256_srli_epi32(a, 12), _mm256_srli_epi32(b, 12)); };
    const V lower_0 = lower(entries_0, entries_4), lower_8 = lower(entries_8, entries_12);
    const V planes[kPlanes] = {_mm256_packus_epi16(_mm256_and_si256(lower_0, low_6), _mm256_and_si256(lower_8, low_6)),
                               _mm256_packus_epi16(_mm256_srli_epi16(lower_0, 6), _mm256_srli_epi16(lower_8, 6)),
                               _mm256_packus_epi16(upper(entries_0, entries_4), upper(entries_8, entries_12))};
#pragma GCC unroll 3
    for (int p = 0; p < kPlanes; ++p) {
      _mm_store_si128(reinterpret_cast<__m128i*>(out0 + 4 * p), _mm256_castsi256_si128(planes[p]));
      _mm_store_si128(reinterpret_cast<__m128i*>(out1 + 4 * p), _mm256_extracti128_si256(planes[p], 1));
    }
  }
  BIREAL_INLINE void store_tables(int32_t* out0, int32_t* out1, const uint32_t (&low)[2], const uint32_t (&high)[2]) {
    auto side_by_side = [](const uint32_t(&pair)[2]) {
      return _mm256_blend_epi32(_mm256_set1_epi32(int(pair[0])), _mm256_set1_epi32(int(pair[1])), 0xF0);
    };
    store_two_tables(out0, out1, side_by_side(low), side_by_side(high));
  }
  BIREAL_INLINE void store_table(int32_t* out, uint32_t low, uint32_t high) {
    store_two_tables(out, out, _mm256_set1_epi32(int(low)), _mm256_set1_epi32(int(high)));
  }
  BIREAL_INLINE __m128i bytes_of(uint64_t nibbles) {
    const __m128i all = _mm_cvtsi64_si128(int64_t(nibbles)), mask = _mm_set1_epi8(15);
    return _mm_unpacklo_epi8(_mm_and_si128(all, mask), _mm_and_si128(_mm_srli_epi64(all, 4), mask));
  }
  // Even bytes: channels 0-15, odd bytes: 16-31, so that both 16-bit sums are in order.
  BIREAL_INLINE void store_index(int32_t* out, const uint64_t* nibbles) {
    const __m128i even = bytes_of(nibbles[0]), odd = bytes_of(nibbles[1]);
    store(out, _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd)));
  }

  template <int kTables, int kWidth>
  struct Tile {
    V all[kTables][kWidth][kPlanes];  // 16-bit sums of pairs of bytes, modulo 2^16,
    V odd[kTables][kWidth][kPlanes];  // and of their upper bytes
    V sum[kTables][kWidth][4];        // 8 channels each, modulo 2^32; until `finish` 0-3 and 8-11, 4-7 and 12-15, and so on
    uint32_t lookups;
    int batches;  // since `all` and `odd` were cleared

    BIREAL_MEMBER void clear() {
      lookups = 0, batches = 0;
      for (int t = 0; t < kTables; ++t)
        for (int v = 0; v < kWidth; ++v) {
          for (int p = 0; p < kPlanes; ++p) all[t][v][p] = odd[t][v][p] = _mm256_setzero_si256();
          for (int part = 0; part < 4; ++part) sum[t][v][part] = _mm256_setzero_si256();
        }
    }

    // Up to four quads: what bytes can hold.
    template <int kQuads>
    BIREAL_MEMBER void batch(const int32_t* tables, int64_t table_step, const int32_t* index, int64_t index_step) {
      V bytes[kTables][kWidth][kPlanes];
#pragma GCC unroll 4
      for (int quad = 0; quad < kQuads; ++quad) {
        V at[kWidth];
#pragma GCC unroll 2
        for (int v = 0; v < kWidth; ++v) at[v] = load(index + quad * index_step + v * kIndexWords);
#pragma GCC unroll 4
        for (int t = 0; t < kTables; ++t)
#pragma GCC unroll 3
          for (int p = 0; p < kPlanes; ++p) {
            const int32_t* plane = tables + quad * table_step + t * kEntries + p * 4;
            const V table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(plane)));
#pragma GCC unroll 2
            for (int v = 0; v < kWidth; ++v) {
              const V found = _mm256_shuffle_epi8(table, at[v]);
              bytes[t][v][p] = quad == 0 ? found : _mm256_add_epi8(bytes[t][v][p], found);
              asm volatile("" : "+x"(bytes[t][v][p]));  // in this order: gcc 12 would shuffle first, and spill half of it
            }
          }
      }
#pragma GCC unroll 4
      for (int t = 0; t < kTables; ++t)
#pragma GCC unroll 2
        for (int v = 0; v < kWidth; ++v)
#pragma GCC unroll 3
          for (int p = 0; p < kPlanes; ++p) {
            all[t][v][p] = _mm256_add_epi16(all[t][v][p], bytes[t][v][p]);
            odd[t][v][p] = _mm256_add_epi16(odd[t][v][p], _mm256_srli_epi16(bytes[t][v][p], 8));
          }
      if (++batches == 128) combine();  // 128 * 4 * 63 < 2^15
    }

    BIREAL_MEMBER void run(const int32_t* tables, int64_t table_step, const int32_t* index, int64_t index_step, int64_t quads) {
      lookups += uint32_t(quads);
      for (; quads >= 4; quads -= 4, tables += 4 * table_step, index += 4 * index_step)
        batch<4>(tables, table_step, index, index_step);
      for (; quads > 0; --quads, tables += table_step, index += index_step) batch<1>(tables, table_step, index, index_step);
    }

    template <int kTaps>
    BIREAL_MEMBER void add_row(const int32_t* tables, int64_t table_step, const int32_t* index, int64_t quads) {
      for (int j = 0; j < kTaps; ++j)
        run(tables + (kTaps - 1 - j) * kEntries, table_step, index + j * kWidth * kIndexWords, kTaps * kWidth * kIndexWords,
            quads);
    }

    __attribute__((noinline)) void combine() {
      batches = 0;
      const V one_64 = _mm256_set1_epi32(64 << 16 | 1), only_4096 = _mm256_set1_epi32(4096);
      for (int t = 0; t < kTables; ++t)
        for (int v = 0; v < kWidth; ++v) {
          V even[kPlanes], high[kPlanes];
#pragma GCC unroll 3
          for (int p = 0; p < kPlanes; ++p) {
            high[p] = odd[t][v][p], even[p] = _mm256_sub_epi16(all[t][v][p], _mm256_slli_epi16(high[p], 8));
            all[t][v][p] = odd[t][v][p] = _mm256_setzero_si256();
          }
          auto add_half = [&](V* to, const V* plane) {
            const V zero = _mm256_setzero_si256();
            const V first = _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpacklo_epi16(plane[0], plane[1]), one_64),
                                             _mm256_madd_epi16(_mm256_unpacklo_epi16(plane[2], zero), only_4096));
            const V second = _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpackhi_epi16(plane[0], plane[1]), one_64),
                                              _mm256_madd_epi16(_mm256_unpackhi_epi16(plane[2], zero), only_4096));
            to[0] = _mm256_add_epi32(to[0], first);
            to[1] = _mm256_add_epi32(to[1], second);
          };
          add_half(sum[t][v], even);
          add_half(sum[t][v] + 2, high);
        }
    }

    BIREAL_MEMBER void finish() {
      combine();
      const V offsets = _mm256_set1_epi32(int(lookups * kOffset));
      for (int t = 0; t < kTables; ++t)
        for (int v = 0; v < kWidth; ++v)
          for (int half = 0; half < 4; half += 2) {
            const V first = _mm256_sub_epi32(sum[t][v][half], offsets), second = _mm256_sub_epi32(sum[t][v][half + 1], offsets);
            sum[t][v][half] = _mm256_permute2x128_si256(first, second, 0x20);
            sum[t][v][half + 1] = _mm256_permute2x128_si256(first, second, 0x31);
          }
    }

    BIREAL_MEMBER void store_scaled(int t, int v, float* out, double step, int64_t present) const {
      const __m256d factor = _mm256_set1_pd(step);
      for (int part = 0; part < 4 && present > 0; ++part, out += 8, present -= 8) {
        const V value = sum[t][v][part];
        const __m128 low = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(value)), factor));
        const __m128 high = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(value, 1)), factor));
        const __m256 scaled = _mm256_set_m128(high, low);
        if (present >= 8) {
          _mm256_storeu_ps(out, scaled);
        } else {
          const V lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
          _mm256_maskstore_ps(out, _mm256_cmpgt_epi32(_mm256_set1_epi32(int(present)), lanes), scaled);
        }
      }
    }
  };
};

}  // namespace

const Fixed16Kernel kFixed16Avx2 = Fixed16<Avx2>::input_kernel("avx2_byte_planes");

}  // namespace bireal::cpu
