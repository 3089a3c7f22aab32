// batch_norm_max_pool: a block stages, for 32 channels, what the windows of a tile share, so that every value is asked for once
// (1.1 times at most, at the edges of tiles): v forward, dy and index backward. It goes through the tiles of one slice, which is
// cut by the shape, so that constants of the channels are read once a block. A warp owns 32 channels of a pixel at a time, four
// pixels in flight. Limited by memory.
#include "cuda/row_sums.cuh"
#include "cuda/warp.cuh"
#include "ops/batch_norm/batch_norm_max_pool_params.h"
#include "ops/pool2d/pool2d.cuh"

namespace bireal::cuda {

namespace {
struct Tile {
  int64_t image;
  int row, column;  // first pixel
};

// The pixels of a warp in an area `wide` pixels wide: every eighth, in row order.
struct Walk {
  int row = 0, column = int(threadIdx.x / 32);
  __device__ __forceinline__ explicit Walk(int wide) { wrap(wide); }
  __device__ __forceinline__ void next(int wide) {
    column += kRowWarps;
    wrap(wide);
  }
  __device__ __forceinline__ void wrap(int wide) {
    for (; column >= wide; column -= wide) ++row;
  }
};
}  // namespace

__device__ __forceinline__ Tile tile_at(const PoolTiles& tiles, uint32_t number) {
  Tile t;
  t.column = int(number % uint32_t(tiles.columns)) * tiles.tile;
  t.row = int(number / uint32_t(tiles.columns) % uint32_t(tiles.rows)) * tiles.tile;
  t.image = number / uint32_t(tiles.columns) / uint32_t(tiles.rows);
  return t;
}

// Calls body(tile) for each tile of the block's slice. Every thread takes part; a barrier lies between two tiles.
template <class Body>
__device__ __forceinline__ void for_tiles(const PoolTiles& tiles, int C, const Body& body) {
  const uint64_t slice = uint64_t(row_slice(C));
  const uint32_t last = uint32_t(tiles.count * (slice + 1) / tiles.slices);
  for (uint32_t number = uint32_t(tiles.count * slice / tiles.slices); number < last; ++number) {
    body(tile_at(tiles, number));
    __syncthreads();  // the next tile takes the same shared memory
  }
}

// Shared: v of the tile's windows, T [staged*staged, 32]. A tile sums the pixels from the start of its first window to that of
// the next tile's first, or to the edge of the image, so each is summed once.
template <class T>
__device__ __forceinline__ void batch_norm_max_pool_fwd(const BatchNormMaxPoolFwdParams& params) {
  extern __shared__ __align__(16) unsigned char shared[];
  const PoolShape& k = params.shape;
  T* staged = reinterpret_cast<T*>(shared);
  const int lane = threadIdx.x % 32, c = row_channel(k.C);
  const bool channel = c < k.C;
  __shared__ float gammas[32];
  if (threadIdx.x < 32 && channel) gammas[lane] = params.gamma[c];
  RowSums<T> sums;
  for_tiles(params.tiles, k.C, [&](const Tile& t) {
    const int rows = min(params.tiles.tile, k.P - t.row), columns = min(params.tiles.tile, k.Q - t.column);
    const int top = t.row * k.stride - k.pad, left = t.column * k.stride - k.pad;
    const int high = (rows - 1) * k.stride + k.R, wide = (columns - 1) * k.stride + k.S;
    const int own_high = t.row + rows == k.P ? k.H - top : rows * k.stride;
    const int own_wide = t.column + columns == k.Q ? k.W - left : columns * k.stride;
    const int area_high = max(high, own_high), area_wide = max(wide, own_wide);
    const T* v = static_cast<const T*>(params.v) + t.image * k.H * k.W * k.C + c;
    Walk at(area_wide);
    while (channel && at.row < area_high) {
      T loaded[kRowsInFlight];
      int row[kRowsInFlight], column[kRowsInFlight];
      bool inside[kRowsInFlight];
#pragma unroll
      for (int i = 0; i < kRowsInFlight; ++i, at.next(area_wide)) {
        row[i] = at.row, column[i] = at.column;
        const int h = top + at.row, w = left + at.column;
        inside[i] = at.row < area_high && h >= 0 && h < k.H && w >= 0 && w < k.W;
        if (inside[i]) loaded[i] = v[(int64_t(h) * k.W + w) * k.C];
      }
#pragma unroll
      for (int i = 0; i < kRowsInFlight; ++i) {
        if (!inside[i]) continue;
        if (row[i] < high && column[i] < wide) staged[(row[i] * wide + column[i]) * 32 + lane] = loaded[i];
        if (row[i] < own_high && column[i] < own_wide) sums.add(to_float(loaded[i]), to_float(loaded[i]));
      }
      sums.flush();
    }
    __syncthreads();

    const float gamma = channel ? gammas[lane] : 0.0f, sign = gamma < 0.0f ? -1.0f : 1.0f;
    for (Walk out(columns); channel && out.row < rows; out.next(columns)) {
      const int h = out.row * k.stride, w = out.column * k.stride;
      const int first_r = max(0, -top - h), last_r = min(k.R, k.H - top - h);
      const int first_s = max(0, -left - w), last_s = min(k.S, k.W - left - w);
      const T* window = staged + (h * wide + w) * 32 + lane;
      float best = sign * to_float(window[(first_r * wide + first_s) * 32]);
      int chosen = first_r * k.S + first_s;
      if (gamma != 0.0f)
        for (int r = first_r; r < last_r; ++r)
          for (int s = first_s; s < last_s; ++s) {
            const float u = sign * to_float(window[(r * wide + s) * 32]);
            if (!(u <= best) && best == best) {  // greater, or one of the two is a NaN; and then it is u, if best is not
              best = u;
              chosen = r * k.S + s;
            }
          }
      const int64_t at = ((t.image * k.P + t.row + out.row) * k.Q + t.column + out.column) * k.C + c;
      static_cast<T*>(params.vmax)[at] = from_float<T>(sign * best);
      params.index[at] = uint8_t(chosen);
    }
  });
  if (params.sums) store_row_sums(params.sums, k.C, sums);
}

// Shared: dy T [staged*staged, 32], then index [staged*staged, 32], of the windows over the tile.
template <class T>
__device__ __forceinline__ void batch_norm_max_pool_bwd_apply(const BatchNormMaxPoolBwdParams& params) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ WindowRange over_row[PoolTiles::kMost], over_column[PoolTiles::kMost];
  const PoolShape& k = params.shape;
  T* dy = reinterpret_cast<T*>(shared);
  uint8_t* index = reinterpret_cast<uint8_t*>(dy + params.tiles.staged * params.tiles.staged * 32);
  const int lane = threadIdx.x % 32, c = row_channel(k.C);
  const bool channel = c < k.C;
  __shared__ float coefficients[3][32];
  if (threadIdx.x < 96 && channel) coefficients[threadIdx.x / 32][lane] = params.coefficients[threadIdx.x / 32 * k.C + c];
  for_tiles(params.tiles, k.C, [&](const Tile& t) {
    const int high = min(params.tiles.tile, k.H - t.row), wide = min(params.tiles.tile, k.W - t.column);
    const int first_p = windows_over(t.row, k.R, k.stride, k.pad, k.P).first,
              first_q = windows_over(t.column, k.S, k.stride, k.pad, k.Q).first;
    const int windows_high = windows_over(t.row + high - 1, k.R, k.stride, k.pad, k.P).last - first_p + 1,
              windows_wide = windows_over(t.column + wide - 1, k.S, k.stride, k.pad, k.Q).last - first_q + 1;
    if (threadIdx.x < unsigned(high)) over_row[threadIdx.x] = windows_over(t.row + int(threadIdx.x), k.R, k.stride, k.pad, k.P);
    if (threadIdx.x < unsigned(wide))
      over_column[threadIdx.x] = windows_over(t.column + int(threadIdx.x), k.S, k.stride, k.pad, k.Q);
    if (windows_wide > 0)
      for (Walk at(windows_wide); channel && at.row < windows_high; at.next(windows_wide)) {
        const int64_t from = ((t.image * k.P + first_p + at.row) * k.Q + first_q + at.column) * k.C + c;
        const int to = (at.row * windows_wide + at.column) * 32 + lane;
        dy[to] = static_cast<const T*>(params.dy)[from];
        index[to] = params.index[from];
      }
    __syncthreads();

    if (!channel) return;
    const float a = coefficients[0][lane], b = coefficients[1][lane], shift = coefficients[2][lane];
    const int64_t image = t.image * k.H * k.W * k.C + c;
    const T* v = static_cast<const T*>(params.v) + image;
    T* dz = static_cast<T*>(params.dz) + image;
    Walk at(wide);
    while (at.row < high) {
      T loaded[kRowsInFlight];
      int row[kRowsInFlight], column[kRowsInFlight];
#pragma unroll
      for (int i = 0; i < kRowsInFlight; ++i, at.next(wide)) {
        row[i] = at.row, column[i] = at.column;
        if (at.row < high) loaded[i] = v[(int64_t(t.row + at.row) * k.W + t.column + at.column) * k.C];
      }
#pragma unroll
      for (int i = 0; i < kRowsInFlight; ++i) {
        if (row[i] >= high) continue;
        const int h = t.row + row[i], w = t.column + column[i];
        const WindowRange over_h = over_row[row[i]], over_w = over_column[column[i]];
        float du = 0;
        for (int p = over_h.first; p <= over_h.last; ++p) {
          int j = ((p - first_p) * windows_wide + over_w.first - first_q) * 32 + lane;
          int tap = (h + k.pad - p * k.stride) * k.S + (w + k.pad - over_w.first * k.stride);
          for (int q = over_w.first; q <= over_w.last; ++q, j += 32, tap -= k.stride)
            if (index[j] == tap) du += to_float(dy[j]);
        }
        dz[(int64_t(h) * k.W + w) * k.C] = from_float<T>(fmaf(a, du, fmaf(b, to_float(loaded[i]), shift)));
      }
    }
  });
}

BIREAL_STORAGE_ENTRIES(batch_norm_max_pool_fwd, kRowThreads, BatchNormMaxPoolFwdParams, batch_norm_max_pool_fwd)
BIREAL_STORAGE_ENTRIES(batch_norm_max_pool_bwd_apply, kRowThreads, BatchNormMaxPoolBwdParams, batch_norm_max_pool_bwd_apply)

}  // namespace bireal::cuda
