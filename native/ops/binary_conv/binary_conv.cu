#include "cuda/warp.cuh"
#include "ops/binary_conv/binary_conv_tile.cuh"

namespace bireal {

// ---- Forward, popcount --------------------------------------------------------------------------------------------

// A thread computes 4 pixels (m, m + 16, ...) by 4 channels (2t, 2t + 1, 32 + 2t, 33 + 2t). A tap outside the image is masked out
// of the XOR, which costs nothing: (x ^ w) & mask is one instruction. Sums are of integers, so their order does not matter.
// Limiter: popc, 16 a clock and SM. Shared: dynamic, weights and halo; 1 KB of sums.
template <class V>
__device__ __forceinline__ void binary_conv_fwd_popc(const BinaryConvFwdParams& p) {
  constexpr int kChannels = 64, kRow = kChannels + 2;
  extern __shared__ word_t shared[];
  __shared__ unsigned long long block_sums[2 * kChannels];
  word_t *weights = shared, *halo = shared + p.columns * kRow;
  const int t = int(threadIdx.x % 16), m = int(threadIdx.x / 16), first_channel = int(blockIdx.y) * kChannels;
  if (threadIdx.x < 2 * kChannels) block_sums[threadIdx.x] = 0;

  int dp[4], dq[4], base[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int pixel = m + 16 * i;
    dp[i] = pixel / p.tile_q;
    dq[i] = pixel - dp[i] * p.tile_q;
    base[i] = (dp[i] * p.halo_w + dq[i]) * p.stride * p.pixel_stride;
    if (pixel >= p.tile_p * p.tile_q) dp[i] = 1 << 28, base[i] = 0;  // not in the tile, so not in the image either
  }
  long long s1[4] = {0, 0, 0, 0}, s2[4] = {0, 0, 0, 0};
  const auto in_order = [](int k) { return k; };
  if (p.chunks == 1) load_weights<kChannels, kRow, 4>(weights, p, first_channel, 0, in_order);

  for (int64_t index = blockIdx.x; index < p.tiles; index += gridDim.x) {
    const Tile tile = tile_at(p, index);
    int h0[4], w0[4], taps_inside[4], differ[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      h0[i] = (tile.p0 + dp[i]) * p.stride - p.pad;
      w0[i] = (tile.q0 + dq[i]) * p.stride - p.pad;
      taps_inside[i] = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) differ[i][j] = 0;
    }
    for (int chunk = 0; chunk < p.chunks; ++chunk) {
      __syncthreads();  // nobody reads the last halo, or the last weights, any more
      load_halo<4>(halo, p, tile, chunk);
      if (p.chunks > 1) load_weights<kChannels, kRow, 4>(weights, p, first_channel, chunk, in_order);
      __syncthreads();
      const word_t* w = weights + 2 * t;
      for (int r = 0; r < p.R; ++r)
        for (int s = 0; s < p.S; ++s) {
          word_t mask[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const bool inside = unsigned(h0[i] + r) < unsigned(p.H) && unsigned(w0[i] + s) < unsigned(p.W);
            mask[i] = inside ? 0xFFFFFFFFu : 0u;
            if (chunk == 0) taps_inside[i] += inside;
          }
          const word_t* x = halo + (r * p.halo_w + s) * p.pixel_stride;
#pragma unroll 2
          for (int word = 0; word < p.chunk_words; ++word, ++x, w += kRow) {
            const Vec<word_t, 2> low = load<word_t, 2>(w), high = load<word_t, 2>(w + 32);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const word_t bits = x[base[i]];
              differ[i][0] += __popc((bits ^ low.v[0]) & mask[i]);
              differ[i][1] += __popc((bits ^ low.v[1]) & mask[i]);
              differ[i][2] += __popc((bits ^ high.v[0]) & mask[i]);
              differ[i][3] += __popc((bits ^ high.v[1]) & mask[i]);
            }
          }
        }
    }
    V* v = static_cast<V*>(p.v);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = tile.p0 + dp[i], column = tile.q0 + dq[i];
      if (row >= p.P || column >= p.Q) continue;
      V* out = v + ((tile.image * p.P + row) * p.Q + column) * p.K;
      int32_t value[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        value[j] = p.C * taps_inside[i] - 2 * differ[i][j];
        s1[j] += value[j];
        s2[j] += (long long)value[j] * value[j];
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int k = first_channel + 32 * half + 2 * t;
        const Vec<V, 2> pair = {V(value[2 * half]), V(value[2 * half + 1])};
        if (p.K % 2 == 0) {
          if (k < p.K) store(out + k, pair);
        } else {
          if (k < p.K) out[k] = pair.v[0];
          if (k + 1 < p.K) out[k + 1] = pair.v[1];
        }
      }
    }
  }
  if (!p.sums) return;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    s1[j] += __shfl_xor_sync(kAllLanes, s1[j], 16);
    s2[j] += __shfl_xor_sync(kAllLanes, s2[j], 16);
    const int k = 32 * (j / 2) + 2 * t + j % 2;
    if (threadIdx.x % 32 < 16) {
      atomicAdd(&block_sums[k], (unsigned long long)s1[j]);
      atomicAdd(&block_sums[kChannels + k], (unsigned long long)s2[j]);
    }
  }
  __syncthreads();
  const int k = int(threadIdx.x % kChannels), which = int(threadIdx.x / kChannels);
  if (which < 2 && first_channel + k < p.K) atomicAdd(&p.sums[int64_t(which) * p.K + first_channel + k], block_sums[threadIdx.x]);
}
BIREAL_ENTRY(binary_conv_fwd_popc, i16, kTileThreads, BinaryConvFwdParams, binary_conv_fwd_popc<int16_t>)
BIREAL_ENTRY(binary_conv_fwd_popc, i32, kTileThreads, BinaryConvFwdParams, binary_conv_fwd_popc<int32_t>)

