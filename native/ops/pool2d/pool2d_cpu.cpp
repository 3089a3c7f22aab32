#include "cpu/context.h"
#include "ops/pool2d/pool2d.h"
#include "ops/pool2d/pool2d_rows.h"
#include "ops/pool2d/pool2d_rows_impl.h"

namespace bireal::cpu {

static void avg_pool_fwd_rows_scalar(const PoolRows& pool, int64_t begin_row, int64_t end_row) {
  avg_pool_fwd_rows<4>(pool, begin_row, end_row);
}
static void avg_pool_bwd_rows_scalar(const PoolRows& pool, int64_t begin_row, int64_t end_row) {
  avg_pool_bwd_rows<4>(pool, begin_row, end_row);
}

namespace {
struct PoolKernels {
  PoolRowsFn *avg_fwd, *avg_bwd;
};
}  // namespace

static PoolKernels select_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return {avg_pool_fwd_rows_avx512, avg_pool_bwd_rows_avx512};
  if (isa >= Isa::kAvx2) return {avg_pool_fwd_rows_avx2, avg_pool_bwd_rows_avx2};
  return {avg_pool_fwd_rows_scalar, avg_pool_bwd_rows_scalar};
}

static PoolRows pool_rows(const Conv2dShape& k) {
  PoolRows pool = {};
  pool.H = k.H, pool.W = k.W, pool.C = k.C, pool.R = k.R, pool.S = k.S, pool.stride = k.stride, pool.pad = k.pad;
  pool.P = k.P(), pool.Q = k.Q();
  return pool;
}

static void run_rows(Context& context, PoolRowsFn* run, const PoolRows& pool, int64_t row_count, int64_t row_pixels) {
  context.rows(row_count, row_pixels * pool.C * int64_t(sizeof(float)),
               [&](int64_t begin, int64_t end) { run(pool, begin, end); });
}

void avg_pool_fwd(Context& context, float* y, const float* x, const Conv2dShape& shape, int64_t n) {
  PoolRows pool = pool_rows(shape);
  pool.y = y, pool.x = x;
  run_rows(context, select_rows(context.isa()).avg_fwd, pool, n * pool.P, pool.Q);
}

void avg_pool_bwd(Context& context, float* dx, const float* dy, const Conv2dShape& shape, int64_t n) {
  PoolRows pool = pool_rows(shape);
  pool.dx = dx, pool.dy = dy;
  run_rows(context, select_rows(context.isa()).avg_bwd, pool, n * pool.H, pool.W);
}

}  // namespace bireal::cpu
