// The loops of weight_binarize over filters, one set per instruction set; each is defined in the file compiled for it.
// What does not need intrinsics is written once here, static and always inlined, and vectorised by the compiler.
#pragma once
#include <string.h>

#include "core/bits.h"
#include "ops/weight_binarize/weight_binarize.h"

namespace bireal::cpu {

/// Sum of round(|w| 2^40) of one filter, and whether all of it was in range; filters of `taps` rows of C values.
struct WeightSum {
  uint64_t sum;
  bool in_range;
};

using WeightBinarizeFilter = WeightSum(word_t* bits, const float* w, int64_t taps, int64_t C);
WeightBinarizeFilter weight_binarize_filter, weight_binarize_filter_avx2, weight_binarize_filter_avx512;

using WeightGradientFilter = void(float* g, const float* w, float alpha, int64_t count, WeightGradient rule);
WeightGradientFilter weight_gradient_filter, weight_gradient_filter_avx2, weight_gradient_filter_avx512;

/// Adds 2^52 to a double below 2^49: the low bits of the sum are the nearest integer, ties to even.
BIREAL_INLINE uint64_t round_to_integer(double value) {
  double shifted = value + 0x1p52;
  uint64_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  return bits & 0xFFFFFFFFFFFFFull;
}

/// Up to 32 values into one word; for tails and the portable path.
BIREAL_INLINE word_t binarize_word(const float* w, int64_t count, uint64_t* sum, bool* in_range) {
  word_t word = 0;
  for (int64_t c = 0; c < count; ++c) {
    float magnitude = __builtin_fabsf(w[c]);
    word |= sign_bit(w[c]) << c;
    *sum += round_to_integer((double)magnitude * 0x1p40);
    *in_range &= magnitude < 512.0f;
  }
  return word;
}

BIREAL_INLINE void weight_gradient_loop(float* g, const float* w, float alpha, int64_t count, WeightGradient rule) {
  float inverse_n = 1.0f / (float)count;
  switch (rule) {
    case WeightGradient::kClipped:
      for (int64_t i = 0; i < count; ++i) g[i] = __builtin_fabsf(w[i]) <= 1.0f ? g[i] : 0.0f;
      break;
    case WeightGradient::kMagnitudeAware:
      for (int64_t i = 0; i < count; ++i) g[i] = __builtin_fabsf(w[i]) < 1.0f ? alpha * g[i] : 0.0f;
      break;
    case WeightGradient::kStraightThrough: break;
    case WeightGradient::kXnor:
      for (int64_t i = 0; i < count; ++i) g[i] = g[i] * (inverse_n + (__builtin_fabsf(w[i]) <= 1.0f ? alpha : 0.0f));
      break;
  }
}

}  // namespace bireal::cpu
