#include "ops/sgd/sgd_rows.h"

namespace bireal::cpu {
void sgd_rows_avx2(float* p, float* b, const float* g, int64_t count, const SgdConstants* s) { sgd_rows(p, b, g, count, s); }
}  // namespace bireal::cpu
