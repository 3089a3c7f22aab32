// Stands before the compiler's <immintrin.h> where BIREAL_EMULATE_ISA is on: AVX-512 by SIMDe (libsimde-dev), with what its 0.7.4
// lacks of what our kernels use, and the tiles of AMX as plain loops (Intel's Intrinsics Guide). So their sources are compiled as
// they are, for AVX2, and their tests run on any machine. Slow; proves arithmetic and addresses, not instruction selection.
#pragma once
#include_next <immintrin.h>
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

namespace bireal::emulated {

/// The same bytes as another type.
template <class To, class From>
inline To bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
template <class T, int kCount>
struct Lanes {
  T lane[kCount];
};

/// Lanes of `mask` from p, which is not read elsewhere; the others are zero.
template <class V, class T>
inline V load(uint64_t mask, const void* p) {
  Lanes<T, sizeof(V) / sizeof(T)> lanes = {};
  for (size_t i = 0; i < sizeof(V) / sizeof(T); ++i)
    if (mask >> i & 1) __builtin_memcpy(&lanes.lane[i], static_cast<const char*>(p) + i * sizeof(T), sizeof(T));
  return bits<V>(lanes);
}
template <class T, class V>
inline void store(void* p, uint64_t mask, const V& v) {
  const auto lanes = bits<Lanes<T, sizeof(V) / sizeof(T)>>(v);
  for (size_t i = 0; i < sizeof(V) / sizeof(T); ++i)
    if (mask >> i & 1) __builtin_memcpy(static_cast<char*>(p) + i * sizeof(T), &lanes.lane[i], sizeof(T));
}
/// The first lanes of `from`, each converted; those outside `mask` are zero.
template <class To, class ToLane, class FromLane, class From>
inline To convert(uint64_t mask, const From& from) {
  const auto in = bits<Lanes<FromLane, sizeof(From) / sizeof(FromLane)>>(from);
  Lanes<ToLane, sizeof(To) / sizeof(ToLane)> out = {};
  for (size_t i = 0; i < sizeof(To) / sizeof(ToLane); ++i)
    if (mask >> i & 1) out.lane[i] = ToLane(in.lane[i]);
  return bits<To>(out);
}

/// To nearest, ties to even, as the processor starts.
template <class To, class From>
inline To round(uint64_t mask, const From& from) {
  auto lanes = bits<Lanes<float, sizeof(From) / sizeof(float)>>(from);
  for (float& lane : lanes.lane) lane = __builtin_rintf(lane);
  return convert<To, int32_t, float>(mask, lanes);
}

template <class V>
inline V shift_right(uint64_t mask, const V& from, int by) {
  auto lanes = bits<Lanes<int32_t, 16>>(from);
  for (int32_t& lane : lanes.lane) lane >>= by;
  return convert<V, int32_t, int32_t>(mask, lanes);
}

/// 128-bit parts: two of a, then two of b, each named by two bits.
template <class V>
inline Lanes<int32_t, 16> shuffle4(const V& a, const V& b, int parts) {
  const Lanes<int32_t, 16> from[2] = {bits<Lanes<int32_t, 16>>(a), bits<Lanes<int32_t, 16>>(b)};
  Lanes<int32_t, 16> out;
  for (int i = 0; i < 16; ++i) out.lane[i] = from[i / 8].lane[(parts >> (i / 4 * 2) & 3) * 4 + i % 4];
  return out;
}

/// The tiles of a thread and their shapes.
struct Tile {
  int rows = 0, row_bytes = 0;
  uint8_t byte[16][64] = {};
};
inline thread_local Tile tiles[8];

inline void load_config(const void* p) {
  const uint8_t* config = static_cast<const uint8_t*>(p);
  for (int t = 0; t < 8; ++t) {
    tiles[t] = Tile();
    uint16_t row_bytes;
    __builtin_memcpy(&row_bytes, config + 16 + 2 * t, sizeof row_bytes);
    tiles[t].row_bytes = row_bytes;
    tiles[t].rows = config[48 + t];
    if (config[0] != 1 || tiles[t].rows > 16 || row_bytes > 64) __builtin_trap();
  }
}
inline void load_tile(Tile& tile, const void* base, int64_t stride) {
  tile = {tile.rows, tile.row_bytes, {}};
  for (int r = 0; r < tile.rows; ++r)
    __builtin_memcpy(tile.byte[r], static_cast<const char*>(base) + r * stride, size_t(tile.row_bytes));
}
inline void store_tile(const Tile& tile, void* base, int64_t stride) {
  for (int r = 0; r < tile.rows; ++r)
    __builtin_memcpy(static_cast<char*>(base) + r * stride, tile.byte[r], size_t(tile.row_bytes));
}
/// sum[m][n] += the four products of a's bytes 4 k.. in row m and b's 4 n.. in row k; a's bytes are A, b's signed.
template <class A>
inline void multiply_tiles(Tile& sum, const Tile& a, const Tile& b) {
  if (a.rows != sum.rows || b.row_bytes != sum.row_bytes || b.rows * 4 != a.row_bytes) __builtin_trap();
  for (int m = 0; m < sum.rows; ++m)
    for (int n = 0; n < sum.row_bytes / 4; ++n) {
      int32_t total;
      __builtin_memcpy(&total, sum.byte[m] + 4 * n, sizeof total);
      for (int k = 0; k < a.row_bytes; ++k) total += int32_t(A(a.byte[m][k])) * int8_t(b.byte[k / 4][4 * n + k % 4]);
      __builtin_memcpy(sum.byte[m] + 4 * n, &total, sizeof total);
    }
}

}  // namespace bireal::emulated

