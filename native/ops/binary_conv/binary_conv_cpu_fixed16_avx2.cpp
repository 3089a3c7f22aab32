// Fixed-point gradients with AVX2: VPERMD looks up 8 lanes in a table of 8, which hold the sums with the fourth value
// positive; where it is negative, the lane has the complement of the other three bits, and VPSIGND negates the sum.
// See binary_conv_fixed16.h.
#include <immintrin.h>

#include "ops/binary_conv/binary_conv_fixed16_lookup.h"

namespace bireal::cpu {
namespace {

struct Avx2 {
  using V = __m256i;
  enum { kLanes = 8, kEntries = 8, kVectors = 1, kPixels = 8, kChannels = 2, kStreams = 4 };
  BIREAL_INLINE V zero() { return _mm256_setzero_si256(); }
  BIREAL_INLINE V load(const int32_t* p) { return _mm256_load_si256(reinterpret_cast<const V*>(p)); }
  BIREAL_INLINE void store(int32_t* p, V v) { _mm256_store_si256(reinterpret_cast<V*>(p), v); }
  BIREAL_INLINE V add(V a, V b) { return _mm256_add_epi32(a, b); }
  BIREAL_INLINE V table(uint32_t low, uint32_t high) {
    const V first = _mm256_setr_epi16(1, 1, -1, 1, 1, -1, -1, -1, 1, 1, -1, 1, 1, -1, -1, -1);
    const V second = _mm256_setr_epi16(1, 1, 1, 1, 1, 1, 1, 1, -1, 1, -1, 1, -1, 1, -1, 1);
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_set1_epi32(int(low)), first),
                            _mm256_madd_epi16(_mm256_set1_epi32(int(high)), second));
  }
  // Bits 0-2 for VPERMD, the sign and bit 3 (not zero) for VPSIGND.
  BIREAL_INLINE V index(uint64_t nibbles, int64_t part) {
    const V shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const V nibble = _mm256_srlv_epi32(_mm256_set1_epi32(int(uint32_t(nibbles >> (32 * part)))), shifts);
    const V negative = _mm256_srai_epi32(_mm256_slli_epi32(nibble, 28), 31);
    const V low = _mm256_and_si256(_mm256_xor_si256(nibble, negative), _mm256_set1_epi32(7));
    return _mm256_or_si256(_mm256_or_si256(low, _mm256_set1_epi32(8)), _mm256_slli_epi32(negative, 31));
  }
  BIREAL_INLINE V look_up_add(V sum, V index, V table) {
    return _mm256_add_epi32(sum, _mm256_sign_epi32(_mm256_permutevar8x32_epi32(table, index), index));
  }
  BIREAL_INLINE void store_scaled(float* out, V sum, double step, int64_t present) {
    const __m256d factor = _mm256_set1_pd(step);
    const __m128 low = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(sum)), factor));
    const __m128 high = _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(sum, 1)), factor));
    const __m256 value = _mm256_set_m128(high, low);
    if (present >= kLanes) return _mm256_storeu_ps(out, value);
    const V lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(out, _mm256_cmpgt_epi32(_mm256_set1_epi32(int(present)), lanes), value);
  }
};

}  // namespace

const Fixed16Kernel kFixed16Avx2 = Fixed16<Avx2>::kernel("avx2_lookup");

}  // namespace bireal::cpu
