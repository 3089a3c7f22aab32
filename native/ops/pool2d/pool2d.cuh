// Device code that average and max-pooling share.
#pragma once
#include "ops/pool2d/pool2d_params.h"

namespace bireal::cuda {

/// Windows along one axis that cover input position `at`: outputs [first, last], `taps` long, of `outputs`.
struct WindowRange {
  int first, last;
};
__device__ __forceinline__ WindowRange windows_over(int at, int taps, int stride, int pad, int outputs) {
  const int before = at + pad - taps;  // the last window start that is too early, if >= 0
  return {before < 0 ? 0 : before / stride + 1, min((at + pad) / stride, outputs - 1)};
}

}  // namespace bireal::cuda
