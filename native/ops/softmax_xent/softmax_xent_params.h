// Parameters of the softmax_xent kernels. T: float, half or bfloat16.
#pragma once
#include <stdint.h>

#include "ops/finite_norm/step_state.h"

namespace bireal::cuda {
struct SoftmaxXentParams {
  double* metrics;  // [4]
  double* rows;     // [n,4], workspace: loss, top-1 and top-5 hit of each row
  void* dlogits;    // T [n,K], or null
  const void* logits;
  const int32_t* labels;
  const void* teacher_logits;  // T [n,K], or null
  const LossScale* scale;      // of the gradient, or null
  double smoothing, temperature, gradient_scale;
  double rest;  // smoothing / K
  int64_t n;
  int32_t K;
  int32_t accumulate;
};
}  // namespace bireal::cuda
