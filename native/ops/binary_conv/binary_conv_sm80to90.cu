#include <type_traits>

#include "cuda/warp.cuh"
#include "ops/batch_norm/batch_norm.cuh"
#include "ops/binary_conv/binary_conv_tile.cuh"

namespace bireal {

// d += popcount(a AND b) over 256 bits, 16 pixels by 8 channels. Lane l holds row g = l / 4 (and g + 8) of a, column g of b,
// words l % 4 and 4 + l % 4 of both, and columns 2 (l % 4), 2 (l % 4) + 1 of the rows g (d[0], d[1]) and g + 8 (d[2], d[3]).
__device__ __forceinline__ void mma_and_popc(int32_t (&d)[4], word_t a0, word_t a1, word_t a2, word_t a3, word_t b0, word_t b1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four neighbours, of which `left` are in the tensor; `aligned`: all or none of any four are, and one access moves them.
template <class T>
__device__ __forceinline__ void store_four(T* p, const Vec<T, 4>& values, int left, bool aligned) {
  if (aligned) {
    if (left > 0) store(p, values);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (i < left) p[i] = values.v[i];
  }
}

// Where the values of a lane stand: two pixels (rows g and g + 8 of the fragment), 4 neighbours of every 16 channels.
struct LanePlace {
  int64_t pixel[2];  // of the output, in all images
  bool inside[2];    // in the tile and in the image
  int channel;       // of the first four
};

// ---- What becomes of the values -----------------------------------------------------------------------------------

// Made once a block: begin() before the first tile; for each tile prepare(), between() (behind a barrier after everybody's last
// values, before one that comes before their next; the tile before was that of index - gridDim.x), for each pixel inside
// pixel() and four() for every four neighbours (`pair` counts the 16s of channels), and finish_tile(); at last end(). They have
// kMmaOutputBytes * CHANNELS bytes of shared memory.

// Sums over all pixels, and, with WITH_V, v itself.
template <int CHANNELS, bool WITH_V>
struct Sums {
  static constexpr int kPairs = CHANNELS / 32;
  const BinaryConvFwdParams& p;
  unsigned long long* block_sums;  // shared [2][CHANNELS]
  int first_channel, first_column, unflushed = 0;
  int32_t s1[kPairs][4] = {};
  uint32_t s2[kPairs][4] = {};

  __device__ __forceinline__ Sums(const BinaryConvFwdParams& p, void* shared, int first_channel, int first_column)
      : p(p), block_sums(static_cast<unsigned long long*>(shared)), first_channel(first_channel), first_column(first_column) {}
  __device__ __forceinline__ void begin() {
    for (int i = int(threadIdx.x); i < 2 * CHANNELS; i += kTileThreads) block_sums[i] = 0;
  }
  __device__ __forceinline__ void prepare(const LanePlace&) {}
  __device__ __forceinline__ void between(int64_t) {}
  __device__ __forceinline__ void pixel(const LanePlace&, int) {}
  __device__ __forceinline__ void four(const LanePlace& place, int i, int pair, const int32_t (&values)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      s1[pair][j] += values[j];
      s2[pair][j] += uint32_t(values[j] * values[j]);
    }
    if (WITH_V) {
      const int k = place.channel + pair * 16;
      store_four(static_cast<int16_t*>(p.v) + place.pixel[i] * p.K + k,
                 {int16_t(values[0]), int16_t(values[1]), int16_t(values[2]), int16_t(values[3])}, p.K - k, p.K % 4 == 0);
    }
  }
  __device__ __forceinline__ void finish_tile() {
    if (++unflushed == p.flush_tiles) flush();
  }
  __device__ __forceinline__ void flush() {
    const int g = int(threadIdx.x % 32) / 4, q = int(threadIdx.x % 4);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        long long sum1 = s1[pair][j], sum2 = s2[pair][j];
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2) {
          sum1 += __shfl_xor_sync(kAllLanes, sum1, distance);
          sum2 += __shfl_xor_sync(kAllLanes, sum2, distance);
        }
        const int k = first_column + pair * 16 + 4 * q + j;
        if (g == 0) {
          atomicAdd(&block_sums[k], (unsigned long long)sum1);
          atomicAdd(&block_sums[CHANNELS + k], (unsigned long long)sum2);
        }
        s1[pair][j] = 0, s2[pair][j] = 0;
      }
    unflushed = 0;
  }
  __device__ __forceinline__ void end(int64_t) {
    if (!p.sums) return;
    flush();
    __syncthreads();
    for (int i = int(threadIdx.x); i < 2 * CHANNELS; i += kTileThreads) {
      const int k = first_channel + i % CHANNELS;
      if (k < p.K) atomicAdd(&p.sums[int64_t(i / CHANNELS) * p.K + k], block_sums[i]);
    }
  }
};

