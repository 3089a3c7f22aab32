// What the forward kernels of binary_conv share: a block of 256 threads computes tiles of up to 64 output pixels by kChannels
// output channels. The weights of its channels and the input pixels that a tile touches (its halo) lie in shared memory, so every
// tap reads them from there. Blocks keep their channels and walk over tiles: weights are loaded once where all words fit.
#pragma once
#include "cuda/warp.cuh"
#include "ops/binary_conv/binary_conv_params.h"

namespace bireal {

constexpr int kTileThreads = 256;
constexpr int kTilePixels = 64;

struct Tile {
  int64_t image;
  int p0, q0;  // first output pixel
};

__device__ __forceinline__ Tile tile_at(const BinaryConvFwdParams& p, int64_t index) {
  const int of_image = p.tiles_p * p.tiles_q;
  const int64_t image = index / of_image;
  const int rest = int(index - image * of_image), row = rest / p.tiles_q;
  return {image, row * p.tile_p, (rest - row * p.tiles_q) * p.tile_q};
}

/// Words [chunk * chunk_words, ...) of every tap of the block's channels: shared[column * ROW + position(k)], column =
/// tap * chunk_words + word. Columns, words and channels that do not exist are 0. A warp reads 8 words of 4 filters at a time:
/// filters 0, 1, 4, 5 or 2, 3, 6, 7 of 8, which Position of the tensor cores puts side by side, so that two words at most fall
/// into one bank.
template <int CHANNELS, int ROW, int UNROLL, class Position>
__device__ __forceinline__ void load_weights(word_t* shared, const BinaryConvFwdParams& p, int first_channel, int chunk,
                                             const Position& position) {
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  const int column_groups = (p.columns + 7) / 8, taps = p.R * p.S;
#pragma unroll UNROLL
  for (int unit = warp; unit < column_groups * (CHANNELS / 4); unit += kTileThreads / 32) {
    const int group = unit / column_groups;
    const int column = (unit - group * column_groups) * 8 + lane % 8;
    const int k = group / 2 * 8 + group % 2 * 2 + lane / 16 * 4 + lane / 8 % 2;
    if (column >= p.columns) continue;
    const int tap = column / p.chunk_words, word = chunk * p.chunk_words + column - tap * p.chunk_words;
    word_t bits = 0;
    if (tap < taps && word < p.Cw && first_channel + k < p.K) bits = p.w[(int64_t(first_channel + k) * taps + tap) * p.Cw + word];
    shared[column * ROW + position(k)] = bits;
  }
}

/// The same words of the tile's halo: shared[(row * halo_w + column) * pixel_stride + word]; 0 outside the image.
template <int UNROLL>
__device__ __forceinline__ void load_halo(word_t* shared, const BinaryConvFwdParams& p, const Tile& tile, int chunk) {
  const int count = p.halo_h * p.halo_w * p.chunk_words;
  const int h0 = tile.p0 * p.stride - p.pad, w0 = tile.q0 * p.stride - p.pad;
#pragma unroll UNROLL
  for (int i = int(threadIdx.x); i < count; i += kTileThreads) {
    const int pixel = i / p.chunk_words, in_chunk = i - pixel * p.chunk_words, word = chunk * p.chunk_words + in_chunk;
    const int row = pixel / p.halo_w, h = h0 + row, w = w0 + pixel - row * p.halo_w;
    word_t bits = 0;
    if (h >= 0 && h < p.H && w >= 0 && w < p.W && word < p.Cw) bits = p.x[((tile.image * p.H + h) * p.W + w) * p.Cw + word];
    shared[pixel * p.pixel_stride + in_chunk] = bits;
  }
}

}  // namespace bireal
