#include <immintrin.h>

#include "ops/weight_binarize/weight_binarize_rows.h"

namespace bireal::cpu {

WeightSum weight_binarize_filter_avx512(word_t* bits, const float* w, int64_t taps, int64_t C) {
  const __m512 limit = _mm512_set1_ps(512.0f);
  const __m512d scale = _mm512_set1_pd(0x1p40), magic = _mm512_set1_pd(0x1p52);
  __m512i sums = _mm512_setzero_si512();
  __mmask16 bad = 0;
  for (int64_t tap = 0; tap < taps; ++tap, w += C)
    for (int64_t base = 0; base < C; base += kWordBits) {
      word_t word = 0, present = valid_mask(C, base / kWordBits);
      for (int lane = 0; lane < kWordBits; lane += 16) {
        // Absent channels are read as 0: they add nothing and pack as 0.
        __m512 v = _mm512_maskz_loadu_ps((__mmask16)(present >> lane), w + base + lane), magnitude = _mm512_abs_ps(v);
        word |= (word_t)_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ) << lane;
        bad |= _mm512_cmp_ps_mask(magnitude, limit, _CMP_NLT_UQ);
        // The masked forms, because gcc 12 calls the others' undefined operand uninitialised (its bug 105593).
        __m512d low = _mm512_maskz_cvtps_pd(0xFF, _mm512_maskz_extractf32x8_ps(0xFF, magnitude, 0));
        __m512d high = _mm512_maskz_cvtps_pd(0xFF, _mm512_maskz_extractf32x8_ps(0xFF, magnitude, 1));
        low = _mm512_add_pd(_mm512_mul_pd(low, scale), magic);
        high = _mm512_add_pd(_mm512_mul_pd(high, scale), magic);
        // Taking the pattern of 2^52 off leaves the integer.
        sums = _mm512_add_epi64(sums, _mm512_sub_epi64(_mm512_castpd_si512(low), _mm512_castpd_si512(magic)));
        sums = _mm512_add_epi64(sums, _mm512_sub_epi64(_mm512_castpd_si512(high), _mm512_castpd_si512(magic)));
      }
      *bits++ = word;
    }
  alignas(64) uint64_t lanes[8];
  _mm512_store_si512(lanes, sums);
  uint64_t sum = 0;
  for (int lane = 0; lane < 8; ++lane) sum += lanes[lane];
  return {sum, bad == 0};
}

void weight_gradient_filter_avx512(float* g, const float* w, float alpha, int64_t count, WeightGradient rule) {
  weight_gradient_loop(g, w, alpha, count, rule);
}

}  // namespace bireal::cpu