// Four values as they are loaded: two halves in one register.
template <class T>
struct Packed {
  uint32_t words[sizeof(T)];
  __device__ __forceinline__ T operator[](int i) const {
    if constexpr (sizeof(T) == 4) {
      return __uint_as_float(words[i]);
    } else {
      const unsigned short half = (unsigned short)(words[i / 2] >> (i % 2 * 16));
      if constexpr (std::is_same_v<T, __half>)
        return __ushort_as_half(half);
      else
        return __ushort_as_bfloat16(half);
    }
  }
};

// As store_four has it; 0 where there is nothing.
template <class T>
__device__ __forceinline__ Packed<T> load_four(const T* p, int left, bool aligned) {
  Packed<T> values = {};
  if (aligned) {
    if (left > 0) {
      const Vec<uint32_t, sizeof(T)> loaded = load<uint32_t, sizeof(T)>(reinterpret_cast<const uint32_t*>(p));
#pragma unroll
      for (int i = 0; i < int(sizeof(T)); ++i) values.words[i] = loaded.v[i];
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (i < left) {
        if constexpr (sizeof(T) == 4)
          values.words[i] = __float_as_uint(p[i]);
        else
          values.words[i / 2] |= uint32_t(reinterpret_cast<const unsigned short*>(p)[i]) << (i % 2 * 16);
      }
  }
  return values;
}

// batch_norm_apply, and v where it is wanted. Channels that do not exist have constants of 0, so that their bits are 0. Every
// block computes the statistics of its channels, the first of each group of channels also stores them. The bits of a tile are
// written behind the next barrier, by threads in the order of the words.
template <int CHANNELS, class T>
struct Apply {
  static constexpr int kPairs = CHANNELS / 32, kWords = CHANNELS / kWordBits;
  // The shortcut is loaded as early as the registers allow: before the tile is computed, for a pixel, or with four values.
  enum When { kTile, kPixel, kFour };
  static constexpr When kWhen = CHANNELS == 64 ? kTile : sizeof(T) == 2 ? kPixel : kFour;
  struct Constants {
    float scale, shift, shortcut_scale, shortcut_shift, threshold;
    Vec<float, 4> rprelu;
  };
  const BinaryConvFwdParams& p;
  const BatchNormApplyParams& norm;
  Vec<float, 4>* rprelu;  // shared [CHANNELS] bias1, slope, bias2
  float* constants;       // shared [5][CHANNELS] scale, shift, shortcut_scale, shortcut_shift, threshold
  word_t* tile_bits;      // shared [kTilePixels][kWords]
  int first_channel, first_column;
  Packed<T> residual[1 + (kWhen == kTile)][kPairs];
  word_t bits[2][kPairs / 2];  // of this lane's channels

  __device__ __forceinline__ Apply(const BinaryConvApplyParams& params, void* shared, int first_channel, int first_column)
      : p(params.conv),
        norm(params.norm),
        rprelu(static_cast<Vec<float, 4>*>(shared)),
        constants(reinterpret_cast<float*>(rprelu + CHANNELS)),
        tile_bits(reinterpret_cast<word_t*>(constants + 5 * CHANNELS)),
        first_channel(first_channel),
        first_column(first_column) {}
  __device__ __forceinline__ void begin() {
    const int t = int(threadIdx.x), c = first_channel + t;
    if (t >= CHANNELS) return;
    Affine affine = {0.0f, 0.0f};
    const bool exists = c < p.K;
    if (exists && norm.statistics.sums) {
      const long long* sums = static_cast<const long long*>(norm.statistics.sums);
      affine = channel_statistics(norm.statistics, c, sums[c], sums[p.K + c], 0.0, 0.0, blockIdx.x == 0);
    } else if (exists) {
      affine = {norm.affine[c], norm.affine[p.K + c]};
    }
    constants[t] = affine.scale;
    constants[CHANNELS + t] = affine.shift;
    constants[2 * CHANNELS + t] = exists && norm.shortcut_affine ? norm.shortcut_affine[c] : 0.0f;
    constants[3 * CHANNELS + t] = exists && norm.shortcut_affine ? norm.shortcut_affine[p.K + c] : 0.0f;
    constants[4 * CHANNELS + t] = exists && norm.threshold ? norm.threshold[c] : 0.0f;
    rprelu[t] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (exists && norm.slope) rprelu[t] = {norm.bias1[c], norm.slope[c], norm.bias2[c], 0.0f};
  }
  __device__ __forceinline__ void prepare(const LanePlace& place) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (kWhen == kTile) load_shortcut(place, i);
#pragma unroll
      for (int word = 0; word < kPairs / 2; ++word) bits[i][word] = 0;
    }
  }
  __device__ __forceinline__ void pixel(const LanePlace& place, int i) {
    if (kWhen == kPixel) load_shortcut(place, i);
  }
  __device__ __forceinline__ void load_shortcut(const LanePlace& place, int i) {
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) residual[i * (kWhen == kTile)][pair] = shortcut_of(place, i, pair);
  }
  __device__ __forceinline__ Packed<T> shortcut_of(const LanePlace& place, int i, int pair) const {
    const int k = place.channel + pair * 16;
    if (!norm.shortcut || !place.inside[i]) return {};
    return load_four(static_cast<const T*>(norm.shortcut) + place.pixel[i] * p.K + k, p.K - k, p.K % 4 == 0);
  }
  __device__ __forceinline__ void between(int64_t next) {
    if (next != blockIdx.x) store_bits(next - gridDim.x);
  }
  __device__ __forceinline__ void store_bits(int64_t index) {
    const Tile last = tile_at(p, index);
    const int t = int(threadIdx.x), pixel = t / kWords, word = first_channel / kWordBits + t % kWords;
    const int row = pixel / p.tile_q, h = last.p0 + row, w = last.q0 + pixel - row * p.tile_q;
    if (norm.bits && pixel < p.tile_p * p.tile_q && h < p.P && w < p.Q && word < norm.Cw)
      norm.bits[((last.image * p.P + h) * p.Q + w) * norm.Cw + word] = tile_bits[t];
  }
  __device__ __forceinline__ void four(const LanePlace& place, int i, int pair, const int32_t (&values)[4]) {
    const int k = place.channel + pair * 16, left = p.K - k, at = first_column + pair * 16 + int(threadIdx.x % 4) * 4;
    const bool aligned = p.K % 4 == 0;
    const int64_t first = place.pixel[i] * p.K + k;
    if (p.v)
      store_four(static_cast<int16_t*>(p.v) + first,
                 {int16_t(values[0]), int16_t(values[1]), int16_t(values[2]), int16_t(values[3])}, left, aligned);
    const Vec<float, 4> scale = load<float, 4>(constants + at), shift = load<float, 4>(constants + CHANNELS + at);
    Vec<float, 4> shortcut_scale = {}, shortcut_shift = {}, threshold = {};
    if (norm.threshold) threshold = load<float, 4>(constants + 4 * CHANNELS + at);
    if (norm.shortcut_affine) {
      shortcut_scale = load<float, 4>(constants + 2 * CHANNELS + at);
      shortcut_shift = load<float, 4>(constants + 3 * CHANNELS + at);
    }
    const Packed<T> addend = kWhen == kFour ? shortcut_of(place, i, pair) : residual[i * (kWhen == kTile)][pair];
    Vec<T, 4> y;
    word_t nibble = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      Constants of = {scale.v[j], shift.v[j], shortcut_scale.v[j], shortcut_shift.v[j], threshold.v[j], {}};
      if (norm.slope) of.rprelu = rprelu[at + j];
      bool negative = false;
      y.v[j] = batch_norm_applied(norm, of, float(values[j]), addend[j], negative);
      if (negative) nibble |= 1u << j;
    }
    store_four(static_cast<T*>(norm.y) + first, y, left, aligned);
    bits[i][pair / 2] |= nibble << (pair % 2 * 16 + int(threadIdx.x % 4) * 4);
  }
  __device__ __forceinline__ void finish_tile() {
    const int t = int(threadIdx.x), g = t % 32 / 4, q = t % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int word = 0; word < kPairs / 2; ++word) {
        word_t whole = bits[i][word];
        whole |= __shfl_xor_sync(kAllLanes, whole, 1);
        whole |= __shfl_xor_sync(kAllLanes, whole, 2);
        if (q == i * (kPairs / 2) + word) tile_bits[(t / 64 * 16 + g + 8 * i) * kWords + first_column / kWordBits + word] = whole;
      }
  }
  __device__ __forceinline__ void end(int64_t next) {
    __syncthreads();
    store_bits(next - gridDim.x);
  }
};

