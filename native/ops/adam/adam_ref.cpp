#include <cmath>

#include "ops/adam/adam.h"

namespace bireal::ref {

void adam(float* p, float* m, float* v, const float* g, const Segment* segments, int64_t segment_count, const StepState* state,
          const AdamSpec& spec) {
  if (state->nonfinite != 0) return;
  const float step_size = float(state->lr / (1 - std::pow(spec.beta1, state->step)));
  const float root_correction = float(std::sqrt(1 - std::pow(spec.beta2, state->step)));
  const float beta1 = float(spec.beta1), beta2 = float(spec.beta2), eps = float(spec.eps);
  const float rest1 = float(1 - spec.beta1), rest2 = float(1 - spec.beta2);
  for (int64_t s = 0; s < segment_count; ++s) {
    const float decay = float(segments[s].decay);
    for (int64_t i = segments[s].begin; i < segments[s].begin + segments[s].count; ++i) {
      float gradient = std::fma(decay, p[i], g[i]);
      m[i] = std::fma(beta1, m[i], rest1 * gradient);
      v[i] = std::fma(beta2, v[i], (rest2 * gradient) * gradient);
      p[i] = p[i] - step_size * (m[i] / (std::sqrt(v[i]) / root_correction + eps));
    }
  }
}

}  // namespace bireal::ref
