// cast: float32 values as 16-bit ones and back, for libraries whose operands and results all have one type.
//
//   narrow   out[i] = x[i], rounded once to the stored type            (weights, on their way into a library)
//   widen    out[i] = x[i], or out[i] += x[i] (one float32 addition)    (gradients of weights, on their way back)
//
// Shapes    [count]; narrow: x float, out T; widen: x T, out float; T is float, half or bfloat16
// Range     any; what is too large for T becomes infinite, a NaN stays one
// Aliasing  none.  Allocates nothing.  Workspace  none
// Order     elementwise: exact
// Throws    nothing
// Source    mixed precision as of Micikevicius et al. 2018: float32 masters, 16-bit operands
#pragma once
#include <stdint.h>

#include "core/shapes.h"
#include "cuda/forward.h"

// There is no reference: the conversion is the storage type's own (testing/cuda_testing.h has it on the host), and no CPU path:
// the CPU backend stores float32 only.
namespace bireal::cuda {
void cast_narrow(const Device& device, void* out, DType type, const float* x, int64_t count, Stream stream);
void cast_widen(const Device& device, float* out, const void* x, DType type, int64_t count, GradMode mode, Stream stream);
}  // namespace bireal::cuda
