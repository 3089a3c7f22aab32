#include <immintrin.h>

#include "ops/sign_pack/sign_pack_rows.h"

namespace bireal::cpu {

// 16 channels at p + lane, those from `valid` on read as 0 (and so packed as 0).
BIREAL_INLINE word_t sign_mask16(const float* p, const float* threshold, __mmask16 valid) {
  __m512 u = _mm512_maskz_loadu_ps(valid, p);
  if (threshold) u = _mm512_maskz_add_ps(valid, u, _mm512_maskz_loadu_ps(valid, threshold));
  return _mm512_cmp_ps_mask(u, _mm512_setzero_ps(), _CMP_LT_OQ);
}

void sign_pack_rows_avx512(word_t* bits, const float* x, const float* threshold, int64_t rows, int64_t C) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t base = 0; base < C; base += kWordBits) {
      const float* p = x + i * C + base;
      const float* t = threshold ? threshold + base : nullptr;
      word_t valid = valid_mask(C, base / kWordBits);
      *bits++ = sign_mask16(p, t, (__mmask16)valid) | sign_mask16(p + 16, t ? t + 16 : nullptr, (__mmask16)(valid >> 16)) << 16;
    }
  }
}

void sign_unpack_rows_avx512(float* x, const word_t* bits, int64_t rows, int64_t C) { sign_unpack_loop(x, bits, rows, C); }

}  // namespace bireal::cpu
