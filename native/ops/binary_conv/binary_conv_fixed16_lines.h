// The fixed-point gradients of binary_conv_fixed16.h with tables in memory, looked up by address.
//
// A group is five values of dz, in 24 columns. A term +q or -q is counted as h = (term + |q|) / 2, which is q's magnitude or 0,
// so that the sum of the terms is 2 H - A, with H the sum of h and A that of |q|. H of 64 terms is at most 64 * 32767 < 2^21:
// three columns share a 64-bit word. A group's 32 sums of h lie in memory as rows of 24 columns, a cache line each (2 kB in
// all); five sign bits select a row, and a vector addition with its operand in memory is 60 multiply-adds in 12 columns. Up to
// 13 groups with at most 64 values, whose tables stay in a first-level cache, are looked up for all taps and input channels of a
// task before the next ones are built (a round). H of 8 input channels in 24 columns, one tap, is 16 registers meanwhile (a
// tile); between, it lies in a second-level cache, still three columns a word. Before a round that could make a field overflow,
// which A tells, all fields are added to sums of 32 bits (a flush): in a training (docs/results.md) less than 1% of rounds.
//
// bwd_input: a line is a row of dz of some images side by side, cut into strips of 24 columns; a group is five output channels of
// a strip, and the sign bits are those of weights. A row of dz adds to the rows of dx that the filter's rows reach; the filter's
// columns are shifts along the line, so each has its own sums, added up last.
//
// bwd_weight: a group is five output pixels, the columns are 24 output channels. The five are neighbours in a line (a row of dz
// of some images side by side), so that their sign bits are those of a window along a row of x, which the filter's rows share.
//
// Included by files compiled for one instruction set: C headers only, everything static and always inlined.
#pragma once
#include "core/bits.h"
#include "ops/binary_conv/binary_conv_fixed16.h"

namespace bireal::cpu {

enum {
  kLineColumns = 24,                             // of a strip
  kLineNarrow = 8,                               // columns that one of the two vectors of a row holds alone
  kLineWords = 8,                                // 64-bit words of a row
  kLineChannels = 8,                             // input channels of a tile
  kLineValues = 5,                               // of a group
  kLineTable = (1 << kLineValues) * kLineWords,  // 64-bit words
  kLineTerms = 64,                               // of a round
  kLineGroups = 13,                              // whose tables stay in a first-level cache of 32 kB
  kLineEntry = 8,                                // an entry is kept as 8 times its number: the address of its row, over 8
  kLineFetch = 16,                               // floats of a cache line
  kLineField = (1 << 21) - 1,                    // the most that H may be
  kLineSumBytes = 288 * 1024                     // of bwd_input, in a second-level cache of 512 kB
};
static_assert(kLineTerms * kFixed16Max <= kLineField, "H of a round fits its field");

/// Memory that will be read or written next: fetched in passing, because neither columns of dz nor channels of dx come in an
/// order that the processor foresees.
struct Fixed16LineAhead {
  const float* begin;
  int64_t count;
};
struct Fixed16LineFetcher {
  const Fixed16LineAhead *piece, *end;
  int64_t share;     // cache lines with every tile
  int64_t done = 0;  // floats of the piece

  /// The pieces come with `tiles` tiles.
  Fixed16LineFetcher(const Fixed16LineAhead* pieces, int64_t count, int64_t tiles);
};

/// What the tables of some groups add to: H [tap][block of 8 channels][8][8 words] of one row of the filter.
struct Fixed16LineRow {
  int64_t* words;
  const uint8_t* entries;  // [tap][block][group][8]: kLineEntry times the entry of each channel
  bool first;              // overwrite words
};
struct Fixed16LineTask {
  const int64_t* tables;  // [group]
  const Fixed16LineRow* rows;
  int64_t groups, row_count, S, blocks;  // at most kLineGroups groups; S taps a row
  int64_t tap_words;                     // words from one tap's H to the next,
  int64_t tap_entries, block_entries;    // and bytes of entries from tap to tap and from block to block
  bool narrow;                           // kLineNarrow columns: the others are neither read nor written
};
void fixed16_lines_add(const Fixed16LineTask& task, Fixed16LineFetcher* fetcher);
/// Adds the fields of H [count][8 words] to sums [count][24 columns], or overwrites them.
void fixed16_lines_flush(int32_t* sums, const int64_t* words, int64_t count, bool first, bool narrow);

/// bwd_input: entries of `block` for `groups` groups from output channel k to k_end, out [R][S][block][group][8].
void fixed16_lines_weights(uint8_t* out, const word_t* w, int64_t block, int64_t blocks, int64_t groups, int64_t k, int64_t k_end,
                           int64_t C, int64_t R, int64_t S);
/// Tables of a strip, of the output channels from k to k_end; column[i] + offset: dz [K] of column i, inverse[i]: 1 / step of
/// its image. magnitudes [24 columns]: adds |q|. Returns the largest sum of |q| of a column, of these channels alone.
int32_t fixed16_lines_stage(int64_t* out, int32_t* magnitudes, const float* const* column, int64_t offset, const float* inverse,
                            const float* alpha, int64_t groups, int64_t k, int64_t k_end, bool narrow);

/// A strip of a block's sums, as part of lines: out [S][8][columns] = the fields of words + sums, which may be null.
void fixed16_lines_gather(int32_t* out, int64_t columns, const int64_t* words, int64_t tap_words, const int32_t* sums,
                          int64_t tap_sums, int64_t S);

/// Up to 8 channels of one image of a row of dx.
struct Fixed16LineImage {
  const int32_t* sums;        // of h [S][8][columns], at the image's column 0
  const int32_t* magnitudes;  // sums of |q| [columns], likewise
  const int32_t* inside;      // -1 for columns of dz, 0 before and behind them
  float* dx;                  // W pixels of C channels, at the first channel
  double step;
  int64_t W, Q, C, channels, S, stride, pad, columns;
};
void fixed16_lines_finish(const Fixed16LineImage& image);

/// bwd_weight: entries of the windows that groups see through one column of the filter, out [block][..][8], blocks `block_bytes`
/// apart. x: a row of pixels of `words` words each; column[5 * groups]: in words.
void fixed16_lines_entries(uint8_t* out, int64_t block_bytes, const word_t* x, const int32_t* column, int64_t groups,
                           int64_t words);
/// Tables of the 24 output channels from k on; pixels[5 * groups]: dz [K] of each, null for q = 0. magnitudes [24]: adds |q|.
/// Returns the largest sum of |q| of a channel, of these pixels alone.
int32_t fixed16_lines_weight_stage(int64_t* out, int32_t* magnitudes, const float* const* pixels, const float* inverse,
                                   int64_t groups, int64_t k, int64_t K);
/// Adds q of a pixel to sums, and q^2 to squares; either may be null.
void fixed16_lines_pixel(int32_t* sums, int64_t* squares, const float* dz, const float* inverse, int64_t channels);
/// One tap of 24 output channels: out[k][c] = float((2 * sum of sums[slice][c][k] - correction[k]) * step[k]), or added to
/// out; null: none.
void fixed16_lines_weight_finish(float* const* out, const int32_t* sums, int64_t slice_sums, int64_t slices,
                                 const double* correction, const double* step, int64_t C, bool accumulate);

}  // namespace bireal::cpu
