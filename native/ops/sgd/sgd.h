// sgd: stochastic gradient descent with momentum over segments of the flat parameter buffer.
//
//   g' = fma(decay, p, g)
//   PyTorch form:  b = fma(momentum, b, g');      p = p - lr * b        (b starts at 0, so the first step has b = g')
//   Caffe form:    b = fma(momentum, b, lr g');   p = p - b             (they part when lr changes: docs/decisions.md, row 17)
//   in float32; lr and momentum rounded once to float
//
// Shapes    p, b, g [count] float; segments and state as in adam.h
// Range     nothing is written while state.nonfinite != 0
// Aliasing  none.  Allocates nothing.  Workspace  none
// Order     elementwise: the same bits on every ISA and thread count
// Throws    nothing
// Source    PyTorch SGD (dampening 0, no Nesterov); Caffe SGDSolver (networks.md 1C.3)
#pragma once
#include <stdint.h>

#include "ops/adam/adam.h"

namespace bireal {
/// Wire codes of bireal.backend.SgdForm.
enum class SgdForm : int32_t { kPyTorch = 0, kCaffe = 1 };
}  // namespace bireal
namespace bireal::ref {
void sgd(float* p, float* b, const float* g, const Segment* segments, int64_t segment_count, const StepState* state,
         double momentum, SgdForm form);
}
namespace bireal::cpu {
class Context;
void sgd(Context& context, float* p, float* b, const float* g, const Segment* segments, int64_t segment_count,
         const StepState* state, double momentum, SgdForm form);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// One launch over the items, whose filters get new bits and alpha with it: weight_gradient, sgd, weight_binarize_fwd. The same
/// bits as the references. Every pointer is a device address; `scale` or null: step_state.h.
void sgd(const Device& device, float* p, float* b, const float* g, const UpdateItem* items, int64_t item_count,
         const StepState* state, const LossScale* scale, double momentum, SgdForm form, Stream stream);
}  // namespace bireal::cuda
