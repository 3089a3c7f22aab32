#include <immintrin.h>

#include "ops/batch_norm/batch_norm_max_pool_rows_impl.h"

namespace bireal::cpu {
namespace {

struct Avx2 {
  enum { kLanes = 8 };
  typedef float Floats __attribute__((vector_size(32)));
  typedef int32_t Ints __attribute__((vector_size(32)));
  typedef uint16_t Shorts __attribute__((vector_size(16)));
  typedef uint8_t Bytes __attribute__((vector_size(8)));
  BIREAL_INLINE Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
  BIREAL_INLINE word_t negative(Floats x) {
    return (word_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_LT_OQ));
  }
};

}  // namespace

void batch_norm_max_pool_rows_avx2(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row) {
  batch_norm_max_pool_rows<Avx2>(in, begin_row, end_row);
}

}  // namespace bireal::cpu
