#include "ops/adam/adam_rows.h"

namespace bireal::cpu {
void adam_rows_avx2(float* p, float* m, float* v, const float* g, int64_t count, const AdamConstants* a) {
  adam_rows(p, m, v, g, count, a);
}
}  // namespace bireal::cpu
