// pool2d: a warp owns 32 channels of one pixel (of the output forward, of the input backward), a block 8 pixels. Backward
// gathers: each input pixel adds its windows in (p,q) order, so there are no atomics and the order is the reference's. Limited by
// memory.
#include "cuda/warp.cuh"
#include "ops/pool2d/pool2d.cuh"

namespace bireal::cuda {

static constexpr int kPoolThreads = 256;

namespace {
struct Pixel {
  uint32_t index;
  int image, row, column, channel;
  bool inside;
};
}  // namespace

__device__ __forceinline__ Pixel own_pixel(const PoolShape& k, int rows, int columns) {
  Pixel own;
  own.index = blockIdx.x * (kPoolThreads / 32) + threadIdx.x / 32;
  own.column = int(own.index % uint32_t(columns));
  own.row = int(own.index / uint32_t(columns) % uint32_t(rows));
  own.image = int(own.index / uint32_t(columns) / uint32_t(rows));
  own.channel = int(blockIdx.y * 32 + threadIdx.x % 32);
  own.inside = own.index < k.pixels && own.channel < k.C;
  return own;
}

template <class T>
__device__ __forceinline__ void avg_pool_fwd(const PoolFwdParams& params) {
  const PoolShape& k = params.shape;
  const Pixel own = own_pixel(k, k.P, k.Q);
  if (!own.inside) return;
  const T* x = static_cast<const T*>(params.x) + int64_t(own.image) * k.H * k.W * k.C + own.channel;
  float sum = 0;
  for (int r = 0; r < k.R; ++r)
    for (int s = 0; s < k.S; ++s) {
      const int h = own.row * k.stride + r - k.pad, w = own.column * k.stride + s - k.pad;
      if (h >= 0 && h < k.H && w >= 0 && w < k.W) sum += to_float(x[(int64_t(h) * k.W + w) * k.C]);
    }
  static_cast<T*>(params.y)[int64_t(own.index) * k.C + own.channel] = from_float<T>(sum / float(k.R * k.S));
}

template <class T>
__device__ __forceinline__ void avg_pool_bwd(const PoolBwdParams& params) {
  const PoolShape& k = params.shape;
  const Pixel own = own_pixel(k, k.H, k.W);
  if (!own.inside) return;
  const T* dy = static_cast<const T*>(params.dy) + int64_t(own.image) * k.P * k.Q * k.C + own.channel;
  const WindowRange rows = windows_over(own.row, k.R, k.stride, k.pad, k.P);
  const WindowRange columns = windows_over(own.column, k.S, k.stride, k.pad, k.Q);
  float sum = 0;
  for (int p = rows.first; p <= rows.last; ++p)
    for (int q = columns.first; q <= columns.last; ++q) sum += to_float(dy[(int64_t(p) * k.Q + q) * k.C]);
  static_cast<T*>(params.dx)[int64_t(own.index) * k.C + own.channel] = from_float<T>(sum / float(k.R * k.S));
}

BIREAL_STORAGE_ENTRIES(avg_pool_fwd, kPoolThreads, PoolFwdParams, avg_pool_fwd)
BIREAL_STORAGE_ENTRIES(avg_pool_bwd, kPoolThreads, PoolBwdParams, avg_pool_bwd)

}  // namespace bireal::cuda
