#include <cmath>

#include "ops/finite_norm/finite_norm.h"

namespace bireal::ref {

void finite_norm(StepState* state, const float* g, const double* metrics, int64_t count) {
  double total = 0;
  for (int64_t block = 0; block < count; block += 65536) {
    double partial[8] = {};
    for (int64_t i = block; i < count && i < block + 65536; ++i) partial[i % 8] += double(g[i]) * double(g[i]);
    double sum = 0;
    for (double p : partial) sum += p;
    total += sum;
  }
  state->grad_norm = std::sqrt(total);
  state->nonfinite = std::isfinite(state->grad_norm) && std::isfinite(metrics[0]) ? 0 : 1;
}

}  // namespace bireal::ref
