// The fixed-point gradients of binary_conv_fixed16.h with tables in memory, looked up by address.
//
// bwd_input: a line is a row of dz of some images side by side, cut into strips of 16 columns. For a strip and four output
// channels all 16 sums of +-q lie in memory as rows of 16 columns, a cache line each (1 kB in all). The four sign bits of a
// weight select one of them: a vector addition with its operand in memory is 32 multiply-adds in 8 columns, exact in 32 bits,
// with no byte planes to join afterwards, and one table serves all taps and input channels. Sums in registers run over output
// channels and over the filter's rows; its columns are shifts along the line, and so are added up last, behind the sums of a
// whole line.
//
// bwd_weight: the table of four output pixels and 16 output channels, likewise 16 rows of a cache line, serves all taps and input
// channels; the sign bits of the four pixels that a tap sees select the row. The four are neighbours in a line (a row of dz of
// some images side by side), so that their bits are those of a window along a row of x, which the filter's rows share.
// Included by files compiled for one instruction set: C headers only, everything static and always inlined.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

enum {
  kLineColumns = 16,     // of a strip
  kLineChannels = 8,     // input channels of a block: with 16 columns, 16 vector sums
  kLineTable = 16 * 16,  // 32-bit words of a table
  kLineTerms = 24,       // tables that stay in a first-level cache of 32 kB
  kLineEntry = 8,        // an entry is kept as 8 times its number: the address of its row, over 8
  // Tables of all rows of dz that reach a row of dx, up to which this form is used, and for up to 64 output channels. Measured on
  // Zen 3 in turn with byte planes: 1.6 times as fast (48 kB: 32 channels at 32x32), 1.4 (32 kB: the same, stride 2), 1.3 (48 kB:
  // 64 at 16x16), 1.04 to 1.15 (336 kB: 64 at 56x56), but 0.95 to 1.03 (128 kB: 64 to 128 at 56x56, stride 2), 0.93 to 1 (192 kB:
  // 128 at 28x28).
  kLineBytes = 64 * 1024,
  kNarrowLineBytes = 384 * 1024
};

/// Memory that will be read or written next: fetched in passing, because neither columns of dz nor channels of dx come in an
/// order that the processor foresees.
struct Fixed16LineAhead {
  const float* begin;
  int64_t count;
};

/// One row of dx of all images of the line. `sums`: one block of channels after another.
struct Fixed16LineTask {
  const int32_t* const* rows;  // tables [strip][quad] of the rows of dz that reach it,
  const int64_t* filter_rows;  // and the filter row of each
  int64_t row_count;
  const uint8_t* weights;  // [block][S][R][quad][8], of fixed16_lines_weights
  int32_t* sums;           // [block][S][8][columns]
  int64_t blocks, R, S, quads, columns;
  const Fixed16LineAhead* ahead;
  int64_t ahead_count;
};

/// One image of that row.
struct Fixed16LineImage {
  const int32_t* sums;    // at the image's column 0
  const int32_t* inside;  // -1 for columns of dz, 0 before and behind them
  float* dx;              // row of W pixels
  double step;
  int64_t W, Q, C, S, stride, pad, columns;
};

/// out [S][R][quad][8]: 8 times the entry of each input channel of the block.
void fixed16_lines_weights(uint8_t* out, const word_t* w, int64_t block, int64_t K, int64_t C, int64_t R, int64_t S);
/// Tables of a line, out [strip][quad]; column[i] + offset: dz of column i, inverse[i]: 1 / step of its image.
void fixed16_lines_stage(int32_t* out, const float* const* column, int64_t offset, const float* inverse, const float* alpha,
                         int64_t columns, int64_t K);
void fixed16_lines_add(const Fixed16LineTask& task);
void fixed16_lines_finish(const Fixed16LineImage& image);

/// Up to kLineTerms quads of output pixels, 16 output channels and some blocks of input channels of bwd_weight.
struct Fixed16LineWeight {
  const int32_t* tables;   // [quad]
  const uint8_t* entries;  // [S][block][block_bytes] of fixed16_lines_entries, at the first quad
  const int64_t* rows;     // bytes to the entries of each filter row
  int32_t* sums;           // [tap][row_channels][16] to add to, at the first block
  int64_t quads, R, S, blocks, entry_blocks, block_bytes, row_channels;  // entry_blocks: `blocks` rounded up to whole words
  bool first;                                                            // overwrite sums
  const float* const* next;  // dz that the next call of fixed16_lines_weight_stage will read, from channel next_k on
  int64_t next_count, next_k;
};

/// Entries of the windows that quads see through one column of the filter: out [block of 8 channels][..][8], blocks `block_bytes`
/// apart. x: a row of pixels of `words` words each; column[4 * quads]: in words.
void fixed16_lines_entries(uint8_t* out, int64_t block_bytes, const word_t* x, const int32_t* column, int64_t quads,
                           int64_t words);
/// Tables [quad] of the 16 output channels from k on; pixels[4 * quads]: dz [K] of each, null for q = 0.
void fixed16_lines_weight_stage(int32_t* out, const float* const* pixels, const float* inverse, int64_t quads, int64_t k,
                                int64_t K);
void fixed16_lines_weight_add(const Fixed16LineWeight& task);
/// Adds q of a pixel to sums, and q^2 to squares; either may be null.
void fixed16_lines_pixel(int32_t* sums, int64_t* squares, const float* dz, const float* inverse, int64_t channels);
/// One tap of 16 output channels: out[k][c] = float((sum of sums[slice][c][k] - correction[k]) * step[k]), or added to out;
/// null: none.
void fixed16_lines_weight_finish(float* const* out, const int32_t* sums, int64_t slice_sums, int64_t slices,
                                 const double* correction, const double* step, int64_t C, bool accumulate);

}  // namespace bireal::cpu
