#include <cmath>
#include <limits>

#include "core/error.h"
#include "ops/weight_binarize/weight_binarize.h"

namespace bireal {

void weight_binarize_check(int64_t K, int64_t taps, int64_t C) {
  auto text = [&] { return "got K " + std::to_string(K) + ", taps " + std::to_string(taps) + ", C " + std::to_string(C); };
  require(K >= 1 && taps >= 1 && C >= 1, [&] { return "weight_binarize: K, taps and C must be >= 1, " + text(); });
  // 2^14 values of at most 2^49 each: their sum stays below 2^63.
  require(taps < (1 << 14) && C < (1 << 14) && taps * C < (1 << 14),
          [&] { return "weight_binarize: taps*C must be < 2^14, " + text(); });
}

namespace ref {

void weight_binarize_fwd(word_t* bits, float* alpha, const float* w, int64_t K, int64_t taps, int64_t C) {
  int64_t Cw = word_count(C), n = taps * C;
  for (int64_t i = 0; i < K * taps * Cw; ++i) bits[i] = 0;
  for (int64_t k = 0; k < K; ++k) {
    int64_t sum = 0;
    bool in_range = true;
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t c = 0; c < C; ++c) {
        float value = w[(k * taps + tap) * C + c];
        bits[(k * taps + tap) * Cw + c / kWordBits] |= sign_bit(value) << (c % kWordBits);
        if (std::fabs(value) < 512.0f)
          sum += std::llrint(std::fabs(double(value)) * 0x1p40);
        else
          in_range = false;
      }
    alpha[k] = in_range ? float(double(sum) / (double(n) * 0x1p40)) : std::numeric_limits<float>::quiet_NaN();
  }
}

void weight_gradient(float* g, const float* w, const float* alpha, int64_t K, int64_t taps, int64_t C, WeightGradient rule) {
  int64_t n = taps * C;
  float inverse_n = 1.0f / float(n);
  for (int64_t k = 0; k < K; ++k)
    for (int64_t i = k * n; i < (k + 1) * n; ++i) {
      float magnitude = std::fabs(w[i]);
      switch (rule) {
        case WeightGradient::kClipped: g[i] = magnitude <= 1.0f ? g[i] : 0.0f; break;
        case WeightGradient::kMagnitudeAware: g[i] = magnitude < 1.0f ? alpha[k] * g[i] : 0.0f; break;
        case WeightGradient::kStraightThrough: break;
        case WeightGradient::kXnor: g[i] = g[i] * (inverse_n + (magnitude <= 1.0f ? alpha[k] : 0.0f)); break;
      }
    }
}

}  // namespace ref
}  // namespace bireal
