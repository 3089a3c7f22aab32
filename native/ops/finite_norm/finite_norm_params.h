// Parameters of the finite_norm kernels.
#pragma once
#include "ops/adam/update_items.h"

namespace bireal::cuda {
struct FiniteNormParams {
  StepState* state;
  LossScale* scale;  // or null
  const float *g, *p;
  const UpdateItem* items;
  int64_t item_count;
  const double* metrics;
  double* sums;  // [item_count], workspace
};
}  // namespace bireal::cuda
