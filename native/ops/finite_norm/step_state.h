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
}  // namespace bireal
