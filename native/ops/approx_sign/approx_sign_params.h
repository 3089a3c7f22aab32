// Parameters of the kernels in approx_sign.cu.
#pragma once
#include <stdint.h>

namespace bireal {
struct ApproxSignParams {
  void* dx;  // [rows, C], as db, x and shortcut of the kernel's first type
  const void *db, *x;
  const void* shortcut;    // or null
  const float* threshold;  // [C] or null
  double* threshold_sums;  // [slices, C] or null
  double* norm_sums;       // [slices, 2, C] or null
  const void* norm_v;      // [rows, C] of the kernel's second type, where norm_sums are wanted
  int64_t rows;
  int32_t C, slices, clipped_identity;
};
}  // namespace bireal
