// bwd_input of the fixed-point gradients of binary_conv_fixed16.h with tables in memory, looked up by address.
//
// A line is a row of dz of some images side by side, cut into strips of 16 columns. For a strip and four output channels all 16
// sums of +-q lie in memory as rows of 16 columns, a cache line each (1 kB in all). The four sign bits of a weight select one of
// them: a vector addition with its operand in memory is 32 multiply-adds in 8 columns, exact in 32 bits, with no byte planes to
// join afterwards, and one table serves all taps and input channels. Sums in registers run over output channels and over the
// filter's rows; its columns are shifts along the line, and so are added up last, behind the sums of a whole line.
// Included by files compiled for one instruction set: C headers only, everything static and always inlined.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {

enum {
  kLineColumns = 16,     // of a strip
  kLineChannels = 8,     // input channels of a block: with 16 columns, 16 vector sums
  kLineTable = 16 * 16,  // 32-bit words of a table
  kLineTerms = 24,       // tables that stay in a first-level cache of 32 kB
  // Tables of all rows of dz that reach a row of dx, up to which this form is used. Measured on Zen 3 as multiples of oneDNN's
  // float32, byte planes and this: 1.08 and 1.55 (48 kB: 32 channels at 32x32), 1.24 and 1.50 (32 kB: the same, stride 2), 1.83
  // and 1.96 (48 kB: 64 at 16x16), but 1.48 and 1.51 (128 kB: 64 at 56x56, stride 2), 2.12 and 1.69 (192 kB: 128 at 28x28),
  // 1.78 and 1.53 (336 kB: 64 at 56x56).
  kLineBytes = 64 * 1024
};

/// One row of dx of all images of the line. `sums`: one block of channels after another.
struct Fixed16LineTask {
  const int32_t* const* rows;  // tables [strip][quad] of the rows of dz that reach it,
  const int64_t* filter_rows;  // and the filter row of each
  int64_t row_count;
  const uint8_t* weights;  // [block][S][R][quad][8], of fixed16_lines_weights
  int32_t* sums;           // [block][S][8][columns]
  int64_t blocks, R, S, quads, quad_block, columns;
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

}  // namespace bireal::cpu
