#include "cpu/context.h"
#include "ops/softmax_xent/softmax_xent.h"

namespace bireal {
int64_t softmax_xent_workspace_bytes(int64_t n) { return n * 4 * int64_t(sizeof(double)); }
}  // namespace bireal

namespace bireal::cpu {

// The reference, a row to a task: nearly all of the time is in libm's exp, about 10 ns an element (512 x 1000: 5 ms on one core),
// and libm chooses its own instruction set, so there is nothing to specialise.
void softmax_xent(Context& context, double* metrics, float* dlogits, const SoftmaxXent& in, int64_t n, int64_t K, GradMode mode,
                  void* workspace) {
  double* row_metrics = static_cast<double*>(workspace);  // [n, 4]
  context.parallel(n, [&](int64_t i, int) {
    SoftmaxXent row = in;
    row.logits += i * K;
    row.labels += i;
    if (row.teacher_logits) row.teacher_logits += i * K;
    ref::softmax_xent(row_metrics + i * 4, dlogits ? dlogits + i * K : nullptr, row, 1, K, GradMode::kOverwrite);
  });
  for (int j = 0; j < 4; ++j) {
    double total = 0;
    for (int64_t i = 0; i < n; ++i) total += row_metrics[i * 4 + j];
    metrics[j] = mode == GradMode::kAccumulate ? metrics[j] + total : total;
  }
}

}  // namespace bireal::cpu
