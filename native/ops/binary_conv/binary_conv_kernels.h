// The forward kernels of binary_conv, one per instruction set, and what they are handed.
//
// A task is a run of output pixels (some rows of an image, or some small images). Its activations are staged with the border
// written out as zero bits (+1), so that every pixel sees all R*S taps and no kernel has a border path:
//   v = constant[border class][k] - 2 * popcount over all taps,  constant = valid_taps*C + 2 * popcount(w at the absent taps)
// (less twice the odd nibbles of w for the nibble kernels, which count by halves: binary_conv_nibble.h).
// `unit` is what a kernel reads activations in: a word_t, or the nibbles of a pair of pixels (binary_conv_nibble.h).
// Included by files compiled for one instruction set: C headers only, everything static and always inlined.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

struct BinaryConvTask {
  const void* x;            // staged activations, in units
  const int32_t* pixel;     // [pixel_count] unit where the window of the pixel (or of both pixels of the pair) begins
  const int32_t* constant;  // [pixel_count] index of the pixel's border class in `constants`, times the padded K; pairs: [2 each]
  const int32_t* output;    // pairs: [2 * pixel_count] number of the pixel in v, -1: there is none
  int64_t pixel_count;      // of pixels, or of pairs; >= 1
  int64_t R;                // rows of the filter, each of
  int64_t row_units;        //   S*Cw words of units that lie in sequence,
  int64_t pitch_units;      //   this far apart
  const void* weights;      // [padded K / block][R * row words][...]: the kernel's layout
  const void* constants;    // [border class][padded K], int16 (taken modulo 2^16) or int32 as v
  const int16_t* odd;       // nibble kernels: [pixel of v] twice the number of odd nibbles that the pixel's window holds
  int64_t column_units;     //   3 columns, stride 1: units of a column, weights are [...][R][column_units][3][...]; else 0
  int64_t K, padded_K;      // real and rounded up to the kernel's block
  void* v;                  // [pixel_count, K]
  const float* y;           // [pixel_count, K] what v will be normalised to, and with: the nibble kernels fetch both in passing
  const float* shortcut;    //   where y is not null; shortcut perhaps null
  int64_t* sums;            // [2, padded_K] to add to, or null; never with int32
  int64_t tiles_per_flush;  // tiles of kTilePixels whose v^2 fit an unsigned 32-bit sum, >= 1
};

enum { kTilePixels = 8 };

/// Words of 32 output channels: lane l of 32 holds this channel, so that _mm512_packs_epi32 of lanes 0-15 and 16-31 is in order.
BIREAL_INLINE int64_t word_lane_channel(int64_t lane) { return lane % 16 / 4 * 8 + lane % 4 + lane / 16 * 4; }

/// Bytes of 32 or 64 output channels: channel c is this byte, so that even and odd bytes, as 16 bits each, are in order.
BIREAL_INLINE int64_t byte_of_channel(int64_t c, int64_t channels) {
  int64_t half = channels / 2;
  return c % half * 2 + c / half;
}

/// How many of the 8 nibbles of a word have an odd number of ones.
BIREAL_INLINE int odd_nibbles(word_t word) {
  word ^= word >> 2;
  word ^= word >> 1;
  return int((word & 0x11111111u) * 0x11111111u >> 28);
}

using BinaryConvRun = void(const BinaryConvTask& task);
BinaryConvRun binary_conv_run_i16, binary_conv_run_i32;  // portable
BinaryConvRun binary_conv_run_i16_avx2;                  // nibble tables; int16 only
BinaryConvRun binary_conv_run_i16_avx512;                // nibble tables; int16 only
BinaryConvRun binary_conv_run_i16_avx512_vpopcnt, binary_conv_run_i32_avx512_vpopcnt;

/// What both nibble kernels read: for `words` words of 32 channels 8 units each, (nibble of first + 16 nibble of second) <<
/// shift, either perhaps null: zeros; and twice the number of odd nibbles of each pixel of a row.
void binary_conv_nibble_pairs_avx2(uint16_t* units, const word_t* first, const word_t* second, int64_t words, int shift);
void binary_conv_odd_nibbles_avx2(int16_t* odd, const word_t* row, int64_t pixels, int64_t Cw);

}  // namespace bireal::cpu
