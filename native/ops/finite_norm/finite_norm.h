// finite_norm: norm of the flat gradient, and the flag that keeps a step with NaN or Inf away from the weights.
//
//   state.grad_norm = sqrt(sum_i g_i^2);   state.nonfinite = 0 if grad_norm and metrics[0] (the loss sum) are finite, else 1
//
// Shapes    g [count] float, metrics [4] double (softmax_xent), state StepState
// Aliasing  none.  Allocates nothing.  Workspace  finite_norm_workspace_bytes(count)
// Order     double; blocks of 65536 elements, 8 interleaved partial sums a block added in order, blocks in order: the same bits
//           for any thread count and ISA
// Throws    nothing
// Source    torchtitan's refusal to step on a non-finite loss; docs/tour.md, "The end of the step"
#pragma once
#include <stdint.h>

#include "cuda/forward.h"
#include "ops/finite_norm/step_state.h"

namespace bireal {
int64_t finite_norm_workspace_bytes(int64_t count);
}
namespace bireal::ref {
void finite_norm(StepState* state, const float* g, const double* metrics, int64_t count);
}
namespace bireal::cpu {
class Context;
void finite_norm(Context& context, StepState* state, const float* g, const double* metrics, int64_t count, void* workspace);
}  // namespace bireal::cpu
namespace bireal::cuda {
struct UpdateItem;  // adam/update_items.h
int64_t finite_norm_workspace_bytes(int64_t item_count);
/// Over the gradients of every item of update_items, those of filters after their rule (weight_binarize.h), which the optimizer
/// applies again: what is in memory stays unruled. `scale` or null: step_state.h. Two launches; sums in double, by item, then
/// over items, in an order of their own: grad_norm is off by at most count * 2^-53 of itself.
void finite_norm(const Device& device, StepState* state, LossScale* scale, const float* g, const float* p,
                 const UpdateItem* items, int64_t item_count, const double* metrics, void* workspace, Stream stream);
}  // namespace bireal::cuda
