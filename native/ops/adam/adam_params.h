// Parameters of the adam kernel.
#pragma once
#include "ops/adam/update_items.h"

namespace bireal::cuda {
struct AdamParams {
  float *p, *m, *v;
  const float* g;
  const UpdateItem* items;  // one a block
  const StepState* state;
  const LossScale* scale;  // or null
  AdamSpec spec;
};
}  // namespace bireal::cuda
