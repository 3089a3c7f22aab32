// Parameters of the sgd kernels.
#pragma once
#include "ops/adam/update_items.h"

namespace bireal::cuda {
struct SgdParams {
  float *p, *b;
  const float* g;
  const UpdateItem* items;  // one a block
  const StepState* state;
  const LossScale* scale;  // or null
  double momentum;
};
}  // namespace bireal::cuda
