#include "ops/pool2d/pool2d_rows.h"
#include "ops/pool2d/pool2d_rows_impl.h"

namespace bireal::cpu {

void avg_pool_fwd_rows_avx2(const PoolRows& pool, int64_t begin_row, int64_t end_row) {
  avg_pool_fwd_rows<8>(pool, begin_row, end_row);
}
void avg_pool_bwd_rows_avx2(const PoolRows& pool, int64_t begin_row, int64_t end_row) {
  avg_pool_bwd_rows<8>(pool, begin_row, end_row);
}

}  // namespace bireal::cpu
