// Fixed-point gradients with AVX-512: VPERMD looks up 16 lanes in a table of 16. See binary_conv_fixed16.h.
#include <immintrin.h>

#include "ops/binary_conv/binary_conv_fixed16_lookup.h"

namespace bireal::cpu {
namespace {

struct Avx512 {
  using V = __m512i;
  enum { kLanes = 16, kIndexWords = 16, kEntries = 16, kVectors = 2, kPixels = 8, kChannels = 4, kStreams = 6 };
  // Masked forms here and below, because gcc 12 calls the others' undefined operand uninitialised (its bug 105593).
  BIREAL_INLINE V permute(V index, V table) { return _mm512_maskz_permutexvar_epi32(0xFFFF, index, table); }
  BIREAL_INLINE V zero() { return _mm512_setzero_si512(); }
  BIREAL_INLINE V load(const int32_t* p) { return _mm512_load_si512(p); }
  BIREAL_INLINE void store(int32_t* p, V v) { _mm512_store_si512(p, v); }
  BIREAL_INLINE V add_lanes(V a, V b) { return _mm512_add_epi32(a, b); }
  // Entry i: bit b of i negates value b.
  BIREAL_INLINE void store_table(int32_t* out, uint32_t low, uint32_t high) {
    const int pp = 0x00010001, np = 0x0001FFFF, pn = int(0xFFFF0001), nn = int(0xFFFFFFFF);
    const V first = _mm512_setr_epi32(pp, np, pn, nn, pp, np, pn, nn, pp, np, pn, nn, pp, np, pn, nn);
    const V second = _mm512_setr_epi32(pp, pp, pp, pp, np, np, np, np, pn, pn, pn, pn, nn, nn, nn, nn);
    store(out, _mm512_add_epi32(_mm512_madd_epi16(_mm512_set1_epi32(int(low)), first),
                                _mm512_madd_epi16(_mm512_set1_epi32(int(high)), second)));
  }
  // Lane l: nibble l in the low bits; VPERMD ignores the others.
  BIREAL_INLINE void store_index(int32_t* out, const uint64_t* nibbles) {
    const V halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const V shifts = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const V both = _mm512_castsi128_si512(_mm_cvtsi64_si128(int64_t(nibbles[0])));
    store(out, _mm512_maskz_srlv_epi32(0xFFFF, permute(halves, both), shifts));
  }
  BIREAL_INLINE V look_up_add(V sum, V index, V table) { return _mm512_add_epi32(sum, permute(index, table)); }
  BIREAL_INLINE __m256 scaled(__m256i sum, double step) {
    return _mm512_maskz_cvtpd_ps(0xFF, _mm512_mul_pd(_mm512_maskz_cvtepi32_pd(0xFF, sum), _mm512_set1_pd(step)));
  }
  BIREAL_INLINE void store_scaled(float* out, V sum, double step, int64_t present) {
    const uint32_t mask = present >= kLanes ? 0xFFFFu : (1u << present) - 1;
    _mm256_mask_storeu_ps(out, __mmask8(mask), scaled(_mm512_maskz_extracti64x4_epi64(0xF, sum, 0), step));
    _mm256_mask_storeu_ps(out + 8, __mmask8(mask >> 8), scaled(_mm512_maskz_extracti64x4_epi64(0xF, sum, 1), step));
  }
};

}  // namespace

const Fixed16Kernel kFixed16Avx512 = Fixed16<Avx512>::kernel("avx512_lookup");

}  // namespace bireal::cpu
