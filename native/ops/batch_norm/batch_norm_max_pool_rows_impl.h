// The row kernel of batch_norm_max_pool, written once: `Vec` is the instruction set, a struct with kLanes, vectors of
// gcc's extension of so many elements (Floats, Ints, Shorts, Bytes), and always inlined fma() and negative(). Each v is
// normalised anew in every window that holds it (2.25 times for 3x3/2): that is cheaper than storing it.
#pragma once
#include "ops/batch_norm/batch_norm_max_pool_rows.h"

namespace bireal::cpu {

/// The maximum of one channel's window and its tap, as max_pool: the first of equals, the first NaN.
BIREAL_INLINE float batch_norm_max_pool_one(const BatchNormMaxPoolRows& k, const float* image, int64_t h0, int64_t w0, int64_t c,
                                            uint8_t* index) {
  float best = 0;
  int64_t where = -1;
  for (int64_t r = h0 < 0 ? -h0 : 0; r < k.R && h0 + r < k.H; ++r)
    for (int64_t s = w0 < 0 ? -w0 : 0; s < k.S && w0 + s < k.W; ++s) {
      float u = __builtin_fmaf(k.scale[c], image[((h0 + r) * k.W + w0 + s) * k.C + c], k.shift[c]);
      if (where < 0 || (!(u <= best) && best == best)) best = u, where = r * k.S + s;
    }
  *index = (uint8_t)where;
  return best;
}

template <class Vec>
BIREAL_INLINE void batch_norm_max_pool_rows(const BatchNormMaxPoolRows& k, int64_t begin_row, int64_t end_row) {
  using Floats = typename Vec::Floats;
  using Ints = typename Vec::Ints;
  using Bytes = typename Vec::Bytes;
  const int64_t words = word_count(k.C);
  for (int64_t row = begin_row; row < end_row; ++row) {
    const int64_t h0 = row % k.P * k.stride - k.pad;
    const int64_t r0 = h0 < 0 ? -h0 : 0, r1 = h0 + k.R > k.H ? k.H - h0 : k.R;
    const float* image = k.v + row / k.P * k.H * k.W * k.C;
    for (int64_t q = 0; q < k.Q; ++q) {
      const int64_t w0 = q * k.stride - k.pad, out = (row * k.Q + q) * k.C;
      const int64_t s0 = w0 < 0 ? -w0 : 0, s1 = w0 + k.S > k.W ? k.W - w0 : k.S;
      for (int64_t word = 0; word < words; ++word) {
        word_t bits = 0;
        const int64_t end = k.C - word * kWordBits < kWordBits ? k.C : (word + 1) * kWordBits;
        int64_t c = word * kWordBits;
        for (; c + Vec::kLanes <= end; c += Vec::kLanes) {
          Floats scale, shift, u, best = {};
          Ints where = {};
          __builtin_memcpy(&scale, k.scale + c, sizeof scale);
          __builtin_memcpy(&shift, k.shift + c, sizeof shift);
          const float* line = image + ((h0 + r0) * k.W + w0) * k.C + c;
          for (int64_t r = r0; r < r1; ++r, line += k.W * k.C)
            for (int64_t s = s0; s < s1; ++s) {
              __builtin_memcpy(&u, line + s * k.C, sizeof u);
              u = Vec::fma(scale, u, shift);
              if (r == r0 && s == s0) {
                best = u;
                where = Ints{} + (int32_t)(r * k.S + s);
                continue;
              }
              // Not <=: greater, or one of the two is a NaN; and then it is u, if best is not.
              Ints take = ~(u <= best) & (best == best);
              best = take ? u : best;
              where = take ? Ints{} + (int32_t)(r * k.S + s) : where;
            }
          // Through 16 bits: gcc 12 takes a step of four sizes apart into single elements.
          Bytes bytes = __builtin_convertvector(__builtin_convertvector(where, typename Vec::Shorts), Bytes);
          __builtin_memcpy(k.y + out + c, &best, sizeof best);
          __builtin_memcpy(k.index + out + c, &bytes, sizeof bytes);
          if (k.threshold) {
            __builtin_memcpy(&u, k.threshold + c, sizeof u);
            best += u;
          }
          bits |= Vec::negative(best) << (c - word * kWordBits);
        }
        for (; c < end; ++c) {
          float best = batch_norm_max_pool_one(k, image, h0, w0, c, k.index + out + c);
          k.y[out + c] = best;
          bits |= sign_bit(k.threshold ? best + k.threshold[c] : best) << (c - word * kWordBits);
        }
        if (k.bits) k.bits[(row * k.Q + q) * words + word] = bits;
      }
    }
  }
}

}  // namespace bireal::cpu
