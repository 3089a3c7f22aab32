#include "ops/finite_norm/finite_norm_rows.h"

namespace bireal::cpu {
double finite_norm_sum_avx2(const float* g, int64_t count) { return finite_norm_sum(g, count); }
}  // namespace bireal::cpu
