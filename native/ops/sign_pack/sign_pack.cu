#include "cuda/warp.cuh"
#include "ops/sign_pack/sign_pack_params.h"

namespace bireal {

// A warp packs one word: lane l reads channel l of it, so a load is 32 neighbours, and a ballot makes the word. Each warp takes
// 32 words in a row and lane l keeps word l, so the store is 32 neighbours too. Limiter: bandwidth.
template <class T>
__device__ __forceinline__ void sign_pack_fwd(const SignPackParams& p) {
  const T* x = static_cast<const T*>(p.x);
  const int lane = int(threadIdx.x % 32);
  const int64_t first = (int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32) * 32;
  if (first >= p.word_count) return;
  int64_t row = first / p.Cw;
  int word = int(first - row * p.Cw);
  word_t mine = 0;
  for (int i = 0; i < 32; ++i) {
    const int c = word * kWordBits + lane;
    bool negative = false;
    if (first + i < p.word_count && c < p.C) {
      float u = to_float(x[row * p.C + c]);
      if (p.threshold) u += p.threshold[c];
      negative = sign_bit(u);
    }
    const word_t bits = __ballot_sync(kAllLanes, negative);
    if (i == lane) mine = bits;
    if (++word == p.Cw) word = 0, ++row;
  }
  if (first + lane < p.word_count) p.bits[first + lane] = mine;
}

BIREAL_STORAGE_ENTRIES(sign_pack_fwd, 256, SignPackParams, sign_pack_fwd)

// A thread writes 8 channels where 8 divides C (a byte of bits each), else one. Limiter: bandwidth.
template <class T>
__device__ __forceinline__ void sign_unpack_fwd(const SignUnpackParams& p) {
  const uint32_t item = blockIdx.x * 256u + threadIdx.x;
  if (item >= p.items) return;
  const uint32_t C = uint32_t(p.C), Cw = (C + 31) / 32;
  const bool eights = C % 8 == 0;
  const uint32_t items_of_row = eights ? C / 8 : C, row = item / items_of_row, at = item - row * items_of_row;
  T* x = static_cast<T*>(p.x);
  if (eights) {
    const uint32_t byte = reinterpret_cast<const uint8_t*>(p.bits)[int64_t(row) * Cw * 4 + at];
    constexpr int kAtOnce = sizeof(T) == 4 ? 4 : 8;
#pragma unroll
    for (int part = 0; part < 8; part += kAtOnce) {
      Vec<T, kAtOnce> values;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) values.v[i] = from_float<T>(byte >> (part + i) & 1 ? -1.0f : 1.0f);
      store(x + int64_t(item) * 8 + part, values);
    }
  } else {
    const word_t word = p.bits[int64_t(row) * Cw + at / 32];
    x[item] = from_float<T>(word >> (at % 32) & 1 ? -1.0f : 1.0f);
  }
}

BIREAL_STORAGE_ENTRIES(sign_unpack_fwd, 256, SignUnpackParams, sign_unpack_fwd)

}  // namespace bireal