// ---- Backward -----------------------------------------------------------------------------------------------------

// Both passes are tiled matrix products of 64 by 64 results a block and 4 by 4 a thread, 16 terms at a time through shared
// memory, each result one float32 accumulator in a fixed order.
constexpr int kSide = 64, kDepth = 16, kARow = kSide + 4;

__device__ __forceinline__ void multiply_tile(float (&sum)[4][4], const float (&a)[kDepth][kARow],
                                              const float (&b)[kDepth][kSide], int first_a, int first_b) {
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    const Vec<float, 4> left = load<float, 4>(&a[i][first_a]), right = load<float, 4>(&b[i][first_b]);
#pragma unroll
    for (int y = 0; y < 4; ++y)
#pragma unroll
      for (int x = 0; x < 4; ++x) sum[y][x] = fmaf(left.v[y], right.v[x], sum[y][x]);
  }
}

template <class T>
__device__ __forceinline__ void store_four(T* out, const float (&values)[4], int left, bool aligned) {
  if (aligned && left >= 4) {
    store(out, Vec<T, 4>{from_float<T>(values[0]), from_float<T>(values[1]), from_float<T>(values[2]), from_float<T>(values[3])});
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < left) out[i] = from_float<T>(values[i]);
}

// dx: a block takes 64 input pixels (of all images in a row) by 64 channels; terms are taps, then output channels, in order.
// Limiter: float32 arithmetic. Shared: 8 KB.
template <class T>
__device__ __forceinline__ void binary_conv_bwd_input(const BinaryConvBwdParams& p) {
  __shared__ alignas(16) float gradient[kDepth][kARow];  // [k][pixel] dz * alpha
  __shared__ alignas(16) float sign[kDepth][kSide];      // [k][c] +-1
  const T* dz = static_cast<const T*>(p.dz);
  const int t = int(threadIdx.x), first_channel = int(blockIdx.y) * kSide, taps = p.R * p.S;
  const int64_t first_pixel = int64_t(blockIdx.x) * kSide;
  // This thread loads dz of output channel t % 16 for pixels t / 16 + 16 i.
  int64_t image[4];
  int h[4], w[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t pixel = first_pixel + t / 16 + 16 * i;
    image[i] = pixel / (int64_t(p.H) * p.W);
    const int in_image = int(pixel - image[i] * p.H * p.W);
    h[i] = in_image / p.W;
    w[i] = in_image - h[i] * p.W;
    if (pixel >= p.pixels) h[i] = -(1 << 28);
  }
  float sum[4][4] = {};
  for (int r = 0; r < p.R; ++r)
    for (int s = 0; s < p.S; ++s) {
      int64_t source[4];  // offset of dz[image, p, q, 0], or -1
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = h[i] + p.pad - r, column = w[i] + p.pad - s;
        source[i] = -1;
        if (row < 0 || column < 0 || row % p.stride != 0 || column % p.stride != 0) continue;
        if (row / p.stride < p.P && column / p.stride < p.Q)
          source[i] = ((image[i] * p.P + row / p.stride) * p.Q + column / p.stride) * p.K;
      }
      for (int first_k = 0; first_k < p.K; first_k += kDepth) {
        __syncthreads();
        const int k = first_k + t % 16;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float value = 0.0f;
          if (k < p.K && source[i] >= 0) value = to_float(dz[source[i] + k]) * p.alpha[k];
          gradient[t % 16][t / 16 + 16 * i] = value;
        }
        const int c = first_channel + t % kSide;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int depth = t / kSide + 4 * i;
          float value = 0.0f;
          if (first_k + depth < p.K && c < p.C)
            value = p.w[(int64_t(first_k + depth) * taps + r * p.S + s) * p.Cw + c / 32] >> (c % 32) & 1 ? -1.0f : 1.0f;
          sign[depth][t % kSide] = value;
        }
        __syncthreads();
        multiply_tile(sum, gradient, sign, t / 16 * 4, t % 16 * 4);
      }
    }
  T* dx = static_cast<T*>(p.dx);
  const int c = first_channel + t % 16 * 4;
