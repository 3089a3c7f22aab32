#include "ops/batch_norm/batch_norm_max_pool_rows_impl.h"

namespace bireal::cpu {

static void batch_norm_max_pool_fwd_rows_avx512(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row) {
  batch_norm_max_pool_fwd_rows<16>(in, begin_row, end_row);
}

static void batch_norm_max_pool_bwd_apply_rows_avx512(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row) {
  batch_norm_max_pool_bwd_apply_rows<16>(in, begin_row, end_row);
}

static void batch_norm_max_pool_band_avx512(const BatchNormMaxPoolBand& band) { batch_norm_max_pool_band<16>(band); }

const BatchNormMaxPoolKernels batch_norm_max_pool_kernels_avx512 = {
    batch_norm_max_pool_fwd_rows_avx512, batch_norm_max_pool_bwd_apply_rows_avx512, batch_norm_max_pool_band_avx512};

}  // namespace bireal::cpu