// ---- The convolution ----------------------------------------------------------------------------------------------

// Forward on tensor cores. The words of a window, all taps in a row, are the depth of a matrix product: 8 words a step, so a step
// spans several taps where C is small. Pixels outside the image are words of 0, so with the AND form
//   popc(x ^ w) over the taps inside = popc(x) + popc(w over the taps inside) - 2 popc(x & w),
// popc(x) being the product with a column of ones, and popc(w ...) four look-ups in a table of sums over the filter's corner
// rectangles (one look-up where the window's upper left corner is inside). Warps are 4 (of 16 pixels) by 2 (of half the
// channels). Channels are permuted among the columns so that a lane ends up with 4 neighbours: a row's 16 channels are one
// 32-byte sector of 16-bit values. Limiter: bandwidth. Shared: dynamic, in the order of the pointers below.
template <int CHANNELS, class Output, class Params>
__device__ __forceinline__ void binary_conv_mma(const BinaryConvFwdParams& p, const Params& params) {
  constexpr int kRow = CHANNELS + 8, kPairs = CHANNELS / 32;
  extern __shared__ uint4 shared128[];
  char* shared_of_output = reinterpret_cast<char*>(shared128);
  int32_t* corner_counts =
      reinterpret_cast<int32_t*>(shared_of_output + kMmaOutputBytes * CHANNELS);  // [(R+1)*(S+1)][kRow] popc(w) above and left
  word_t* weights = reinterpret_cast<word_t*>(corner_counts + (p.R + 1) * (p.S + 1) * kRow);   // [columns][kRow]
  word_t* halo = weights + p.columns * kRow;                                                   // [halo_h * halo_w][pixel_stride]
  int32_t* offsets = reinterpret_cast<int32_t*>(halo + p.halo_h * p.halo_w * p.pixel_stride);  // [columns]

  const int t = int(threadIdx.x), lane = t % 32, warp = t / 32, g = lane / 4, q = lane % 4;
  const int first_channel = int(blockIdx.y) * CHANNELS, first_column = warp % 2 * (CHANNELS / 2);
  const int taps = p.R * p.S, corners = (p.R + 1) * (p.S + 1), real_columns = taps * p.chunk_words;
  const auto position = [](int k) { return k / 16 * 16 + (k % 4) / 2 * 8 + (k % 16) / 4 * 2 + k % 2; };

  Output output(params, shared_of_output, first_channel, first_column);
  output.begin();
  for (int i = t; i < corners * kRow; i += kTileThreads) corner_counts[i] = 0;
  for (int i = t; i < p.columns; i += kTileThreads) {
    const int column = min(i, real_columns - 1);  // beyond, where w is 0, the last word once more: no other word in its bank
    const int tap = column / p.chunk_words, r = tap / p.S;
    offsets[i] = (r * p.halo_w + tap - r * p.S) * p.pixel_stride + column - tap * p.chunk_words;
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
  if (p.chunks == 1) load_weights<CHANNELS, kRow, 4>(weights, p, first_channel, 0, position);
  bool counted = false;  // corner_counts

  int64_t index = blockIdx.x;
  for (; index < p.tiles; index += gridDim.x) {
    const Tile tile = tile_at(p, index);
    LanePlace place;
    place.channel = first_channel + first_column + 4 * q;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = tile.p0 + dp[i], column = tile.q0 + dq[i];
      place.inside[i] = row < p.P && column < p.Q;
      place.pixel[i] = (tile.image * p.P + row) * p.Q + column;
    }
    output.prepare(place);
    int32_t both[2 * kPairs][4] = {}, ones[4] = {};
    for (int chunk = 0; chunk < p.chunks; ++chunk) {
      __syncthreads();  // nobody reads the last halo, weights or bits any more
      load_halo<2>(halo, p, tile, chunk);
      if (p.chunks > 1) load_weights<CHANNELS, kRow, 1>(weights, p, first_channel, chunk, position);
      if (chunk == 0) output.between(index);
      __syncthreads();
      if (!counted)
#pragma unroll 1
        for (int i = t; i < taps * CHANNELS; i += kTileThreads) {
          const int tap = i / CHANNELS, column = i % CHANNELS, r = tap / p.S;
          int count = 0;
#pragma unroll 1
          for (int word = 0; word < p.chunk_words; ++word) count += __popc(weights[(tap * p.chunk_words + word) * kRow + column]);
          corner_counts[((r + 1) * (p.S + 1) + tap - r * p.S + 1) * kRow + column] += count;
        }
#pragma unroll 1
      for (int column = 0; column < p.columns; column += 8) {
        const int o0 = offsets[column + q], o1 = offsets[column + 4 + q];
        const word_t a0 = halo[base[0] + o0], a1 = halo[base[1] + o0], a2 = halo[base[0] + o1], a3 = halo[base[1] + o1];
        const word_t* w = weights + (column + q) * kRow + first_column + g;
        mma_and_popc(ones, a0, a1, a2, a3, column + q < real_columns ? 0xFFFFFFFFu : 0u,
                     column + 4 + q < real_columns ? 0xFFFFFFFFu : 0u);
#pragma unroll
        for (int n = 0; n < 2 * kPairs; ++n) mma_and_popc(both[n], a0, a1, a2, a3, w[8 * n], w[4 * kRow + 8 * n]);
      }
    }
    if (!counted) {
      __syncthreads();  // corner_counts are complete
      if (t < CHANNELS)
        for (int r = 1; r <= p.R; ++r) {
          int row_sum = 0;
#pragma unroll 1
          for (int s = 1; s <= p.S; ++s) {
            row_sum += corner_counts[(r * (p.S + 1) + s) * kRow + t];
            corner_counts[(r * (p.S + 1) + s) * kRow + t] = row_sum + corner_counts[((r - 1) * (p.S + 1) + s) * kRow + t];
          }
        }
      __syncthreads();
      counted = true;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!place.inside[i]) continue;
      output.pixel(place, i);
      const int h0 = (tile.p0 + dp[i]) * p.stride - p.pad, w0 = (tile.q0 + dq[i]) * p.stride - p.pad;
      const int r0 = max(0, -h0), r1 = min(p.R, p.H - h0), s0 = max(0, -w0), s1 = min(p.S, p.W - w0);  // taps inside
      const int32_t* counts = corner_counts + first_column + 2 * q;
      const int upper = r0 * (p.S + 1), lower = r1 * (p.S + 1);
      const int fixed = p.C * (r1 - r0) * (s1 - s0) - 2 * ones[2 * i];
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        int32_t values[4];
#pragma unroll
        for (int n = 2 * pair; n < 2 * pair + 2; ++n) {
          Vec<int32_t, 2> weight = load<int32_t, 2>(counts + (lower + s1) * kRow + 8 * n);
          if (r0 | s0) {
            const Vec<int32_t, 2> above = load<int32_t, 2>(counts + (upper + s1) * kRow + 8 * n),
                                  left = load<int32_t, 2>(counts + (lower + s0) * kRow + 8 * n),
                                  corner = load<int32_t, 2>(counts + (upper + s0) * kRow + 8 * n);
            weight.v[0] += corner.v[0] - above.v[0] - left.v[0];
            weight.v[1] += corner.v[1] - above.v[1] - left.v[1];
          }
#pragma unroll
          for (int j = 0; j < 2; ++j) values[n % 2 * 2 + j] = fixed - 2 * weight.v[j] + 4 * both[n][2 * i + j];
        }
        output.four(place, i, pair, values);
      }
    }
    output.finish_tile();
  }
  output.end(index);
}

