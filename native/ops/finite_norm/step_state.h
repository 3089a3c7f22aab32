// Scalars of a training step that live in memory, not in arguments, so that a captured step can be replayed.
#pragma once

namespace bireal {
/// Layout of the tensor that bireal.backend.StepState describes: 4 doubles.
struct StepState {
  double lr;         // written by the host before the step
  double step;       // 1 for the first optimizer step; written by the host
  double grad_norm;  // Euclidean norm of all gradients, written by finite_norm
  double nonfinite;  // 0, or 1 while loss or gradient is not finite; written by finite_norm, obeyed by optimizers and commit
};

/// Dynamic loss scale of a step whose gradients are 16-bit: 4 doubles beside StepState in device memory. The CPU has none: a
/// scale of 1. softmax_xent multiplies its gradient by `scale`, so every gradient of the step is that many times too large; the
/// optimizers multiply by `unscale`, exactly, because both are powers of two. grad_norm is that of the true gradient.
/// finite_norm stands between them and sets both: unscale = 1/scale for the optimizers of this step, then the scale of the next:
///   finite             good_steps + 1; at growth_interval the scale doubles (to at most 2^24) and good_steps is 0
///   gradient infinite  halved (to no less than 1), good_steps 0. The step is skipped (nonfinite = 1); no error while unscale < 1
///   loss infinite      unchanged: the scale does not touch the loss, so this run is broken
struct LossScale {
  double scale;            // of the coming backward pass; the host starts it, e.g. at 65536
  double unscale;          // of the gradients that finite_norm has seen last
  double good_steps;       // finite steps since the scale changed
  double growth_interval;  // e.g. 2000; written by the host once
};
}  // namespace bireal
