// softmax_xent: softmax cross-entropy with label smoothing or a teacher, its gradient, and the metrics of the batch.
//
//   p = softmax(logits[i]),  t = (1-smoothing) onehot(label) + smoothing/K,  or, with a teacher (smoothing ignored),
//   p = softmax(logits[i] / T),  t = softmax(teacher_logits[i] / T),  T = temperature > 0
//   loss = -sum_k t_k log p_k;   dlogits[i,k] = (p_k - t_k) / T * gradient_scale  (no factor T^2)
//   metrics[0] += sum_i loss, [1] += top-1 hits, [2] += top-5 hits, [3] += n        (kOverwrite: = instead of +=)
//   a hit: fewer than 1 (5) classes have a logit greater than the label's, or an equal one and a lower index; a NaN logit of the
//   label is no hit
//
// Shapes    logits, dlogits, teacher_logits [n,K] float, labels [n] int32 (0 <= label < K, checked by the loader),
//           metrics [4] double;
//           dlogits may be null (evaluation); labels are needed for the hits also with a teacher; T = 1 without one
// Range     any finite logits: the maximum is subtracted first. NaN or Inf logits (-Inf too), the teacher's likewise, give a
//           NaN loss. n = 0 is allowed
// Aliasing  none.  Allocates nothing.  Workspace  softmax_xent_workspace_bytes(n)
// Order     double inside a row and over rows in order: the same bits for any thread count and ISA
// Throws    nothing
// Source    Szegedy et al. 2016 (smoothing); Liu et al. 2020 and Hinton et al. 2015 (teacher); networks.md 1A.7, 2.3, 7.3
#pragma once
#include "core/shapes.h"
#include "cuda/forward.h"
#include "ops/finite_norm/step_state.h"

namespace bireal {
int64_t softmax_xent_workspace_bytes(int64_t n);
struct SoftmaxXent {
  const float* logits;
  const int32_t* labels;
  const float* teacher_logits;  // or null
  double smoothing;
  double temperature;
  double gradient_scale;  // 1 / images of the global batch
};
}  // namespace bireal
namespace bireal::ref {
void softmax_xent(double* metrics, float* dlogits, const SoftmaxXent& in, int64_t n, int64_t K, GradMode mode);
}
namespace bireal::cpu {
class Context;
void softmax_xent(Context& context, double* metrics, float* dlogits, const SoftmaxXent& in, int64_t n, int64_t K, GradMode mode,
                  void* workspace);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// `type` is that of logits, teacher_logits and dlogits: kF32, kF16 or kBf16; every pointer is a device address. `scale`
/// multiplies the gradient, not the loss; null is 1. Two launches; rows are summed in an order of their own, exp and log are
/// CUDA's: the loss of a row is off by at most (K + 8) 2^-52 of sum_k t_k |log p_k|, that of a batch by (n + K) 2^-52; a gradient
/// by 2^-44 gradient_scale scale before its one rounding. Hits and n are exact.
struct SoftmaxXentCuda {  // SoftmaxXent with other stored types
  const void* logits;
  DType type;
  const int32_t* labels;
  const void* teacher_logits;  // or null
  const LossScale* scale;      // or null
  double smoothing;
  double temperature;
  double gradient_scale;
};
void softmax_xent(const Device& device, double* metrics, void* dlogits, const SoftmaxXentCuda& in, int64_t n, int64_t K,
                  GradMode mode, void* workspace, Stream stream);
}  // namespace bireal::cuda
