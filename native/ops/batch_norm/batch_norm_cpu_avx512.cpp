#include <immintrin.h>

#include "ops/batch_norm/batch_norm_rows.h"
#include "ops/batch_norm/batch_norm_rows_impl.h"

namespace bireal::cpu {

// 16 elements at p, those outside `valid` read as 0. (The conversions without a mask trip gcc 12's -Wmaybe-uninitialized.)
BIREAL_INLINE __m512 load16(const float* p, __mmask16 valid) { return _mm512_maskz_loadu_ps(valid, p); }
BIREAL_INLINE __m512 load16(const int16_t* p, __mmask16 valid) {
  return _mm512_maskz_cvtepi32_ps(valid, _mm512_maskz_cvtepi16_epi32(valid, _mm256_maskz_loadu_epi16(valid, p)));
}
BIREAL_INLINE __m512 load16(const int32_t* p, __mmask16 valid) {
  return _mm512_maskz_cvtepi32_ps(valid, _mm512_maskz_loadu_epi32(valid, p));
}

// The `valid` ones of 16 channels from c on, at index j: writes y, returns their bits.
template <class T>
BIREAL_INLINE word_t apply16(const BatchNormRows& in, const T* v, int64_t j, int64_t c, __mmask16 valid) {
  __m512 u = _mm512_fmadd_ps(load16(in.scale + c, valid), load16(v + j, valid), load16(in.shift + c, valid));
  if (in.shortcut_scale) {
    u = _mm512_add_ps(u, _mm512_fmadd_ps(load16(in.shortcut_scale + c, valid), load16(in.shortcut + j, valid),
                                         load16(in.shortcut_shift + c, valid)));
  } else if (in.shortcut) {
    u = _mm512_add_ps(u, load16(in.shortcut + j, valid));
  }
  if (in.slope) {
    __m512 w = _mm512_add_ps(u, load16(in.bias1 + c, valid)), scaled = _mm512_mul_ps(load16(in.slope + c, valid), w);
    u = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_GT_OQ), scaled, w);
    u = _mm512_add_ps(u, load16(in.bias2 + c, valid));
  }
  _mm512_mask_storeu_ps(in.y + j, valid, u);
  if (in.threshold) u = _mm512_add_ps(u, load16(in.threshold + c, valid));
  return _mm512_mask_cmp_ps_mask(valid, u, _mm512_setzero_ps(), _CMP_LT_OQ);
}

template <class T>
BIREAL_INLINE void apply_typed(const BatchNormRows in, const T* v) {
  word_t* bits = in.bits;
  for (int64_t i = 0; i < in.rows; ++i)
    for (int64_t base = 0; base < in.C; base += kWordBits) {
      int64_t j = i * in.C + base;
      word_t word;
      if (in.C - base >= kWordBits) {  // constant masks become plain loads and stores
        word = apply16(in, v, j, base, (__mmask16)0xFFFF) | apply16(in, v, j + 16, base + 16, (__mmask16)0xFFFF) << 16;
      } else {
        word_t valid = valid_mask(in.C, base / kWordBits);
        word = apply16(in, v, j, base, (__mmask16)valid) | apply16(in, v, j + 16, base + 16, (__mmask16)(valid >> 16)) << 16;
      }
      if (bits) *bits++ = word;
    }
}

static void batch_norm_apply_rows_avx512(const BatchNormRows& in, int v_type) {
  batch_norm_typed(in.v, v_type, [&](const auto* typed) { apply_typed(in, typed); });
}

static void batch_norm_sums_rows_avx512(void* sums, const void* v, int v_type, int64_t rows, int64_t C) {
  batch_norm_sums_loop<8>(sums, v, v_type, rows, C);
}

static void batch_norm_bwd_sums_rows_avx512(double* sums, const float* dy, const void* v, int v_type, int64_t rows, int64_t C) {
  batch_norm_bwd_sums_loop<8>(sums, dy, v, v_type, rows, C);
}

static void batch_norm_bwd_apply_rows_avx512(float* dz, const float* dy, const void* v, int v_type, const float* coefficients,
                                             int64_t rows, int64_t C) {
  batch_norm_bwd_apply_loop(dz, dy, v, v_type, coefficients, rows, C);
}

static void batch_norm_rprelu_bwd_slice_avx512(double* sums, const BatchNormRows& in, const float* dy, int v_type) {
  batch_norm_rprelu_bwd_rows(sums, in, dy, v_type);
}

const BatchNormKernels batch_norm_kernels_avx512 = {batch_norm_sums_rows_avx512, batch_norm_bwd_sums_rows_avx512,
                                                    batch_norm_apply_rows_avx512, batch_norm_rprelu_bwd_slice_avx512,
                                                    batch_norm_bwd_apply_rows_avx512};

}  // namespace bireal::cpu
