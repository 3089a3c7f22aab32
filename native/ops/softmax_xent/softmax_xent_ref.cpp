#include "ops/softmax_xent/softmax_xent.h"

#include <cmath>

namespace bireal::ref {

void softmax_xent(double* metrics, float* dlogits, const SoftmaxXent& in, int64_t n, int64_t K, GradMode mode) {
  double total[4] = {0, 0, 0, double(n)};
  for (int64_t i = 0; i < n; ++i) {
    const float* x = in.logits + i * K;
    int64_t label = in.labels[i];
    auto target = [&](int64_t k) {
      if (in.soft_targets) return double(in.soft_targets[i * K + k]);
      return (k == label ? 1 - in.smoothing : 0) + in.smoothing / double(K);
    };
    double largest = double(x[0]);
    for (int64_t k = 1; k < K; ++k)
      if (double(x[k]) > largest) largest = double(x[k]);
    double sum = 0;
    for (int64_t k = 0; k < K; ++k) sum += std::exp(double(x[k]) - largest);

    double loss = 0, log_sum = std::log(sum);
    int64_t ahead = 0;
    for (int64_t k = 0; k < K; ++k) {
      loss -= target(k) * (double(x[k]) - largest - log_sum);
      loss += double(x[k]) - double(x[k]);  // 0, or NaN where the logit is NaN or Inf
      if (x[k] > x[label] || (x[k] == x[label] && k < label)) ++ahead;
    }
    total[0] += loss;
    if (x[label] == x[label]) {  // not a NaN
      total[1] += ahead < 1;
      total[2] += ahead < 5;
    }
    if (dlogits)
      for (int64_t k = 0; k < K; ++k)
        dlogits[i * K + k] = float((std::exp(double(x[k]) - largest) / sum - target(k)) * in.gradient_scale);
  }
  for (int j = 0; j < 4; ++j) metrics[j] = mode == GradMode::kAccumulate ? metrics[j] + total[j] : total[j];
}

}  // namespace bireal::ref
