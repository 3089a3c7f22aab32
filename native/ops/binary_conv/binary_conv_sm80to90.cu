#include "cuda/warp.cuh"
#include "ops/binary_conv/binary_conv_tile.cuh"

namespace bireal {

// d += popcount(a AND b) over 256 bits, 16 pixels by 8 channels. Lane l holds row g = l / 4 (and g + 8) of a, column g of b,
// words l % 4 and 4 + l % 4 of both, and columns 2 (l % 4), 2 (l % 4) + 1 of the rows g (d[0], d[1]) and g + 8 (d[2], d[3]).
__device__ __forceinline__ void mma_and_popc(int32_t (&d)[4], word_t a0, word_t a1, word_t a2, word_t a3, word_t b0, word_t b1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Forward on tensor cores. The words of a window, all taps in a row, are the depth of a matrix product: 8 words a step, so a step
// spans several taps where C is small. Pixels outside the image are words of 0, so with the AND form
//   popc(x ^ w) over the taps inside = popc(x) + popc(w over the taps inside) - 2 popc(x & w),
// popc(x) being one sum a pixel, and popc(w ...) four look-ups in a table of sums over the filter's corner rectangles (one
// look-up where the window's upper left corner is inside). Warps are 4 (of 16 pixels) by 2 (of half the channels). Channels are
// permuted among the columns so that a lane ends up with 4 neighbours: a row's 16 channels are one 32-byte sector. Limiter:
// bandwidth. Shared: dynamic, in the order of the pointers below.
template <int CHANNELS>
__device__ __forceinline__ void binary_conv_fwd_mma(const BinaryConvFwdParams& p) {
  constexpr int kRow = CHANNELS + 8, kColumnTiles = CHANNELS / 16;
  extern __shared__ unsigned long long shared64[];
  unsigned long long* block_sums = shared64;  // [2][CHANNELS]
  int32_t* corner_counts =
      reinterpret_cast<int32_t*>(shared64 + 2 * CHANNELS);  // [(R+1)*(S+1)][CHANNELS] popc(w) over taps above and left
  word_t* weights = reinterpret_cast<word_t*>(corner_counts + (p.R + 1) * (p.S + 1) * CHANNELS);  // [columns][kRow]
  word_t* halo = weights + p.columns * kRow;                                                   // [halo_h * halo_w][pixel_stride]
  int32_t* offsets = reinterpret_cast<int32_t*>(halo + p.halo_h * p.halo_w * p.pixel_stride);  // [columns]
  int32_t* pixel_counts = offsets + p.columns;                                                 // [halo_h * halo_w] popc(x)
  int32_t* window_counts = pixel_counts + p.halo_h * p.halo_w;                                 // [64]

  const int t = int(threadIdx.x), lane = t % 32, warp = t / 32, g = lane / 4, q = lane % 4;
  const int first_channel = int(blockIdx.y) * CHANNELS, first_column = warp % 2 * (CHANNELS / 2);
  const int taps = p.R * p.S, corners = (p.R + 1) * (p.S + 1), halo_pixels = p.halo_h * p.halo_w;
  const auto position = [](int k) { return k / 16 * 16 + (k % 4) / 2 * 8 + (k % 16) / 4 * 2 + k % 2; };

  for (int i = t; i < 2 * CHANNELS; i += kTileThreads) block_sums[i] = 0;
  for (int i = t; i < corners * CHANNELS; i += kTileThreads) corner_counts[i] = 0;
  for (int i = t; i < p.columns; i += kTileThreads) {
    const int tap = i / p.chunk_words, r = tap / p.S;
    offsets[i] = tap < taps ? (r * p.halo_w + tap - r * p.S) * p.pixel_stride + i - tap * p.chunk_words : 0;  // beyond: w is 0
  }
  int dp[2], dq[2], base[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int pixel = warp / 2 * 16 + g + 8 * i;
    dp[i] = pixel / p.tile_q;
    dq[i] = pixel - dp[i] * p.tile_q;
    base[i] = (dp[i] * p.halo_w + dq[i]) * p.stride * p.pixel_stride;
    if (pixel >= p.tile_p * p.tile_q) dp[i] = 1 << 28, base[i] = 0;  // not in the tile, so not in the image either
  }
  int32_t s1[kColumnTiles][2] = {};
  uint32_t s2[kColumnTiles][2] = {};
  int unflushed = 0;
  const auto flush = [&] {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        long long sum1 = s1[n][i], sum2 = s2[n][i];
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2) {
          sum1 += __shfl_xor_sync(kAllLanes, sum1, distance);
          sum2 += __shfl_xor_sync(kAllLanes, sum2, distance);
        }
        const int k = first_column + n / 2 * 16 + 4 * q + n % 2 * 2 + i;
        if (g == 0) {
          atomicAdd(&block_sums[k], (unsigned long long)sum1);
          atomicAdd(&block_sums[CHANNELS + k], (unsigned long long)sum2);
        }
        s1[n][i] = 0, s2[n][i] = 0;
      }
    unflushed = 0;
  };
  if (p.chunks == 1) load_weights<CHANNELS, kRow>(weights, p, first_channel, 0, position);
  bool counted = false;  // corner_counts

