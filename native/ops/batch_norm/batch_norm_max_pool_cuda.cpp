#include <algorithm>

#include "cuda/launch.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/batch_norm/batch_norm_max_pool_params.h"
#include "ops/pool2d/pool2d.h"

namespace bireal::cuda {

// What the sums need of the shared memory beside the windows.
static constexpr int64_t kSumsBytes = 2 * 8 * 32 * int64_t(sizeof(double));
// Blocks of bwd_sums for each 32 channels: enough to fill any GPU, few enough that their sums are small beside what they read.
static constexpr int64_t kMaxSlices = 1024;

namespace {
struct Tiling {
  PoolTiles tiles;
  int64_t shared_bytes;
};
}  // namespace

static int64_t stored_bytes(DType type) { return type == DType::kF32 ? 4 : 2; }

// The largest tile of 16, 8, 4, 2 or 1 pixels whose staged values fit; forward a tile of 16 would make too much of the fit.
static Tiling tiling(const char* pass, const Conv2dShape& shape, DType type, int64_t n, bool forward) {
  for (int64_t tile = forward ? 8 : 16; tile >= 1; tile /= 2) {
    const int64_t taps = std::max(shape.R, shape.S);
    const int64_t staged = forward ? (tile - 1) * shape.stride + taps : (tile + taps - 2) / shape.stride + 1;
    const int64_t bytes = forward ? staged * staged * 32 * stored_bytes(type) + tile * tile * int64_t(sizeof(word_t))
                                  : staged * staged * 32 * (stored_bytes(type) + 1);
    if (staged > 1024 || bytes + (forward ? 0 : kSumsBytes) > kSharedBytes) continue;
    const int64_t rows = ceil_div(forward ? shape.P() : shape.H, tile), columns = ceil_div(forward ? shape.Q() : shape.W, tile);
    return {{int32_t(tile), int32_t(staged), int32_t(rows), int32_t(columns), uint32_t(rows * columns * n)}, bytes};
  }
  throw InvalidArgument(std::string(pass) + ": the windows of " + shape.text() +
                        " do not fit shared memory; use batch_norm_apply, " + "max_pool and sign_pack one after the other");
}

static int64_t slice_count(const PoolTiles& tiles) { return std::min<int64_t>(tiles.count, kMaxSlices); }

void batch_norm_max_pool_check(const Conv2dShape& shape, DType type) {
  max_pool_check(shape);
  pool_shape("batch_norm_max_pool", shape, shape.H * shape.W, shape.N);
  tiling("batch_norm_max_pool_fwd", shape, type, shape.N, true);
  tiling("batch_norm_max_pool_bwd", shape, type, shape.N, false);
}

int64_t batch_norm_max_pool_workspace_bytes(const Conv2dShape& shape, DType type) {
  const Tiling t = tiling("batch_norm_max_pool_bwd", shape, type, shape.N, false);
  return slice_count(t.tiles) * 2 * shape.C * int64_t(sizeof(double));
}

void batch_norm_max_pool_fwd(const Device& device, void* y, uint8_t* index, word_t* bits, const void* v, DType type,
                             const float* affine, const float* threshold, const Conv2dShape& shape, int64_t n, Stream stream) {
  const Tiling t = tiling("batch_norm_max_pool_fwd", shape, type, n, true);
  const BatchNormMaxPoolFwdParams params{
      y, index, bits, v, affine, threshold, pool_shape("batch_norm_max_pool_fwd", shape, shape.P() * shape.Q(), n), t.tiles};
  launch(device, storage_kernel("batch_norm_max_pool_fwd", type),
         LaunchShape(256, t.tiles.count, ceil_div(shape.C, 32), 1, t.shared_bytes), params, stream);
}

void batch_norm_max_pool_bwd_sums(const Device& device, double* sums, const void* dy, const uint8_t* index, const void* v,
                                  DType type, const Conv2dShape& shape, int64_t n, void* workspace, Stream stream) {
  const Tiling t = tiling("batch_norm_max_pool_bwd_sums", shape, type, n, false);
  const int64_t slices = slice_count(t.tiles);
  const BatchNormMaxPoolBwdParams params{nullptr,
                                         sums,
                                         static_cast<double*>(workspace),
                                         dy,
                                         index,
                                         v,
                                         nullptr,
                                         pool_shape("batch_norm_max_pool_bwd_sums", shape, shape.H * shape.W, n),
                                         t.tiles,
                                         int32_t(slices)};
  launch(device, storage_kernel("batch_norm_max_pool_bwd_sums", type),
         LaunchShape(256, slices, ceil_div(shape.C, 32), 1, t.shared_bytes), params, stream);
  launch(device, "batch_norm_max_pool_bwd_slices_f64_kernel", LaunchShape(256, ceil_div(2 * shape.C, 32)), params, stream);
}

void batch_norm_max_pool_bwd_apply(const Device& device, void* dz, const void* dy, const uint8_t* index, const void* v,
                                   DType type, const float* coefficients, const Conv2dShape& shape, int64_t n, Stream stream) {
  const Tiling t = tiling("batch_norm_max_pool_bwd_apply", shape, type, n, false);
  const BatchNormMaxPoolBwdParams params{
      dz,      nullptr, nullptr,      dy,
      index,   v,       coefficients, pool_shape("batch_norm_max_pool_bwd_apply", shape, shape.H * shape.W, n),
      t.tiles, 0};
  launch(device, storage_kernel("batch_norm_max_pool_bwd_apply", type),
         LaunchShape(256, t.tiles.count, ceil_div(shape.C, 32), 1, t.shared_bytes), params, stream);
}

}  // namespace bireal::cuda
