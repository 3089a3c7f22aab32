#include <algorithm>

#include "cuda/launch.h"
#include "cuda/row_slices.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/batch_norm/batch_norm_max_pool_params.h"

namespace bireal::cuda {

namespace {
struct Tiling {
  PoolTiles tiles;
  LaunchShape launch;
};
}  // namespace

static int64_t stored_bytes(DType type) { return type == DType::kF32 ? 4 : 2; }

// The largest tile of 16, 8, 4, 2 or 1 pixels whose staged values fit beside what the kernel holds for itself (the sums of the
// warps, or the ranges of windows, and constants of the channels); forward a tile of 16 would make too much of the fit.
static Tiling tiling(const char* pass, const Conv2dShape& shape, DType type, int64_t n, bool forward) {
  const int64_t own_bytes = forward ? 2 * kRowBlockThreads * int64_t(sizeof(double)) + 128 : PoolTiles::kMost * 16 + 384;
  for (int64_t tile = forward ? 8 : PoolTiles::kMost; tile >= 1; tile /= 2) {
    const int64_t taps = std::max(shape.R, shape.S);
    const int64_t staged = forward ? (tile - 1) * shape.stride + taps : (tile + taps - 2) / shape.stride + 1;
    const int64_t bytes = staged * staged * 32 * (stored_bytes(type) + (forward ? 0 : 1));
    if (staged > 1024 || bytes + own_bytes > kSharedBytes) continue;
    const int64_t rows = ceil_div(forward ? shape.P() : shape.H, tile), columns = ceil_div(forward ? shape.Q() : shape.W, tile);
    // Forward these are the slices of the sums, of which some may have no tile.
    const int64_t most = row_slice_count(n * shape.H * shape.W, shape.C);
    const int64_t slices = forward ? most : std::min(most, rows * columns * n);
    return {{int32_t(tile), int32_t(staged), int32_t(rows), int32_t(columns), uint32_t(rows * columns * n), int32_t(slices)},
            LaunchShape(kRowBlockThreads, word_count(shape.C) * slices, 1, 1, bytes)};
  }
  throw InvalidArgument(std::string(pass) + ": the windows of " + shape.text() + " do not fit shared memory; use smaller ones");
}

void batch_norm_max_pool_check(const Conv2dShape& shape, DType type) {
  bireal::batch_norm_max_pool_check(shape);
  pool_shape("batch_norm_max_pool", shape, shape.H * shape.W, shape.N);
  tiling("batch_norm_max_pool_fwd", shape, type, shape.N, true);
  tiling("batch_norm_max_pool_bwd_apply", shape, type, shape.N, false);
}

void batch_norm_max_pool_fwd(const Device& device, void* vmax, uint8_t* index, double* sums, const void* v, DType type,
                             const float* gamma, const Conv2dShape& shape, int64_t n, Stream stream) {
  const Tiling t = tiling("batch_norm_max_pool_fwd", shape, type, n, true);
  const BatchNormMaxPoolFwdParams params{
      vmax, index, sums, v, gamma, pool_shape("batch_norm_max_pool_fwd", shape, shape.H * shape.W, n), t.tiles};
  launch(device, storage_kernel("batch_norm_max_pool_fwd", type), t.launch, params, stream);
}

void batch_norm_max_pool_bwd_apply(const Device& device, void* dz, const void* dy, const uint8_t* index, const void* v,
                                   DType type, const float* coefficients, const Conv2dShape& shape, int64_t n, Stream stream) {
  const Tiling t = tiling("batch_norm_max_pool_bwd_apply", shape, type, n, false);
  const BatchNormMaxPoolBwdParams params{
      dz, dy, index, v, coefficients, pool_shape("batch_norm_max_pool_bwd_apply", shape, shape.H * shape.W, n), t.tiles};
  launch(device, storage_kernel("batch_norm_max_pool_bwd_apply", type), t.launch, params, stream);
}

}  // namespace bireal::cuda
