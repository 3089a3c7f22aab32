#include <vector>

#include "ops/conv2d/conv2d.h"

namespace bireal::ref {
namespace {

// Calls term(i, j) for every tap (r, s) of output pixel (image, p, q) inside the image: i is the offset of the C inputs of the
// pixel it falls on, j that of the tap in one filter [R,S,C].
template <class Term>
void each_tap(const Conv2dShape& s, int64_t image, int64_t p, int64_t q, const Term& term) {
  for (int64_t r = 0; r < s.R; ++r)
    for (int64_t t = 0; t < s.S; ++t) {
      int64_t h = p * s.stride + r - s.pad, w = q * s.stride + t - s.pad;
      if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
      term(((image * s.H + h) * s.W + w) * s.C, (r * s.S + t) * s.C);
    }
}

// Calls body(image, p, q, o) for every output pixel; o is the offset of its K outputs.
template <class Body>
void each_pixel(const Conv2dShape& s, int64_t n, const Body& body) {
  for (int64_t image = 0; image < n; ++image)
    for (int64_t p = 0; p < s.P(); ++p)
      for (int64_t q = 0; q < s.Q(); ++q) body(image, p, q, ((image * s.P() + p) * s.Q() + q) * s.K);
}

}  // namespace

void conv2d_fwd(float* y, const float* x, const float* w, const Conv2dShape& s, int64_t n) {
  each_pixel(s, n, [&](int64_t image, int64_t p, int64_t q, int64_t o) {
    for (int64_t k = 0; k < s.K; ++k) {
      const float* filter = w + k * s.taps() * s.C;
      double sum = 0;
      each_tap(s, image, p, q, [&](int64_t i, int64_t j) {
        for (int64_t c = 0; c < s.C; ++c) sum += double(x[i + c]) * filter[j + c];
      });
      y[o + k] = float(sum);
    }
  });
}

void conv2d_bwd_input(float* dx, const float* dy, const float* w, const Conv2dShape& s, int64_t n) {
  std::vector<double> sum(size_t(s.input_count(n)), 0.0);
  each_pixel(s, n, [&](int64_t image, int64_t p, int64_t q, int64_t o) {
    for (int64_t k = 0; k < s.K; ++k) {
      const float* filter = w + k * s.taps() * s.C;
      each_tap(s, image, p, q, [&](int64_t i, int64_t j) {
        for (int64_t c = 0; c < s.C; ++c) sum[size_t(i + c)] += double(dy[o + k]) * filter[j + c];
      });
    }
  });
  for (size_t i = 0; i < sum.size(); ++i) dx[i] = float(sum[i]);
}

void conv2d_bwd_weight(float* dw, const float* x, const float* dy, const Conv2dShape& s, int64_t n, GradMode mode) {
  std::vector<double> sum(size_t(s.K * s.taps() * s.C), 0.0);
  each_pixel(s, n, [&](int64_t image, int64_t p, int64_t q, int64_t o) {
    for (int64_t k = 0; k < s.K; ++k) {
      double* filter = sum.data() + k * s.taps() * s.C;
      each_tap(s, image, p, q, [&](int64_t i, int64_t j) {
        for (int64_t c = 0; c < s.C; ++c) filter[j + c] += double(dy[o + k]) * x[i + c];
      });
    }
  });
  for (size_t i = 0; i < sum.size(); ++i) dw[i] = mode == GradMode::kAccumulate ? dw[i] + float(sum[i]) : float(sum[i]);
}

}  // namespace bireal::ref
