// Parameters of the cast kernels. T: float, half or bfloat16.
#pragma once
#include <stdint.h>

namespace bireal::cuda {
struct CastParams {
  enum { kTensors = 64, kBlockElements = 1024 };
  struct Tensor {
    void* out;           // weights: T [count], gradients: float [count]
    const void* x;       // weights: float [count], gradients: T [count]
    const float* alpha;  // weights: [count / filter_weights], or null
    uint32_t count;
    uint32_t filter_weights;
    uint32_t first_block;
  } tensors[kTensors];
  int32_t tensor_count;
  bool accumulate;  // gradients only
};
}  // namespace bireal::cuda
