// Parameters of the activation kernels. T: float, half or bfloat16.
#pragma once
#include <stdint.h>

#include "ops/activation/activation.h"

namespace bireal::cuda {
struct ActivationParams {
  void* out;             // T [count]: y, or dx
  const void* dy;        // T [count], backward only
  const void* x;         // T [count]
  const void* shortcut;  // T [count] or null, backward only
  int64_t count;
  ActivationKind kind;
  float slope;
};
}  // namespace bireal::cuda
