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
}  // namespace bireal
