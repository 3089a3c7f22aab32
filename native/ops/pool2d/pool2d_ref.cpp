#include "ops/pool2d/pool2d.h"

namespace bireal {

void avg_pool_check(const Conv2dShape& shape) {
  shape.check("avg_pool");
  require(shape.K == shape.C,
          [&] { return "avg_pool: K must equal C, got " + std::to_string(shape.K) + " and " + std::to_string(shape.C); });
}

}  // namespace bireal

namespace bireal::ref {

// Calls body(tap, input offset) for each tap of output (p,q) that lies inside the image, in (r,s) order; c = 0.
template <class Body>
static void for_taps(const Conv2dShape& k, int64_t i, int64_t p, int64_t q, const Body& body) {
  for (int64_t r = 0; r < k.R; ++r)
    for (int64_t s = 0; s < k.S; ++s) {
      int64_t h = p * k.stride + r - k.pad, w = q * k.stride + s - k.pad;
      if (h >= 0 && h < k.H && w >= 0 && w < k.W) body(r * k.S + s, ((i * k.H + h) * k.W + w) * k.C);
    }
}

// Calls body(i, p, q, output offset) for each output pixel, in (i,p,q) order.
template <class Body>
static void for_windows(const Conv2dShape& k, int64_t n, const Body& body) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t p = 0; p < k.P(); ++p)
      for (int64_t q = 0; q < k.Q(); ++q) body(i, p, q, ((i * k.P() + p) * k.Q() + q) * k.C);
}

void avg_pool_fwd(float* y, const float* x, const Conv2dShape& shape, int64_t n) {
  for_windows(shape, n, [&](int64_t i, int64_t p, int64_t q, int64_t out) {
    for (int64_t c = 0; c < shape.C; ++c) {
      float sum = 0;
      for_taps(shape, i, p, q, [&](int64_t, int64_t in) { sum += x[in + c]; });
      y[out + c] = sum / float(shape.taps());
    }
  });
}

void avg_pool_bwd(float* dx, const float* dy, const Conv2dShape& shape, int64_t n) {
  for (int64_t j = 0; j < shape.input_count(n); ++j) dx[j] = 0;
  for_windows(shape, n, [&](int64_t i, int64_t p, int64_t q, int64_t out) {
    for_taps(shape, i, p, q, [&](int64_t, int64_t in) {
      for (int64_t c = 0; c < shape.C; ++c) dx[in + c] += dy[out + c];
    });
  });
  for (int64_t j = 0; j < shape.input_count(n); ++j) dx[j] /= float(shape.taps());
}

}  // namespace bireal::ref
