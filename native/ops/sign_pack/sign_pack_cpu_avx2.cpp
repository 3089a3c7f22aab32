#include <immintrin.h>

#include "ops/sign_pack/sign_pack_rows.h"

namespace bireal::cpu {

void sign_pack_rows_avx2(word_t* bits, const float* x, const float* threshold, int64_t rows, int64_t C) {
  const __m256 zero = _mm256_setzero_ps();
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t base = 0; base < C; base += kWordBits) {
      const float* p = x + i * C + base;
      word_t word = 0;
      if (C - base >= kWordBits) {
        for (int lane = 0; lane < kWordBits; lane += 8) {
          __m256 u = _mm256_loadu_ps(p + lane);
          if (threshold) u = _mm256_add_ps(u, _mm256_loadu_ps(threshold + base + lane));
          // An ordered compare, not movemask of x itself: -0.0 and NaN with the sign bit set are +1.
          word |= (word_t)_mm256_movemask_ps(_mm256_cmp_ps(u, zero, _CMP_LT_OQ)) << lane;
        }
      } else {
        for (int64_t c = 0; c < C - base; ++c) word |= sign_bit(threshold ? p[c] + threshold[base + c] : p[c]) << c;
      }
      *bits++ = word;
    }
  }
}

void sign_unpack_rows_avx2(float* x, const word_t* bits, int64_t rows, int64_t C) { sign_unpack_loop(x, bits, rows, C); }

}  // namespace bireal::cpu
