#include <algorithm>
#include <limits>

#include "cpu/context.h"
#include "ops/weight_binarize/weight_binarize_rows.h"

namespace bireal::cpu {

WeightSum weight_binarize_filter(word_t* bits, const float* w, int64_t taps, int64_t C) {
  WeightSum result = {0, true};
  for (int64_t tap = 0; tap < taps; ++tap, w += C)
    for (int64_t base = 0; base < C; base += kWordBits)
      *bits++ = binarize_word(w + base, std::min<int64_t>(C - base, kWordBits), &result.sum, &result.in_range);
  return result;
}

void weight_gradient_filter(float* g, const float* w, float alpha, int64_t count, WeightGradient rule) {
  weight_gradient_loop(g, w, alpha, count, rule);
}

static WeightBinarizeFilter* select_binarize(Isa isa) {
  if (isa >= Isa::kAvx512) return weight_binarize_filter_avx512;
  if (isa >= Isa::kAvx2) return weight_binarize_filter_avx2;
  return weight_binarize_filter;
}

static WeightGradientFilter* select_gradient(Isa isa) {
  if (isa >= Isa::kAvx512) return weight_gradient_filter_avx512;
  if (isa >= Isa::kAvx2) return weight_gradient_filter_avx2;
  return weight_gradient_filter;
}

void weight_binarize_fwd(Context& context, word_t* bits, float* alpha, const float* w, int64_t K, int64_t taps, int64_t C) {
  WeightBinarizeFilter* run = select_binarize(context.isa());
  int64_t n = taps * C, words = taps * word_count(C);
  context.rows(K, n * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      WeightSum result = run(bits + k * words, w + k * n, taps, C);
      alpha[k] =
          result.in_range ? float(double(int64_t(result.sum)) / (double(n) * 0x1p40)) : std::numeric_limits<float>::quiet_NaN();
    }
  });
}

void weight_gradient(Context& context, float* g, const float* w, const float* alpha, int64_t K, int64_t taps, int64_t C,
                     WeightGradient rule) {
  WeightGradientFilter* run = select_gradient(context.isa());
  int64_t n = taps * C;
  context.rows(K, n * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) run(g + k * n, w + k * n, alpha[k], n, rule);
  });
}

}  // namespace bireal::cpu
