#include "ops/softmax_xent/softmax_xent.h"

#include <cmath>

namespace bireal::ref {

namespace {
// softmax(x / T) as exp(x[k] / T - largest) / sum.
struct Softmax {
  const float* x;
  double temperature, largest, sum = 0;
  Softmax(const float* row, int64_t K, double T) : x(row), temperature(T), largest(double(row[0]) / T) {
    for (int64_t k = 1; k < K; ++k)
      if (double(x[k]) / T > largest) largest = double(x[k]) / T;
    for (int64_t k = 0; k < K; ++k) sum += std::exp(shifted(k));
  }
  double shifted(int64_t k) const { return double(x[k]) / temperature - largest; }
  double probability(int64_t k) const { return std::exp(shifted(k)) / sum; }
};
}  // namespace

void softmax_xent(double* metrics, float* dlogits, const SoftmaxXent& in, int64_t n, int64_t K, GradMode mode) {
  double total[4] = {0, 0, 0, double(n)};
  for (int64_t i = 0; i < n; ++i) {
    const float* x = in.logits + i * K;
    const float* teacher_row = in.teacher_logits ? in.teacher_logits + i * K : nullptr;
    int64_t label = in.labels[i];
    const Softmax student(x, K, in.temperature), teacher(teacher_row ? teacher_row : x, K, in.temperature);
    auto target = [&](int64_t k) {
      if (teacher_row) return teacher.probability(k);
      return (k == label ? 1 - in.smoothing : 0) + in.smoothing / double(K);
    };
    double loss = 0, log_sum = std::log(student.sum);
    int64_t ahead = 0;
    for (int64_t k = 0; k < K; ++k) {
      loss -= target(k) * (student.shifted(k) - log_sum);
      loss += double(x[k]) - double(x[k]);  // 0, or NaN where the logit is NaN or Inf
      if (teacher_row) loss += double(teacher_row[k]) - double(teacher_row[k]);
      if (x[k] > x[label] || (x[k] == x[label] && k < label)) ++ahead;
    }
    total[0] += loss;
    if (x[label] == x[label]) {  // not a NaN
      total[1] += ahead < 1;
      total[2] += ahead < 5;
    }
    if (dlogits)
      for (int64_t k = 0; k < K; ++k)
        dlogits[i * K + k] = float((student.probability(k) - target(k)) / in.temperature * in.gradient_scale);
  }
  for (int j = 0; j < 4; ++j) metrics[j] = mode == GradMode::kAccumulate ? metrics[j] + total[j] : total[j];
}

}  // namespace bireal::ref
