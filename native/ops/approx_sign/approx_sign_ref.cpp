#include <cmath>

#include "ops/approx_sign/approx_sign.h"

namespace bireal::ref {

void approx_sign_bwd(float* dx, const float* db, const float* x, const float* threshold, const float* shortcut, int64_t rows,
                     int64_t C, ActivationGradient kind) {
  for (int64_t i = 0; i < rows * C; ++i) {
    float u = threshold ? x[i] + threshold[i % C] : x[i];
    float surrogate;
    if (std::isnan(u))
      surrogate = 0.0f;
    else if (kind == ActivationGradient::kApproxSign)
      surrogate = std::fmax(0.0f, 2.0f - 2.0f * std::fabs(u));
    else
      surrogate = std::fabs(u) <= 1.0f ? 1.0f : 0.0f;
    float product = db[i] * surrogate;
    dx[i] = shortcut ? shortcut[i] + product : product;
  }
}

}  // namespace bireal::ref
