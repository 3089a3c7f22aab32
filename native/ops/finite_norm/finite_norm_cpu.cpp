#include <cmath>

#include "cpu/context.h"
#include "ops/finite_norm/finite_norm.h"
#include "ops/finite_norm/finite_norm_rows.h"

namespace bireal {

static constexpr int64_t kBlock = 65536;
static int64_t block_count(int64_t count) { return (count + kBlock - 1) / kBlock; }

int64_t finite_norm_workspace_bytes(int64_t count) { return block_count(count) * int64_t(sizeof(double)); }

namespace cpu {

static double finite_norm_sum_scalar(const float* g, int64_t count) { return finite_norm_sum(g, count); }

static FiniteNormSum* select_sum(Isa isa) {
  if (isa >= Isa::kAvx512) return finite_norm_sum_avx512;
  if (isa >= Isa::kAvx2) return finite_norm_sum_avx2;
  return finite_norm_sum_scalar;
}

void finite_norm(Context& context, StepState* state, const float* g, const double* metrics, int64_t count, void* workspace) {
  FiniteNormSum* sum = select_sum(context.isa());
  double* sums = static_cast<double*>(workspace);
  const int64_t blocks = block_count(count);
  context.parallel(blocks, [&](int64_t block, int) {
    const int64_t begin = block * kBlock;
    sums[block] = sum(g + begin, count - begin < kBlock ? count - begin : kBlock);
  });
  double total = 0;
  for (int64_t block = 0; block < blocks; ++block) total += sums[block];
  state->grad_norm = std::sqrt(total);
  state->nonfinite = std::isfinite(state->grad_norm) && std::isfinite(metrics[0]) ? 0 : 1;
}

}  // namespace cpu
}  // namespace bireal
