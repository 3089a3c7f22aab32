// Parameters of the kernels in weight_binarize.cu: a table of parameter tensors, by value.
#pragma once
#include <stdint.h>

namespace bireal {
struct BinaryFilters {  // one parameter tensor
  const float* w;       // [K, taps, C]
  float* g;             // [K, taps, C], weight_gradient only
  uint32_t* bits;       // [K, taps, Cw], weight_binarize_fwd only
  float* alpha;         // [K]: written by weight_binarize_fwd, read by weight_gradient
  int32_t K, taps, C;
  int32_t first_block;  // the launch's blocks are filters; this tensor's begin here
};
struct WeightBinarizeParams {
  enum { kTensors = 64 };
  int32_t tensor_count, rule;  // rule: WeightGradient
  BinaryFilters tensors[kTensors];
};
}  // namespace bireal