#pragma unroll
  for (int y = 0; y < 4; ++y) {
    const int64_t pixel = first_pixel + t / 16 * 4 + y;
    if (pixel < p.pixels) store_four(dx + pixel * p.C + c, sum[y], p.C - c, p.C % 4 == 0);
  }
}
BIREAL_STORAGE_ENTRIES(binary_conv_bwd_input, 256, BinaryConvBwdParams, binary_conv_bwd_input)

// dw: a block takes 64 output channels by 64 input channels of one tap, of a slice of the output pixels; terms are pixels in
// order. Limiter: float32 arithmetic. Shared: 8 KB.
template <class T>
__device__ __forceinline__ void binary_conv_bwd_weight(const BinaryConvBwdParams& p) {
  __shared__ alignas(16) float gradient[kDepth][kARow];  // [pixel][k] dz
  __shared__ alignas(16) float sign[kDepth][kSide];      // [pixel][c] +-1, 0 outside the image
  __shared__ int64_t source[kDepth];                     // offset of x[image, h, w, 0], or -1
  const T* dz = static_cast<const T*>(p.dz);
  const int t = int(threadIdx.x), taps = p.R * p.S;
  const int tap = int(blockIdx.x) % taps, r = tap / p.S, s = tap - r * p.S;
  const int first_channel = int(blockIdx.x) / taps * kSide, first_k = int(blockIdx.y) * kSide;
  const int64_t begin = p.pixels * blockIdx.z / p.slices, end = p.pixels * (blockIdx.z + 1) / p.slices;
  float sum[4][4] = {};
  for (int64_t first_pixel = begin; first_pixel < end; first_pixel += kDepth) {
    if (t < kDepth) {  // nobody reads the last offsets any more: a barrier came behind their use
      const int64_t pixel = first_pixel + t, image = pixel / (int64_t(p.P) * p.Q);
      const int in_image = int(pixel - image * p.P * p.Q), row = in_image / p.Q, column = in_image - row * p.Q;
      const int h = row * p.stride + r - p.pad, w = column * p.stride + s - p.pad;
      const bool inside = pixel < end && h >= 0 && h < p.H && w >= 0 && w < p.W;
      source[t] = inside ? ((image * p.H + h) * p.W + w) * p.Cw : -1;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int depth = t / kSide + 4 * i, k = first_k + t % kSide, c = first_channel + t % kSide;
      float value = 0.0f, bit = 0.0f;
      if (source[depth] >= 0) {
        if (k < p.K) value = to_float(dz[(first_pixel + depth) * p.K + k]);
        if (c < p.C) bit = p.x[source[depth] + c / 32] >> (c % 32) & 1 ? -1.0f : 1.0f;
      }
      gradient[depth][t % kSide] = value;
      sign[depth][t % kSide] = bit;
    }
    __syncthreads();
    multiply_tile(sum, gradient, sign, t / 16 * 4, t % 16 * 4);
  }
  const int c = first_channel + t % 16 * 4;
#pragma unroll
  for (int y = 0; y < 4; ++y) {
    const int k = first_k + t / 16 * 4 + y;
    if (k < p.K) store_four(p.partial + ((int64_t(blockIdx.z) * p.K + k) * taps + tap) * p.C + c, sum[y], p.C - c, p.C % 4 == 0);
  }
}
BIREAL_STORAGE_ENTRIES(binary_conv_bwd_weight, 256, BinaryConvBwdParams, binary_conv_bwd_weight)

// Adds the slices in order. Limiter: bandwidth.
extern "C" __global__ void __launch_bounds__(256) binary_conv_bwd_weight_sum_kernel(const BinaryConvBwdWeightSumParams p) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= p.count) return;
  float sum = p.partial[i];
  for (int slice = 1; slice < p.slices; ++slice) sum += p.partial[slice * p.count + i];
  p.dw[i] = p.accumulate ? p.dw[i] + sum : sum;
}

}  // namespace bireal
