#include "cpu/context.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/batch_norm/batch_norm_max_pool_rows.h"
#include "ops/batch_norm/batch_norm_max_pool_rows_impl.h"

namespace bireal::cpu {

static void fwd_rows_scalar(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row) {
  batch_norm_max_pool_fwd_rows<4>(in, begin_row, end_row);
}
static void bwd_apply_rows_scalar(const BatchNormMaxPoolRows& in, int64_t begin_row, int64_t end_row) {
  batch_norm_max_pool_bwd_apply_rows<4>(in, begin_row, end_row);
}

static void band_scalar(const BatchNormMaxPoolBand& band) { batch_norm_max_pool_band<4>(band); }

static const BatchNormMaxPoolKernels& select_kernels(Isa isa) {
  static constexpr BatchNormMaxPoolKernels scalar = {fwd_rows_scalar, bwd_apply_rows_scalar, band_scalar};
  if (isa >= Isa::kAvx512) return batch_norm_max_pool_kernels_avx512;
  if (isa >= Isa::kAvx2) return batch_norm_max_pool_kernels_avx2;
  return scalar;
}

static BatchNormMaxPoolRows rows_of(const Conv2dShape& k, const float* v) {
  BatchNormMaxPoolRows in = {};
  in.H = k.H, in.W = k.W, in.C = k.C, in.R = k.R, in.S = k.S, in.stride = k.stride, in.pad = k.pad;
  in.P = k.P(), in.Q = k.Q();
  in.v = v;
  return in;
}

void batch_norm_max_pool_fwd(Context& context, float* vmax, uint8_t* index, double* sums, const float* v, const float* gamma,
                             const Conv2dShape& k, int64_t n, void* workspace) {
  BatchNormMaxPoolRows in = rows_of(k, v);
  in.vmax = vmax, in.index = index, in.gamma = gamma;
  BatchNormMaxPoolRowsFn* run = select_kernels(context.isa()).fwd;
  context.rows(n * in.P, in.Q * k.C * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) { run(in, begin, end); });
  if (sums) batch_norm_sums(context, sums, v, DType::kF32, n * k.H * k.W, k.C, workspace);
}

void batch_norm_max_pool_band(const Context& context, const BatchNormMaxPoolBand& band) {
  select_kernels(context.isa()).band(band);
}

void batch_norm_max_pool_bwd_apply(Context& context, float* dz, const float* dy, const uint8_t* index, const float* v,
                                   const float* coefficients, const Conv2dShape& k, int64_t n) {
  BatchNormMaxPoolRows in = rows_of(k, v);
  in.dz = dz, in.dy = dy, in.chosen = index, in.coefficients = coefficients;
  BatchNormMaxPoolRowsFn* run = select_kernels(context.isa()).bwd_apply;
  context.rows(n * in.H, in.W * k.C * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) { run(in, begin, end); });
}

}  // namespace bireal::cpu
