// cast: float32 weights as 16-bit operands, and 16-bit weight gradients as float32 ones, for libraries whose operands and results
// all have one type. Each pass is one launch over all tensors of a network.
//
//   weights     out[i] = w[i], or sign(w[i]) alpha[i / filter_weights] for a binary convolution; rounded once to the stored type
//   gradients   out[i] = x[i], or out[i] += x[i] (one float32 addition)
//
// Shapes    [count] each; weights: w, alpha float, out T; gradients: x T, out float; T is float, half or bfloat16
// Range     any; what is too large for T becomes infinite, a NaN stays one; sign(-0) = sign(NaN) = +1, as sign_pack has it
// Aliasing  none.  Allocates nothing.  Workspace  none
// Order     elementwise: exact
// Throws    InvalidArgument for a tensor of 2^31 or more elements
// Source    mixed precision as of Micikevicius et al. 2018: float32 masters, 16-bit operands
#pragma once
#include <stdint.h>

#include "core/shapes.h"
#include "cuda/forward.h"

// There is no reference: the conversion is the storage type's own (testing/cuda_testing.h has it on the host), and no CPU path:
// the CPU backend stores float32 only.
namespace bireal::cuda {
struct CastWeights {  // one tensor of a launch, on the device
  void* out;
  const float* w;
  const float* alpha;  // [count / filter_weights], or null: w itself
  int64_t count, filter_weights;
};
struct CastGradient {  // one tensor of a launch, on the device
  float* out;
  const void* x;
  int64_t count;
};
/// `tensors` is on the host and not kept.
void cast_weights(const Device& device, const CastWeights* tensors, int64_t count, DType type, Stream stream);
void cast_gradients(const Device& device, const CastGradient* tensors, int64_t count, DType type, GradMode mode, Stream stream);
}  // namespace bireal::cuda
