#include "ops/linear/linear.h"

namespace bireal::ref {

static float graded(float before, double value, GradMode mode) {
  return mode == GradMode::kAccumulate ? before + float(value) : float(value);
}

void linear_fwd(float* y, const float* x, const float* w, const float* bias, int64_t n, int64_t C, int64_t K) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < K; ++k) {
      double sum = bias[k];
      for (int64_t c = 0; c < C; ++c) sum += double(x[i * C + c]) * w[k * C + c];
      y[i * K + k] = float(sum);
    }
}

void linear_bwd_input(float* dx, const float* dy, const float* w, int64_t n, int64_t C, int64_t K) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < C; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += double(dy[i * K + k]) * w[k * C + c];
      dx[i * C + c] = float(sum);
    }
}

void linear_bwd_weight(float* dw, float* dbias, const float* x, const float* dy, int64_t n, int64_t C, int64_t K, GradMode mode) {
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t c = 0; c < C; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += double(dy[i * K + k]) * x[i * C + c];
      dw[k * C + c] = graded(dw[k * C + c], sum, mode);
    }
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += dy[i * K + k];
    dbias[k] = graded(dbias[k], sum, mode);
  }
}

}  // namespace bireal::ref
