// Forward kernel for AVX-512 without VPOPCNTDQ (Skylake to Cascade Lake): see binary_conv_nibble.h. A tile is 4 pairs of pixels x
// 128 channels: 16 of the 32 registers are sums.
#include <immintrin.h>

#include "ops/binary_conv/binary_conv_nibble.h"

namespace bireal::cpu {
namespace {

struct Avx512 {
  using V = __m512i;
  enum { kBytes = 64, kPairs = 4, kVectors = 2, kNarrowPairs = 4 };
  BIREAL_INLINE V zero() { return _mm512_setzero_si512(); }
  BIREAL_INLINE V ones16() { return _mm512_set1_epi16(1); }
  BIREAL_INLINE V load(const void* p) { return _mm512_load_si512(p); }
  BIREAL_INLINE void store(void* p, V v) { _mm512_store_si512(p, v); }
  BIREAL_INLINE void keep([[maybe_unused]] V& v) {
#ifdef __AVX512F__  // not where it is emulated (native/testing/emulated)
    asm("" : "+v"(v));
#endif
  }
  BIREAL_INLINE void shuffle(V& sum, V table, V index) { sum = _mm512_shuffle_epi8(table, index); }
  BIREAL_INLINE void add_shuffled(V& sum, V table, V index) { sum = _mm512_add_epi8(sum, _mm512_shuffle_epi8(table, index)); }
  BIREAL_INLINE void add_halves(V& low, V& high, V bytes) {
    low = _mm512_add_epi8(low, bytes);
    high = _mm512_add_epi8(high, _mm512_srli_epi16(bytes, 4));
  }
  BIREAL_INLINE V bytes16() { return _mm512_set1_epi16(255); }
  BIREAL_INLINE V and_(V a, V b) { return _mm512_and_si512(a, b); }
  BIREAL_INLINE V shift_right8(V a) { return _mm512_srli_epi16(a, 8); }
  BIREAL_INLINE V broadcast16(const int16_t* p) { return _mm512_set1_epi16(*p); }
  BIREAL_INLINE V shift_left2(V a) { return _mm512_slli_epi16(a, 2); }
  BIREAL_INLINE V shift_left4(V a) { return _mm512_slli_epi16(a, 4); }
  BIREAL_INLINE V add16(V a, V b) { return _mm512_add_epi16(a, b); }
  BIREAL_INLINE V add32(V a, V b) { return _mm512_add_epi32(a, b); }
  BIREAL_INLINE V sub16(V a, V b) { return _mm512_sub_epi16(a, b); }
  BIREAL_INLINE V multiply_add16(V a, V b) { return _mm512_madd_epi16(a, b); }
  BIREAL_INLINE V unpack_low16(V a, V b) { return _mm512_unpacklo_epi16(a, b); }
  BIREAL_INLINE V unpack_high16(V a, V b) { return _mm512_unpackhi_epi16(a, b); }
  BIREAL_INLINE void store_channels(int16_t* p, V v, int64_t present) {
    _mm512_mask_storeu_epi16(p, present >= 32 ? 0xFFFFFFFFu : (1u << present) - 1u, v);
  }
};

}  // namespace

void binary_conv_run_i16_avx512(const BinaryConvTask& task) { nibble_run<Avx512>(task); }

}  // namespace bireal::cpu
