#include <cmath>

#include "ops/sgd/sgd.h"

namespace bireal::ref {

void sgd(float* p, float* b, const float* g, const Segment* segments, int64_t segment_count, const StepState* state,
         double momentum, SgdForm form) {
  if (state->nonfinite != 0) return;
  const float lr = float(state->lr), mu = float(momentum);
  for (int64_t s = 0; s < segment_count; ++s) {
    const float decay = float(segments[s].decay);
    for (int64_t i = segments[s].begin; i < segments[s].begin + segments[s].count; ++i) {
      float gradient = std::fma(decay, p[i], g[i]);
      if (form == SgdForm::kPyTorch) {
        b[i] = std::fma(mu, b[i], gradient);
        p[i] = p[i] - lr * b[i];
      } else {
        b[i] = std::fma(mu, b[i], lr * gradient);
        p[i] = p[i] - b[i];
      }
    }
  }
}

}  // namespace bireal::ref
