#include <immintrin.h>

#include "ops/weight_binarize/weight_binarize_rows.h"

namespace bireal::cpu {

WeightSum weight_binarize_filter_avx2(word_t* bits, const float* w, int64_t taps, int64_t C) {
  const __m256 sign = _mm256_set1_ps(-0.0f), limit = _mm256_set1_ps(512.0f);
  const __m256d scale = _mm256_set1_pd(0x1p40), magic = _mm256_set1_pd(0x1p52);
  __m256i sums = _mm256_setzero_si256();
  __m256 valid = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  uint64_t sum = 0;
  bool in_range = true;
  for (int64_t tap = 0; tap < taps; ++tap, w += C)
    for (int64_t base = 0; base < C; base += kWordBits) {
      if (C - base < kWordBits) {
        *bits++ = binarize_word(w + base, C - base, &sum, &in_range);
        continue;
      }
      word_t word = 0;
      for (int lane = 0; lane < kWordBits; lane += 8) {
        __m256 v = _mm256_loadu_ps(w + base + lane), magnitude = _mm256_andnot_ps(sign, v);
        // An ordered compare, not movemask of w itself: -0.0 and NaN with the sign bit set are +1.
        word |= (word_t)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ)) << lane;
        valid = _mm256_and_ps(valid, _mm256_cmp_ps(magnitude, limit, _CMP_LT_OQ));
        __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(magnitude)),
                high = _mm256_cvtps_pd(_mm256_extractf128_ps(magnitude, 1));
        low = _mm256_add_pd(_mm256_mul_pd(low, scale), magic);
        high = _mm256_add_pd(_mm256_mul_pd(high, scale), magic);
        // Taking the pattern of 2^52 off leaves the integer.
        sums = _mm256_add_epi64(sums, _mm256_sub_epi64(_mm256_castpd_si256(low), _mm256_castpd_si256(magic)));
        sums = _mm256_add_epi64(sums, _mm256_sub_epi64(_mm256_castpd_si256(high), _mm256_castpd_si256(magic)));
      }
      *bits++ = word;
    }
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256((__m256i*)lanes, sums);
  in_range = in_range && _mm256_movemask_ps(valid) == 0xFF;
  return {sum + lanes[0] + lanes[1] + lanes[2] + lanes[3], in_range};
}

void weight_gradient_filter_avx2(float* g, const float* w, float alpha, int64_t count, WeightGradient rule) {
  weight_gradient_loop(g, w, alpha, count, rule);
}

}  // namespace bireal::cpu
