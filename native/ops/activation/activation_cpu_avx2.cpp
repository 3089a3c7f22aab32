#include "ops/activation/activation_rows.h"
#include "ops/activation/activation_rows_impl.h"

namespace bireal::cpu {

void activation_fwd_rows_avx2(float* y, const float* x, int64_t count, int kind, float slope) {
  activation_fwd_loop(y, x, count, kind, slope);
}

void activation_bwd_rows_avx2(float* dx, const float* dy, const float* x, const float* shortcut, int64_t count, int kind,
                              float slope) {
  activation_bwd_loop(dx, dy, x, shortcut, count, kind, slope);
}

}  // namespace bireal::cpu
