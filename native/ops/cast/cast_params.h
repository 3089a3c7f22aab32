// Parameters of the cast kernels. T: float, half or bfloat16.
#pragma once
#include <stdint.h>

namespace bireal::cuda {
struct CastParams {
  void* out;      // narrow: T [count], widen: float [count]
  const void* x;  // narrow: float [count], widen: T [count]
  int64_t count;
  bool accumulate;  // widen only
};
}  // namespace bireal::cuda