  for (int64_t index = blockIdx.x; index < p.tiles; index += gridDim.x) {
    const Tile tile = tile_at(p, index);
    int32_t both[kColumnTiles][4] = {};
    for (int chunk = 0; chunk < p.chunks; ++chunk) {
      __syncthreads();  // nobody reads the last halo, weights or counts any more
      load_halo(halo, p, tile, chunk);
      if (p.chunks > 1) load_weights<CHANNELS, kRow>(weights, p, first_channel, chunk, position);
      __syncthreads();
      for (int i = t; i < halo_pixels; i += kTileThreads) {
        int count = chunk ? pixel_counts[i] : 0;
        for (int word = 0; word < p.chunk_words; ++word) count += __popc(halo[i * p.pixel_stride + word]);
        pixel_counts[i] = count;
      }
      if (!counted)
        for (int i = t; i < taps * CHANNELS; i += kTileThreads) {
          const int tap = i / CHANNELS, column = i % CHANNELS, r = tap / p.S;
          int count = 0;
          for (int word = 0; word < p.chunk_words; ++word) count += __popc(weights[(tap * p.chunk_words + word) * kRow + column]);
          corner_counts[((r + 1) * (p.S + 1) + tap - r * p.S + 1) * CHANNELS + column] += count;
        }
      for (int column = 0; column < p.columns; column += 8) {
        const int o0 = offsets[column + q], o1 = offsets[column + 4 + q];
        const word_t a0 = halo[base[0] + o0], a1 = halo[base[1] + o0], a2 = halo[base[0] + o1], a3 = halo[base[1] + o1];
        const word_t* w = weights + (column + q) * kRow + first_column + g;
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n) mma_and_popc(both[n], a0, a1, a2, a3, w[8 * n], w[4 * kRow + 8 * n]);
      }
    }
    __syncthreads();  // pixel_counts and corner_counts are complete
    if (t < p.tile_p * p.tile_q) {
      const int row = t / p.tile_q;
      const int32_t* window = pixel_counts + (row * p.halo_w + t - row * p.tile_q) * p.stride;
      int count = 0;
      for (int r = 0; r < p.R; ++r)
        for (int s = 0; s < p.S; ++s) count += window[r * p.halo_w + s];
      window_counts[t] = count;
    }
    if (!counted && t < CHANNELS) {
      for (int r = 1; r <= p.R; ++r) {
        int row_sum = 0;
        for (int s = 1; s <= p.S; ++s) {
          row_sum += corner_counts[(r * (p.S + 1) + s) * CHANNELS + t];
          corner_counts[(r * (p.S + 1) + s) * CHANNELS + t] = row_sum + corner_counts[((r - 1) * (p.S + 1) + s) * CHANNELS + t];
        }
      }
    }
    counted = true;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = tile.p0 + dp[i], column = tile.q0 + dq[i];
      if (row >= p.P || column >= p.Q) continue;
      const int h0 = row * p.stride - p.pad, w0 = column * p.stride - p.pad;
      const int r0 = max(0, -h0), r1 = min(p.R, p.H - h0), s0 = max(0, -w0), s1_ = min(p.S, p.W - w0);  // taps inside
      const int32_t* counts = corner_counts + first_column + 2 * q;
      const int upper = r0 * (p.S + 1), lower = r1 * (p.S + 1);
      const int fixed = p.C * (r1 - r0) * (s1_ - s0) - 2 * window_counts[dp[i] * p.tile_q + dq[i]];
      int16_t* out = static_cast<int16_t*>(p.v) + ((tile.image * p.P + row) * p.Q + column) * p.K;
#pragma unroll
      for (int pair = 0; pair < kColumnTiles / 2; ++pair) {
        Vec<int16_t, 4> values;
#pragma unroll
        for (int n = 2 * pair; n < 2 * pair + 2; ++n) {
          Vec<int32_t, 2> weight = load<int32_t, 2>(counts + (lower + s1_) * CHANNELS + 8 * n);
          if (r0 | s0) {
            const Vec<int32_t, 2> above = load<int32_t, 2>(counts + (upper + s1_) * CHANNELS + 8 * n),
                                  left = load<int32_t, 2>(counts + (lower + s0) * CHANNELS + 8 * n),
                                  corner = load<int32_t, 2>(counts + (upper + s0) * CHANNELS + 8 * n);
            weight.v[0] += corner.v[0] - above.v[0] - left.v[0];
            weight.v[1] += corner.v[1] - above.v[1] - left.v[1];
          }
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const int value = fixed - 2 * weight.v[j] + 4 * both[n][2 * i + j];
            s1[n][j] += value;
            s2[n][j] += uint32_t(value * value);
            values.v[n % 2 * 2 + j] = int16_t(value);
          }
        }
        const int k = first_channel + first_column + pair * 16 + 4 * q;
        if (p.K % 4 == 0) {
          if (k < p.K) store(out + k, values);
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j)
            if (k + j < p.K) out[k + j] = values.v[j];
        }
      }
    }
    if (++unflushed == p.flush_tiles) flush();
  }
  if (!p.sums) return;
  flush();
  __syncthreads();
  for (int i = t; i < 2 * CHANNELS; i += kTileThreads) {
    const int k = first_channel + i % CHANNELS;
    if (k < p.K) atomicAdd(&p.sums[int64_t(i / CHANNELS) * p.K + k], block_sums[i]);
  }
}

extern "C" __global__ void __launch_bounds__(kTileThreads, 2) binary_conv_fwd_mma_narrow_kernel(const BinaryConvFwdParams p) {
  binary_conv_fwd_mma<64>(p);
}
extern "C" __global__ void __launch_bounds__(kTileThreads, 2) binary_conv_fwd_mma_wide_kernel(const BinaryConvFwdParams p) {
  binary_conv_fwd_mma<128>(p);
}

}  // namespace bireal
