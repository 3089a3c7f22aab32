// The kernels of conv2d for images: few channels in (3, 1), for which oneDNN's kernels, made for blocks of 8 or 16, are not.
// One set per instruction set; each is defined in the file that is compiled for it.
//
// The S*C floats of a filter row lie in sequence in an NHWC image, and so do those of the next pixel, stride*C further on. So the
// row of a tile of pixels is read where it lies, one float broadcast against a vector of output channels at a time. For the
// gradient of the weights likewise, a tile being some of those floats, summed over a row of pixels.
#pragma once
#include <stdint.h>

#include "core/bits.h"

namespace bireal::cpu {

struct Conv2dRow {         // one row of output pixels
  const float* x;          // the padded image at filter row 0 and pixel 0
  int64_t pitch_floats;    // from one row of the padded image to the next
  int64_t step_floats;     // from one output pixel to the next: stride * C
  int64_t R, row_floats;   // rows of the filter, and S*C
  int64_t r_begin, r_end;  // filter rows inside the image
  const float* w;          // [padded K / block][R][S*C][block]
  float* y;                // [Q,K]
  int64_t Q, K;
};

struct Conv2dWeightRow {  // the same for the gradient
  const float* x;
  int64_t pitch_floats, step_floats, R, row_floats, r_begin, r_end;
  const float* dy;  // [Q, padded K]
  float* dw;        // as w, to add to
  int64_t Q, padded_K;
};

struct Conv2dDirectKernel {
  const char* name;
  int64_t block;  // output channels that lie side by side in w; K is padded with zeros to a multiple
  void (*run)(const Conv2dRow& row);
  void (*run_weight)(const Conv2dWeightRow& row);
};
extern const Conv2dDirectKernel conv2d_direct_avx2, conv2d_direct_avx512;

}  // namespace bireal::cpu