#undef _mm512_madd_epi16  // SIMDe 0.7.4 gives it the arguments of its masked form
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)
#define _mm512_maskz_cvtps_epi32(mask, v) (bireal::emulated::round<simde__m512i, simde__m512>(mask, v))
#define _mm512_maskz_loadu_ps(mask, p) (bireal::emulated::load<simde__m512, float>(mask, p))
#define _mm512_maskz_loadu_epi32(mask, p) (bireal::emulated::load<simde__m512i, int32_t>(mask, p))
#define _mm256_maskz_loadu_epi16(mask, p) (bireal::emulated::load<__m256i, int16_t>(mask, p))
#define _mm512_mask_storeu_ps(p, mask, v) (bireal::emulated::store<float, simde__m512>(p, mask, v))
#define _mm256_mask_storeu_ps(p, mask, v) (bireal::emulated::store<float, __m256>(p, mask, v))
#define _mm512_mask_storeu_epi16(p, mask, v) (bireal::emulated::store<int16_t, simde__m512i>(p, mask, v))
#define _mm512_maskz_cvtepi16_epi32(mask, v) (bireal::emulated::convert<simde__m512i, int32_t, int16_t, __m256i>(mask, v))
#define _mm512_maskz_cvtepi32_ps(mask, v) (bireal::emulated::convert<simde__m512, float, int32_t, simde__m512i>(mask, v))
#define _mm512_maskz_cvtepi32_pd(mask, v) (bireal::emulated::convert<simde__m512d, double, int32_t, __m256i>(mask, v))
#define _mm512_maskz_cvtps_pd(mask, v) (bireal::emulated::convert<simde__m512d, double, float, __m256>(mask, v))
#define _mm512_maskz_cvtpd_ps(mask, v) (bireal::emulated::convert<__m256, float, double, simde__m512d>(mask, v))
#define _mm512_maskz_extractf32x8_ps(mask, v, part) \
  (bireal::emulated::load<__m256, float>(mask, reinterpret_cast<const char*>(&(v)) + 32 * (part)))
#define _mm512_maskz_srlv_epi32(mask, v, by) simde_mm512_maskz_mov_epi32(mask, simde_mm512_srlv_epi32(v, by))
#define _mm512_mask_cmp_ps_mask(mask, a, b, how) simde__mmask16((mask)&simde_mm512_cmp_ps_mask(a, b, how))
#define _mm512_maskz_slli_epi32(mask, v, by) simde_mm512_maskz_mov_epi32(mask, simde_mm512_slli_epi32(v, by))
#define _mm512_maskz_srli_epi32(mask, v, by) simde_mm512_maskz_mov_epi32(mask, simde_mm512_srli_epi32(v, by))
#define _mm512_maskz_srai_epi32(mask, v, by) (bireal::emulated::shift_right(mask, v, by))
#define _mm512_maskz_srli_epi64(mask, v, by) simde_mm512_maskz_mov_epi64(mask, simde_mm512_srli_epi64(v, by))
#define _mm512_maskz_shuffle_i32x4(mask, a, b, parts) \
  (bireal::emulated::load<simde__m512i, int32_t>(mask, bireal::emulated::shuffle4(a, b, parts).lane))
#define _mm512_maskz_cvtepi32_epi8(mask, v) (bireal::emulated::convert<__m128i, int8_t, int32_t, simde__m512i>(mask, v))
#define _tile_loadconfig(p) bireal::emulated::load_config(p)
#define _tile_release() ((void)0)
#define _tile_zero(t) bireal::emulated::load_tile(bireal::emulated::tiles[t], bireal::emulated::Tile().byte, 0)
#define _tile_loadd(t, base, stride) bireal::emulated::load_tile(bireal::emulated::tiles[t], base, stride)
#define _tile_stored(t, base, stride) bireal::emulated::store_tile(bireal::emulated::tiles[t], base, stride)
#define _tile_dpbssd(sum, a, b) \
  bireal::emulated::multiply_tiles<int8_t>(bireal::emulated::tiles[sum], bireal::emulated::tiles[a], bireal::emulated::tiles[b])
#define _tile_dpbusd(sum, a, b) \
  bireal::emulated::multiply_tiles<uint8_t>(bireal::emulated::tiles[sum], bireal::emulated::tiles[a], bireal::emulated::tiles[b])
