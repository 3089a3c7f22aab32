// Parameters of the kernels in sign_pack.cu.
#pragma once
#include <stdint.h>

namespace bireal {
struct SignPackParams {
  uint32_t* bits;          // [rows, Cw]
  const void* x;           // [rows, C] of the kernel's type
  const float* threshold;  // [C] or null
  int64_t word_count;      // rows * Cw
  int32_t C, Cw;
};

struct SignUnpackParams {
  void* x;               // [rows, C] of the kernel's type
  const uint32_t* bits;  // [rows, Cw]
  uint32_t items;        // rows * C, or rows * C / 8 where 8 divides C
  int32_t C;
};
}  // namespace bireal
