// adam: Adam over segments of the flat parameter buffer, as PyTorch computes it.
//
//   g' = fma(decay, p, g);   m = fma(beta1, m, (1-beta1) g');   v = fma(beta2, v, ((1-beta2) g') g')
//   p  = p - (lr / (1 - beta1^t)) * (m / (sqrt(v) / sqrt(1 - beta2^t) + eps))
//   in float32, where lr/(1-beta1^t), sqrt(1-beta2^t), 1-beta1 and 1-beta2 are computed in double and rounded once
//
// Shapes    p, g, m, v [count] float; segments [segment_count] of (begin, count, decay): parameters outside every segment are
//           left alone (frozen); state StepState gives lr and t = step
// Range     nothing is written while state.nonfinite != 0
// Aliasing  none.  Allocates nothing.  Workspace  none
// Order     elementwise, sqrt and division correctly rounded: the same bits on every ISA and thread count
// Throws    InvalidArgument from segments_check() only
// Source    Kingma and Ba 2015; PyTorch 1.13 single-tensor form (networks.md 1A.5)
#pragma once
#include <stdint.h>

#include "cuda/forward.h"
#include "ops/finite_norm/step_state.h"

namespace bireal {
/// A run of parameters that share a weight decay. 24 bytes; layout known to bireal.backend.Segments.
struct Segment {
  int64_t begin;
  int64_t count;
  double decay;
};
/// Throws InvalidArgument if a segment leaves [0, count), overlaps its predecessor or has a negative decay.
void segments_check(const Segment* segments, int64_t segment_count, int64_t count);

struct AdamSpec {
  double beta1, beta2, eps;
};
}  // namespace bireal
namespace bireal::ref {
void adam(float* p, float* m, float* v, const float* g, const Segment* segments, int64_t segment_count, const StepState* state,
          const AdamSpec& spec);
}
namespace bireal::cpu {
class Context;
void adam(Context& context, float* p, float* m, float* v, const float* g, const Segment* segments, int64_t segment_count,
          const StepState* state, const AdamSpec& spec);
}  // namespace bireal::cpu
namespace bireal::cuda {
struct UpdateItem;  // update_items.h
/// One launch over the items, whose filters get new bits and alpha with it: weight_gradient, adam, weight_binarize_fwd. The same
/// bits as the references, but that beta^t is rounded by our own power: in one of about 2^20 steps the step size may be off by
/// one unit in the last place. Every pointer is a device address; `scale` or null: step_state.h.
void adam(const Device& device, float* p, float* m, float* v, const float* g, const UpdateItem* items, int64_t item_count,
          const StepState* state, const LossScale* scale, const AdamSpec& spec, Stream stream);
}  // namespace bireal::cuda
