#include "ops/batch_norm/batch_norm_max_pool_rows_impl.h"

namespace bireal::cpu {

static void batch_norm_max_pool_fwd_rows_avx2(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row) {
  batch_norm_max_pool_fwd_rows<8>(in, begin_row, end_row);
}

static void batch_norm_max_pool_bwd_apply_rows_avx2(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row) {
  batch_norm_max_pool_bwd_apply_rows<8>(in, begin_row, end_row);
}

static void batch_norm_max_pool_band_avx2(const BatchNormMaxPoolBand& band) { batch_norm_max_pool_band<8>(band); }

const BatchNormMaxPoolKernels batch_norm_max_pool_kernels_avx2 = {
    batch_norm_max_pool_fwd_rows_avx2, batch_norm_max_pool_bwd_apply_rows_avx2, batch_norm_max_pool_band_avx2};

}  // namespace bireal::cpu
