#include <vector>

#include "ops/binary_conv/binary_conv.h"

namespace bireal {

DType binary_conv_v_type(const Conv2dShape& shape) { return shape.R * shape.S * shape.C < (1 << 15) ? DType::kI16 : DType::kI32; }

namespace ref {

// Calls body(image pixel, tap, output pixel) for every tap inside the image. Pixels are indices into [n,H,W] and [n,P,Q].
template <class Body>
static void for_each_tap(const Conv2dShape& s, int64_t n, const Body& body) {
  for (int64_t image = 0; image < n; ++image)
    for (int64_t p = 0; p < s.P(); ++p)
      for (int64_t q = 0; q < s.Q(); ++q)
        for (int64_t r = 0; r < s.R; ++r)
          for (int64_t t = 0; t < s.S; ++t) {
            int64_t h = p * s.stride + r - s.pad, w = q * s.stride + t - s.pad;
            if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
            body((image * s.H + h) * s.W + w, r * s.S + t, (image * s.P() + p) * s.Q() + q);
          }
}

void binary_conv_fwd(void* v, DType v_type, int64_t* sums, const word_t* x, const word_t* w, const Conv2dShape& s, int64_t n) {
  int64_t Cw = word_count(s.C);
  for (int64_t k = 0; k < s.K; ++k) {
    auto set = [&](int64_t i, int64_t value) {
      if (v_type == DType::kI16)
        static_cast<int16_t*>(v)[i * s.K + k] = int16_t(value);
      else
        static_cast<int32_t*>(v)[i * s.K + k] = int32_t(value);
    };
    auto get = [&](int64_t i) -> int64_t {
      return v_type == DType::kI16 ? static_cast<int16_t*>(v)[i * s.K + k] : static_cast<int32_t*>(v)[i * s.K + k];
    };
    int64_t pixels = n * s.P() * s.Q();
    for (int64_t i = 0; i < pixels; ++i) set(i, 0);
    for_each_tap(s, n, [&](int64_t in, int64_t tap, int64_t out) {
      int64_t dot = 0;
      for (int64_t c = 0; c < s.C; ++c) dot += bit_value(x + in * Cw, c) * bit_value(w + (k * s.taps() + tap) * Cw, c);
      set(out, get(out) + dot);
    });
    if (!sums) continue;
    sums[k] = sums[s.K + k] = 0;
    for (int64_t i = 0; i < pixels; ++i) sums[k] += get(i), sums[s.K + k] += get(i) * get(i);
  }
}

void binary_conv_bwd_input(float* dx, const float* dz, const float* alpha, const word_t* w, const Conv2dShape& s, int64_t n) {
  int64_t Cw = word_count(s.C), pixels = n * s.H * s.W;
  for (int64_t c = 0; c < s.C; ++c) {
    std::vector<double> sum(static_cast<size_t>(pixels), 0.0);
    for_each_tap(s, n, [&](int64_t in, int64_t tap, int64_t out) {
      for (int64_t k = 0; k < s.K; ++k)
        sum[size_t(in)] += double(dz[out * s.K + k]) * alpha[k] * bit_value(w + (k * s.taps() + tap) * Cw, c);
    });
    for (int64_t i = 0; i < pixels; ++i) dx[i * s.C + c] = float(sum[size_t(i)]);
  }
}

void binary_conv_bwd_weight(float* dw, const word_t* x, const float* dz, const Conv2dShape& s, int64_t n, GradMode mode) {
  int64_t Cw = word_count(s.C);
  for (int64_t k = 0; k < s.K; ++k) {
    std::vector<double> sum(static_cast<size_t>(s.taps() * s.C), 0.0);
    for_each_tap(s, n, [&](int64_t in, int64_t tap, int64_t out) {
      for (int64_t c = 0; c < s.C; ++c) sum[size_t(tap * s.C + c)] += double(dz[out * s.K + k]) * bit_value(x + in * Cw, c);
    });
    for (int64_t i = 0; i < s.taps() * s.C; ++i) {
      float* target = dw + k * s.taps() * s.C + i;
      *target = mode == GradMode::kAccumulate ? *target + float(sum[size_t(i)]) : float(sum[size_t(i)]);
    }
  }
}

}  // namespace ref
}  // namespace bireal
