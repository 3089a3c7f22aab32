#include <cmath>
#include <vector>

#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool.h"

namespace bireal {

// That every window holds a tap follows from pad < R, S, which Conv2dShape::check requires.
void batch_norm_max_pool_check(const Conv2dShape& shape) {
  shape.check("max_pool");
  require(shape.K == shape.C,
          [&] { return "max_pool: K must equal C, got " + std::to_string(shape.K) + " and " + std::to_string(shape.C); });
  require(shape.taps() <= 255, [&] {
    return "max_pool: R*S must be <= 255 (the index is one byte), got " + std::to_string(shape.R) + "*" + std::to_string(shape.S);
  });
}

}  // namespace bireal

namespace bireal::ref {

// Calls body(output offset, tap, input offset) for each tap inside the image of each window, in (i,p,q), then (r,s) order; c = 0.
template <class Body>
static void for_taps(const Conv2dShape& k, int64_t n, const Body& body) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t p = 0; p < k.P(); ++p)
      for (int64_t q = 0; q < k.Q(); ++q)
        for (int64_t r = 0; r < k.R; ++r)
          for (int64_t s = 0; s < k.S; ++s) {
            const int64_t h = p * k.stride + r - k.pad, w = q * k.stride + s - k.pad;
            if (h >= 0 && h < k.H && w >= 0 && w < k.W)
              body(((i * k.P() + p) * k.Q() + q) * k.C, r * k.S + s, ((i * k.H + h) * k.W + w) * k.C);
          }
}

static bool beats(float v, float winner, float gamma) {
  if (gamma == 0) return false;
  return (gamma < 0 ? v < winner : v > winner) || (std::isnan(v) && !std::isnan(winner));
}

void batch_norm_max_pool_fwd(float* vmax, uint8_t* index, double* sums, const float* v, const float* gamma,
                             const Conv2dShape& shape, int64_t n) {
  int64_t last = -1;  // the window of the tap before
  for_taps(shape, n, [&](int64_t out, int64_t tap, int64_t in) {
    for (int64_t c = 0; c < shape.C; ++c)
      if (out != last || beats(v[in + c], vmax[out + c], gamma[c])) {
        vmax[out + c] = v[in + c];
        index[out + c] = uint8_t(tap);
      }
    last = out;
  });
  if (sums) batch_norm_sums(sums, v, DType::kF32, n * shape.H * shape.W, shape.C);
}

void batch_norm_max_pool_bwd_apply(float* dz, const float* dy, const uint8_t* index, const float* v, const float* coefficients,
                                   const Conv2dShape& shape, int64_t n) {
  std::vector<float> du(size_t(shape.input_count(n)));
  for_taps(shape, n, [&](int64_t out, int64_t tap, int64_t in) {
    for (int64_t c = 0; c < shape.C; ++c)
      if (index[out + c] == tap) du[size_t(in + c)] += dy[out + c];
  });
  batch_norm_bwd_apply(dz, du.data(), v, DType::kF32, coefficients, n * shape.H * shape.W, shape.C);
}

}  // namespace bireal::ref
