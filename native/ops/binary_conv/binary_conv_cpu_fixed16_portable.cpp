// Fixed-point gradients without vector instructions: the same tables, looked up lane by lane. See binary_conv_fixed16.h.
#include "ops/binary_conv/binary_conv_fixed16_lookup.h"

namespace bireal::cpu {
namespace {

struct Portable {
  struct V {
    int32_t lane[16];
  };
  enum { kLanes = 16, kIndexWords = 16, kEntries = 16, kVectors = 2, kPixels = 2, kChannels = 2, kStreams = 1 };
  BIREAL_INLINE V zero() { return V{}; }
  BIREAL_INLINE V load(const int32_t* p) {
    V v;
    memcpy(v.lane, p, sizeof v.lane);
    return v;
  }
  BIREAL_INLINE void store(int32_t* p, const V& v) { memcpy(p, v.lane, sizeof v.lane); }
  BIREAL_INLINE V add_lanes(V a, const V& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] += b.lane[i];
    return a;
  }
  BIREAL_INLINE void store_table(int32_t* out, uint32_t low, uint32_t high) {
    const int32_t value[4] = {int16_t(low & 0xFFFF), int16_t(low >> 16), int16_t(high & 0xFFFF), int16_t(high >> 16)};
    V v{};
    for (int i = 0; i < kEntries; ++i)
      for (int b = 0; b < 4; ++b) v.lane[i] += i >> b & 1 ? -value[b] : value[b];
    store(out, v);
  }
  BIREAL_INLINE void store_index(int32_t* out, const uint64_t* nibbles) {
    V v;
    for (int i = 0; i < kLanes; ++i) v.lane[i] = int32_t(nibbles[0] >> (4 * i) & 15);
    store(out, v);
  }
  BIREAL_INLINE V look_up_add(V sum, const V& index, const V& table) {
    for (int i = 0; i < kLanes; ++i) sum.lane[i] += table.lane[index.lane[i]];
    return sum;
  }
  BIREAL_INLINE void store_scaled(float* out, const V& sum, double step, int64_t present) {
    for (int i = 0; i < kLanes && i < present; ++i) out[i] = float(sum.lane[i] * step);
  }
};

}  // namespace

const Fixed16Kernel kFixed16Portable = Fixed16<Portable>::kernel("portable");

}  // namespace bireal::cpu
