// Forward kernel for AVX-512 without VPOPCNTDQ (Skylake to Cascade Lake): see binary_conv_nibble.h. A tile is 8 pixels x 128
// channels: 16 of the 32 registers are accumulators.
#include <immintrin.h>

#include "ops/binary_conv/binary_conv_nibble.h"

namespace bireal::cpu {
namespace {

struct Avx512 {
  using V = __m512i;
  enum { kBytes = 64, kPixels = 8, kVectors = 2, kUnroll = 1 };
  BIREAL_INLINE V zero() { return _mm512_setzero_si512(); }
  BIREAL_INLINE V ones16() { return _mm512_set1_epi16(1); }
  BIREAL_INLINE V load(const void* p) { return _mm512_load_si512(p); }
  BIREAL_INLINE void store(void* p, V v) { _mm512_store_si512(p, v); }
  BIREAL_INLINE void add_shuffled(V& sum, V table, V index) { sum = _mm512_add_epi8(sum, _mm512_shuffle_epi8(table, index)); }
  BIREAL_INLINE V add16(V a, V b) { return _mm512_add_epi16(a, b); }
  BIREAL_INLINE V add32(V a, V b) { return _mm512_add_epi32(a, b); }
  BIREAL_INLINE V sub16(V a, V b) { return _mm512_sub_epi16(a, b); }
  BIREAL_INLINE V multiply_add16(V a, V b) { return _mm512_madd_epi16(a, b); }
  BIREAL_INLINE V unpack_low8(V a, V b) { return _mm512_unpacklo_epi8(a, b); }
  BIREAL_INLINE V unpack_high8(V a, V b) { return _mm512_unpackhi_epi8(a, b); }
  BIREAL_INLINE V unpack_low16(V a, V b) { return _mm512_unpacklo_epi16(a, b); }
  BIREAL_INLINE V unpack_high16(V a, V b) { return _mm512_unpackhi_epi16(a, b); }
  BIREAL_INLINE void store_channels(int16_t* p, V v, int64_t present) {
    _mm512_mask_storeu_epi16(p, present >= 32 ? 0xFFFFFFFFu : (1u << present) - 1u, v);
  }
  template <int kCount>
  BIREAL_INLINE void tile(int64_t width, const BinaryConvTask& task, const uint8_t* weights, int64_t first, int64_t k0,
                          NibbleSums<Avx512, kCount>* sums) {
    switch (width) {
      case 1: nibble_tile<Avx512, 1, kCount>(task, weights, first, k0, sums); break;
      case 2: nibble_tile<Avx512, 2, kCount>(task, weights, first, k0, sums); break;
      case 3: nibble_tile<Avx512, 3, kCount>(task, weights, first, k0, sums); break;
      case 4: nibble_tile<Avx512, 4, kCount>(task, weights, first, k0, sums); break;
      case 5: nibble_tile<Avx512, 5, kCount>(task, weights, first, k0, sums); break;
      case 6: nibble_tile<Avx512, 6, kCount>(task, weights, first, k0, sums); break;
      case 7: nibble_tile<Avx512, 7, kCount>(task, weights, first, k0, sums); break;
      default: nibble_tile<Avx512, 8, kCount>(task, weights, first, k0, sums); break;
    }
  }
};

}  // namespace

void binary_conv_run_i16_avx512(const BinaryConvTask& task) { nibble_run<Avx512>(task); }

}  // namespace bireal::cpu
