// kFixed16 of binary_conv in plain loops: the rule of binary_conv_fixed16.h, sums in 64 bits.
#include <algorithm>
#include <vector>

#include "ops/binary_conv/binary_conv.h"
#include "ops/binary_conv/binary_conv_fixed16.h"

namespace bireal::ref {

namespace {

// One group: its values become q, unless it is left to float32.
struct Group {
  uint32_t magnitude = 0;
  std::vector<int32_t> q;

  explicit Group(const std::vector<float>& values) {
    for (float v : values) magnitude = std::max(magnitude, fixed16_magnitude(v));
    if (!fixed16_fits(magnitude)) return;
    for (float v : values) q.push_back(fixed16_round(v * fixed16_inverse(magnitude)));
  }
  bool fits() const {
    if (!fixed16_fits(magnitude)) return false;
    double squares = 0;
    for (int32_t value : q) squares += double(value) * value;
    return magnitude == 0 || !fixed16_too_spread(squares, int64_t(q.size()));
  }
  float gradient(int64_t sum) const { return float(double(sum) * fixed16_step(magnitude)); }
};

// Calls body(image pixel, tap, output pixel), all within one image, for every tap inside it.
template <class Body>
void for_each_tap(const Conv2dShape& s, const Body& body) {
  for (int64_t p = 0; p < s.P(); ++p)
    for (int64_t q = 0; q < s.Q(); ++q)
      for (int64_t r = 0; r < s.R; ++r)
        for (int64_t t = 0; t < s.S; ++t) {
          const int64_t h = p * s.stride + r - s.pad, w = q * s.stride + t - s.pad;
          if (h >= 0 && h < s.H && w >= 0 && w < s.W) body(h * s.W + w, r * s.S + t, p * s.Q() + q);
        }
}

}  // namespace

int64_t binary_conv_bwd_input_fixed16(float* dx, const float* dz, const float* alpha, const word_t* w, const Conv2dShape& s,
                                      int64_t n) {
  const int64_t Cw = word_count(s.C), outputs = s.output_count(1), inputs = s.input_count(1);
  int64_t fallbacks = 0;
  for (int64_t image = 0; image < n; ++image, dz += outputs, dx += inputs) {
    std::vector<float> values;
    for (int64_t i = 0; i < outputs; ++i) values.push_back(dz[i] * alpha[i % s.K]);
    const Group group(values);
    if (!group.fits()) {
      ++fallbacks;
      binary_conv_bwd_input(dx, dz, alpha, w, s, 1);
      continue;
    }
    for (int64_t c = 0; c < s.C; ++c) {
      std::vector<int64_t> sum(size_t(s.H * s.W), 0);
      for_each_tap(s, [&](int64_t in, int64_t tap, int64_t out) {
        for (int64_t k = 0; k < s.K; ++k)
          sum[size_t(in)] += group.q[size_t(out * s.K + k)] * bit_value(w + (k * s.taps() + tap) * Cw, c);
      });
      for (int64_t i = 0; i < s.H * s.W; ++i) dx[i * s.C + c] = group.gradient(sum[size_t(i)]);
    }
  }
  return fallbacks;
}

int64_t binary_conv_bwd_weight_fixed16(float* dw, const word_t* x, const float* dz, const Conv2dShape& s, int64_t n,
                                       GradMode mode) {
  const int64_t Cw = word_count(s.C), outputs = s.P() * s.Q(), row = s.taps() * s.C;
  std::vector<float> exact;  // made for the first channel that needs it
  int64_t fallbacks = 0;
  for (int64_t k = 0; k < s.K; ++k) {
    std::vector<float> values;
    for (int64_t i = 0; i < n * outputs; ++i) values.push_back(dz[i * s.K + k]);
    const Group group(values);
    auto store = [&](int64_t i, float value) {
      float* target = dw + k * row + i;
      *target = mode == GradMode::kAccumulate ? *target + value : value;
    };
    if (!group.fits()) {
      if (++fallbacks == 1) {
        exact.resize(size_t(s.K * row));
        binary_conv_bwd_weight(exact.data(), x, dz, s, n, GradMode::kOverwrite);
      }
      for (int64_t i = 0; i < row; ++i) store(i, exact[size_t(k * row + i)]);
      continue;
    }
    std::vector<int64_t> sum(size_t(row), 0);
    for (int64_t image = 0; image < n; ++image)
      for_each_tap(s, [&](int64_t in, int64_t tap, int64_t out) {
        const word_t* pixel = x + (image * s.H * s.W + in) * Cw;
        const int64_t q = group.q[size_t(image * outputs + out)];
        for (int64_t c = 0; c < s.C; ++c) sum[size_t(tap * s.C + c)] += q * bit_value(pixel, c);
      });
    for (int64_t i = 0; i < row; ++i) store(i, group.gradient(sum[size_t(i)]));
  }
  return fallbacks;
}

}  // namespace bireal::ref
