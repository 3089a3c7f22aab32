#include <immintrin.h>

#include "ops/batch_norm/batch_norm_max_pool_rows_impl.h"

namespace bireal::cpu {
namespace {

struct Avx512 {
  enum { kLanes = 16 };
  typedef float Floats __attribute__((vector_size(64)));
  typedef int32_t Ints __attribute__((vector_size(64)));
  typedef uint16_t Shorts __attribute__((vector_size(32)));
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  BIREAL_INLINE Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
  BIREAL_INLINE word_t negative(Floats x) { return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_LT_OQ); }
};

}  // namespace

void batch_norm_max_pool_rows_avx512(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row) {
  batch_norm_max_pool_rows<Avx512>(in, begin_row, end_row);
}

}  // namespace bireal::cpu
