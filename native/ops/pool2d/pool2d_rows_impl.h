// The row kernels of pool2d for vectors of kLanes channels (gcc vector extension: one source, the compiler picks instructions).
// A pixel is done in blocks of kLanes channels whose running value stays in registers while the taps (or windows) go by.
#pragma once
#include "core/bits.h"
#include "ops/pool2d/pool2d_rows.h"

namespace bireal::cpu {

template <int kLanes>
struct PoolVector {
  typedef float Floats __attribute__((vector_size(kLanes * 4)));
  typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
  typedef uint16_t Shorts __attribute__((vector_size(kLanes * 2)));
  typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
};

// Taps [begin, end) of a window that starts at `start` and has `extent` taps, those inside [0, limit).
struct PoolRange {
  int64_t begin, end;
};
BIREAL_INLINE PoolRange pool_taps(int64_t start, int64_t extent, int64_t limit) {
  PoolRange range = {start < 0 ? -start : 0, start + extent > limit ? limit - start : extent};
  return range;
}

// Windows [begin, end) of `count` that cover padded position `at`.
BIREAL_INLINE PoolRange pool_windows(int64_t at, int64_t extent, int64_t stride, int64_t count) {
  int64_t first = at < extent ? 0 : (at - extent) / stride + 1, last = at / stride + 1;
  PoolRange range = {first, last < count ? last : count};
  return range;
}

template <int kLanes>
BIREAL_INLINE void avg_pool_fwd_rows(const PoolRows& k, int64_t begin_row, int64_t end_row) {
  using V = PoolVector<kLanes>;
  const float divisor = (float)(k.R * k.S);
  for (int64_t row = begin_row; row < end_row; ++row) {
    int64_t h0 = row % k.P * k.stride - k.pad;
    PoolRange rs = pool_taps(h0, k.R, k.H);
    const float* image = k.x + row / k.P * k.H * k.W * k.C;
    for (int64_t q = 0; q < k.Q; ++q) {
      int64_t w0 = q * k.stride - k.pad, out = (row * k.Q + q) * k.C, c = 0;
      PoolRange ss = pool_taps(w0, k.S, k.W);
      for (; c + kLanes <= k.C; c += kLanes) {
        typename V::Floats sum = {}, u;
        for (int64_t r = rs.begin; r < rs.end; ++r)
          for (int64_t s = ss.begin; s < ss.end; ++s) {
            __builtin_memcpy(&u, image + ((h0 + r) * k.W + w0 + s) * k.C + c, sizeof u);
            sum += u;
          }
        sum /= divisor;
        __builtin_memcpy(k.y + out + c, &sum, sizeof sum);
      }
      for (; c < k.C; ++c) {
        float sum = 0;
        for (int64_t r = rs.begin; r < rs.end; ++r)
          for (int64_t s = ss.begin; s < ss.end; ++s) sum += image[((h0 + r) * k.W + w0 + s) * k.C + c];
        k.y[out + c] = sum / divisor;
      }
    }
  }
}

template <int kLanes>
BIREAL_INLINE void avg_pool_bwd_rows(const PoolRows& k, int64_t begin_row, int64_t end_row) {
  using V = PoolVector<kLanes>;
  const float divisor = (float)(k.R * k.S);
  for (int64_t row = begin_row; row < end_row; ++row) {
    int64_t i = row / k.H;
    PoolRange ps = pool_windows(row % k.H + k.pad, k.R, k.stride, k.P);
    for (int64_t w = k.pad; w < k.W + k.pad; ++w) {
      PoolRange qs = pool_windows(w, k.S, k.stride, k.Q);
      int64_t in = (row * k.W + w - k.pad) * k.C, c = 0;
      for (; c + kLanes <= k.C; c += kLanes) {
        typename V::Floats sum = {}, g;
        for (int64_t p = ps.begin; p < ps.end; ++p)
          for (int64_t q = qs.begin; q < qs.end; ++q) {
            __builtin_memcpy(&g, k.dy + ((i * k.P + p) * k.Q + q) * k.C + c, sizeof g);
            sum += g;
          }
        sum /= divisor;
        __builtin_memcpy(k.dx + in + c, &sum, sizeof sum);
      }
      for (; c < k.C; ++c) {
        float sum = 0;
        for (int64_t p = ps.begin; p < ps.end; ++p)
          for (int64_t q = qs.begin; q < qs.end; ++q) sum += k.dy[((i * k.P + p) * k.Q + q) * k.C + c];
        k.dx[in + c] = sum / divisor;
      }
    }
  }
}

}  // namespace bireal::cpu
