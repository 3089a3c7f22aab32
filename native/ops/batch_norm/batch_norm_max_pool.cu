// batch_norm_max_pool: a block stages, for 32 channels, what the windows of a tile share, so that every value is asked for once
// (1.1 times at most, at the edges of tiles): v forward, dy and index backward. A warp owns 32 channels of a pixel at a time.
// Limited by memory.
#include "cuda/warp.cuh"
#include "ops/batch_norm/batch_norm_max_pool_params.h"
#include "ops/pool2d/pool2d.cuh"

namespace bireal::cuda {

static constexpr int kTileThreads = 256, kTileWarps = kTileThreads / 32;

namespace {
struct Tile {
  int64_t image;
  int row, column;  // first pixel
};
}  // namespace

__device__ __forceinline__ Tile tile_at(const PoolTiles& tiles, uint32_t number) {
  Tile t;
  t.column = int(number % uint32_t(tiles.columns)) * tiles.tile;
  t.row = int(number / uint32_t(tiles.columns) % uint32_t(tiles.rows)) * tiles.tile;
  t.image = number / uint32_t(tiles.columns) / uint32_t(tiles.rows);
  return t;
}

// Shared: v of the tile's windows, T [staged*staged, 32], then one word of bits for each pixel of the tile.
template <class T>
__device__ __forceinline__ void batch_norm_max_pool_fwd(const BatchNormMaxPoolFwdParams& params) {
  extern __shared__ __align__(16) unsigned char shared[];
  const PoolShape& k = params.shape;
  const PoolTiles& tiles = params.tiles;
  T* staged = reinterpret_cast<T*>(shared);
  word_t* words = reinterpret_cast<word_t*>(staged + tiles.staged * tiles.staged * 32);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = int(blockIdx.y * 32) + lane;
  const bool channel = c < k.C;
  const Tile t = tile_at(tiles, blockIdx.x);
  const int rows = min(tiles.tile, k.P - t.row), columns = min(tiles.tile, k.Q - t.column);

  const int top = t.row * k.stride - k.pad, left = t.column * k.stride - k.pad;
  const int high = (rows - 1) * k.stride + k.R, wide = (columns - 1) * k.stride + k.S;
  const T* v = static_cast<const T*>(params.v) + t.image * k.H * k.W * k.C + c;
  for (int j = warp; j < high * wide; j += kTileWarps) {
    const int h = top + j / wide, w = left + j % wide;
    if (channel && h >= 0 && h < k.H && w >= 0 && w < k.W) staged[j * 32 + lane] = v[(int64_t(h) * k.W + w) * k.C];
  }
  __syncthreads();

  const float scale = channel ? params.affine[c] : 0.0f, shift = channel ? params.affine[k.C + c] : 0.0f;
  const float threshold = channel && params.threshold ? params.threshold[c] : 0.0f;
  for (int j = warp; j < rows * columns; j += kTileWarps) {
    const int p = j / columns, q = j % columns;
    bool negative = false;
    if (channel) {
      float best = 0;
      int chosen = -1;
      for (int r = 0; r < k.R; ++r)
        for (int s = 0; s < k.S; ++s) {
          const int h = p * k.stride + r, w = q * k.stride + s;
          if (top + h < 0 || top + h >= k.H || left + w < 0 || left + w >= k.W) continue;
          const float u = fmaf(scale, to_float(staged[(h * wide + w) * 32 + lane]), shift);
          if (chosen < 0 || beats_maximum(u, best)) {
            best = u;
            chosen = r * k.S + s;
          }
        }
      const int64_t out = ((t.image * k.P + t.row + p) * k.Q + t.column + q) * k.C + c;
      const T stored = from_float<T>(best);
      static_cast<T*>(params.y)[out] = stored;
      params.index[out] = uint8_t(chosen);
      negative = sign_bit(params.threshold ? to_float(stored) + threshold : to_float(stored));
    }
    const word_t bits = __ballot_sync(kAllLanes, negative);
    if (lane == 0) words[j] = bits;
  }
  if (!params.bits) return;

  // The words of a tile's row lie side by side, but for the other words of each pixel.
  __syncthreads();
  const int word_count = (k.C + kWordBits - 1) / kWordBits;
  for (int j = threadIdx.x; j < rows * columns; j += kTileThreads) {
    const int64_t pixel = (t.image * k.P + t.row + j / columns) * k.Q + t.column + j % columns;
    params.bits[pixel * word_count + blockIdx.y] = words[j];
  }
}

// The windows over a tile of v: dy T [staged*staged, 32], then index [staged*staged, 32], in shared memory.
template <class T>
struct StagedWindows {
  T* dy;
  uint8_t* index;
  WindowRange rows, columns;

  __device__ __forceinline__ void load(const BatchNormMaxPoolBwdParams& params, const Tile& t, int high, int wide, int c) {
    extern __shared__ __align__(16) unsigned char shared[];
    const PoolShape& k = params.shape;
    dy = reinterpret_cast<T*>(shared);
    index = reinterpret_cast<uint8_t*>(dy + params.tiles.staged * params.tiles.staged * 32);
    rows = {windows_over(t.row, k.R, k.stride, k.pad, k.P).first, windows_over(t.row + high - 1, k.R, k.stride, k.pad, k.P).last};
    columns = {windows_over(t.column, k.S, k.stride, k.pad, k.Q).first,
               windows_over(t.column + wide - 1, k.S, k.stride, k.pad, k.Q).last};
    const int window_columns = columns.last - columns.first + 1, windows = (rows.last - rows.first + 1) * window_columns;
    const int lane = threadIdx.x % 32;
    if (c >= k.C) return;
    for (int j = threadIdx.x / 32; j < windows; j += kTileWarps) {
      const int p = rows.first + j / window_columns, q = columns.first + j % window_columns;
      const int64_t from = ((t.image * k.P + p) * k.Q + q) * k.C + c;
      dy[j * 32 + lane] = static_cast<const T*>(params.dy)[from];
      index[j * 32 + lane] = params.index[from];
    }
  }

