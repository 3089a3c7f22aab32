// The fixed-point gradients of binary_conv_fixed16.h as 8-bit matrix products of AMX: q = 256 * high + low with high in
// -128..127 and low in 0..255, so that a sum of +-q is 256 * (sum of +-high) + (sum of +-low), exact in 32 bits.
// TDPBSSD and TDPBUSD do 16,384 multiply-adds in 16 cycles; two of them make one for q: 512 a cycle.
//
// Images are laid out as one line of positions: rows one after another, with gaps of zeros that keep neighbours apart. A tap of
// the filter is then a shift along the line, and 16 positions in sequence are the rows of a tile.
// Input row h = stride * i + phase; tap r reaches dz row i - offset(r) for the phase that r belongs to (columns likewise).
// Included by files compiled for one instruction set: C headers only, everything static and always inlined.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

enum { kTilePositions = 16, kTileDepth = 64, kTileChannels = 32, kTilePairBytes = 2048, kTileSums = 1024 };

/// Some rows of one phase of one image of bwd_input.
struct Fixed16TileInput {
  const int8_t* high;  // [position][plane_pitch], output channels in sequence, at row 0 and column 0 of dz
  const uint8_t* low;
  int64_t plane_pitch, depth_chunks;  // bytes a position; chunks of 64 output channels
  const int8_t* weights;              // [tap of the phase][chunk] pairs of tiles, for the first 32 input channels
  int64_t weight_pitch;               // bytes to those of the next 32
  const int64_t* shifts;              // in positions, of each tap of the phase
  int64_t taps, first, last;          // positions [first, last), first at the start of a row
  int64_t row, width;                 // positions of a row, and how many of them are pixels
  float* dx;                          // at position 0
  int64_t row_step, column_step, C;   // floats
  double step;
};

/// One chunk of positions and some output channels of bwd_weight.
struct Fixed16TileWeight {
  const int8_t* high;  // [output channel][plane_pitch], positions in sequence, at position 0
  const uint8_t* low;
  int64_t plane_pitch;
  const int8_t* x;  // [phase][32 channels][position / 4][channel][4]: +1, -1, and 0 in gaps
  const int64_t* tap_x;
  const int64_t* shifts;
  int64_t taps, positions, channel_tiles, channels;  // channel_tiles: of 16 output channels; channels: input, rounded up to 32
  int32_t* tiles;                                    // scratch, kTileSums for each tap, aligned to 64 bytes
  int32_t* sums;                                     // [output channel][tap][channels] to add to
  bool first;                                        // overwrite sums
};

/// Every function below runs between these two, which hand the tile registers to the thread.
void fixed16_tiles_begin();
void fixed16_tiles_end();

/// Weights of one tap for 32 input channels from word `word` on: [chunk of 64 output channels][2][16][16][4].
void fixed16_tiles_weights(int8_t* out, const word_t* w, int64_t word, int64_t tap, int64_t K, int64_t C, int64_t taps);
/// q of `pixels` pixels of dz, zeros in the positions behind them up to `positions`. Returns the sum of q^2 if asked for.
int64_t fixed16_tiles_stage_row(int8_t* high, uint8_t* low, int64_t plane_pitch, const float* dz, const float* alpha,
                                float inverse, int64_t pixels, int64_t positions, int64_t K, bool squares);
void fixed16_tiles_input(const Fixed16TileInput& task);

/// q of 16 output channels from k on, transposed; pixels[i]: dz of position i (all K), for a multiple of 64 positions.
/// squares: null, or 16 sums of q^2 to add to.
void fixed16_tiles_stage_channels(int8_t* high, uint8_t* low, int64_t plane_pitch, const float* const* pixels, int64_t positions,
                                  int64_t k, int64_t K, const float* inverse, int64_t* squares);
/// One phase of x; pixels[i]: its words at position i, or null for a gap. positions: multiple of 4.
void fixed16_tiles_stage_x(int8_t* out, const word_t* const* pixels, int64_t positions, int64_t words);
void fixed16_tiles_weight(const Fixed16TileWeight& task);

}  // namespace bireal::cpu