#define BIREAL_MMA_ENTRY(NAME, PARAMS, CONV, ...)                                                             \
  extern "C" __global__ void __launch_bounds__(kTileThreads, 2) binary_conv_##NAME##_kernel(const PARAMS p) { \
    binary_conv_mma<__VA_ARGS__>(CONV, p);                                                                    \
  }
BIREAL_MMA_ENTRY(fwd_mma_narrow, BinaryConvFwdParams, p, 64, Sums<64, true>)
BIREAL_MMA_ENTRY(fwd_mma_wide, BinaryConvFwdParams, p, 128, Sums<128, true>)
BIREAL_MMA_ENTRY(sums_mma_narrow, BinaryConvFwdParams, p, 64, Sums<64, false>)
BIREAL_MMA_ENTRY(sums_mma_wide, BinaryConvFwdParams, p, 128, Sums<128, false>)
BIREAL_MMA_ENTRY(apply_mma_narrow_f32, BinaryConvApplyParams, p.conv, 64, Apply<64, float>)
BIREAL_MMA_ENTRY(apply_mma_narrow_f16, BinaryConvApplyParams, p.conv, 64, Apply<64, __half>)
BIREAL_MMA_ENTRY(apply_mma_narrow_bf16, BinaryConvApplyParams, p.conv, 64, Apply<64, __nv_bfloat16>)
BIREAL_MMA_ENTRY(apply_mma_wide_f32, BinaryConvApplyParams, p.conv, 128, Apply<128, float>)
BIREAL_MMA_ENTRY(apply_mma_wide_f16, BinaryConvApplyParams, p.conv, 128, Apply<128, __half>)
BIREAL_MMA_ENTRY(apply_mma_wide_bf16, BinaryConvApplyParams, p.conv, 128, Apply<128, __nv_bfloat16>)

}  // namespace bireal