  // du of input pixel (h,w): the windows that chose it, in (p,q) order.
  __device__ __forceinline__ float gradient(const PoolShape& k, int h, int w) const {
    const WindowRange over_h = windows_over(h, k.R, k.stride, k.pad, k.P), over_w = windows_over(w, k.S, k.stride, k.pad, k.Q);
    const int window_columns = columns.last - columns.first + 1;
    float sum = 0;
    for (int p = over_h.first; p <= over_h.last; ++p)
      for (int q = over_w.first; q <= over_w.last; ++q) {
        const int j = ((p - rows.first) * window_columns + q - columns.first) * 32 + int(threadIdx.x % 32);
        const int tap = (h + k.pad - p * k.stride) * k.S + (w + k.pad - q * k.stride);
        if (index[j] == tap) sum += to_float(dy[j]);
      }
    return sum;
  }
};

template <class T>
__device__ __forceinline__ void batch_norm_max_pool_bwd_apply(const BatchNormMaxPoolBwdParams& params) {
  const PoolShape& k = params.shape;
  const int c = int(blockIdx.y * 32 + threadIdx.x % 32);
  const Tile t = tile_at(params.tiles, blockIdx.x);
  const int high = min(params.tiles.tile, k.H - t.row), wide = min(params.tiles.tile, k.W - t.column);
  StagedWindows<T> windows;
  windows.load(params, t, high, wide, c);
  __syncthreads();
  if (c >= k.C) return;
  const float a = params.coefficients[c], b = params.coefficients[k.C + c], shift = params.coefficients[2 * k.C + c];
  for (int j = threadIdx.x / 32; j < high * wide; j += kTileWarps) {
    const int h = t.row + j / wide, w = t.column + j % wide;
    const int64_t at = ((t.image * k.H + h) * k.W + w) * k.C + c;
    const float v = to_float(static_cast<const T*>(params.v)[at]);
    static_cast<T*>(params.dz)[at] = from_float<T>(fmaf(a, windows.gradient(k, h, w), fmaf(b, v, shift)));
  }
}

// A block adds the tiles of one slice, in order; its warps are added in order at the end. Slices are cut by the shape.
template <class T>
__device__ __forceinline__ void batch_norm_max_pool_bwd_sums(const BatchNormMaxPoolBwdParams& params) {
  __shared__ double warp_sums[2][kTileWarps][32];
  const PoolShape& k = params.shape;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = int(blockIdx.y * 32) + lane;
  const uint32_t first = uint32_t(uint64_t(params.tiles.count) * blockIdx.x / params.slice_count);
  const uint32_t last = uint32_t(uint64_t(params.tiles.count) * (blockIdx.x + 1) / params.slice_count);
  double sum1 = 0, sum2 = 0;
  for (uint32_t number = first; number < last; ++number) {
    const Tile t = tile_at(params.tiles, number);
    const int high = min(params.tiles.tile, k.H - t.row), wide = min(params.tiles.tile, k.W - t.column);
    StagedWindows<T> windows;
    windows.load(params, t, high, wide, c);
    __syncthreads();
    if (c < k.C)
      for (int j = warp; j < high * wide; j += kTileWarps) {
        const int h = t.row + j / wide, w = t.column + j % wide;
        const double v = double(to_float(static_cast<const T*>(params.v)[((t.image * k.H + h) * k.W + w) * k.C + c]));
        const double du = double(windows.gradient(k, h, w));
        sum1 += du;
        sum2 += du * v;
      }
    __syncthreads();  // the next tile takes the same shared memory
  }
  warp_sums[0][warp][lane] = sum1;
  warp_sums[1][warp][lane] = sum2;
  __syncthreads();
  if (warp > 1 || c >= k.C) return;
  double total = 0;
  for (int i = 0; i < kTileWarps; ++i) total += warp_sums[warp][i][lane];
  params.slices[(int64_t(blockIdx.x) * 2 + warp) * k.C + c] = total;
}

BIREAL_STORAGE_ENTRIES(batch_norm_max_pool_fwd, kTileThreads, BatchNormMaxPoolFwdParams, batch_norm_max_pool_fwd)
BIREAL_STORAGE_ENTRIES(batch_norm_max_pool_bwd_sums, kTileThreads, BatchNormMaxPoolBwdParams, batch_norm_max_pool_bwd_sums)
BIREAL_STORAGE_ENTRIES(batch_norm_max_pool_bwd_apply, kTileThreads, BatchNormMaxPoolBwdParams, batch_norm_max_pool_bwd_apply)

// Adds the slices: 8 warps take every eighth one of 32 sums in order, then the warps are added in order. Grid: 2C/32 blocks.
extern "C" __global__ void __launch_bounds__(256) batch_norm_max_pool_bwd_slices_f64_kernel(BatchNormMaxPoolBwdParams k) {
  __shared__ double warp_sums[kTileWarps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, j = int(blockIdx.x * 32) + lane, count = 2 * k.shape.C;
  double sum = 0;
  if (j < count)
    for (int slice = warp; slice < k.slice_count; slice += kTileWarps) sum += k.slices[int64_t(slice) * count + j];
  warp_sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || j >= count) return;
  for (int i = 1; i < kTileWarps; ++i) sum += warp_sums[i][lane];
  k.sums[j] = sum;
}

}  // namespace bireal::cuda
