// Parameters of the kernels in approx_sign.cu.
#pragma once
#include <stdint.h>

namespace bireal {
struct ApproxSignParams {
  void* dx;  // [rows, C], as db, x and shortcut of the kernel's first type
  const void *db, *x;
  const void* shortcut;    // [rows, C], or [n, H/2, W/2, C] where pooled_W is W, or null
  const float* threshold;  // [C] or null
  double* threshold_sums;  // [slices, C] or null
  double* norm_sums;       // [slices, 2, C] or null
  const void* norm_v;      // [rows, C] of the kernel's second type, where norm_sums are wanted
  double* second_sums;     // [slices, 2, C] or null
  const void* second_v;    // [rows, C] as dx, where second_sums are wanted
  int64_t rows;
  int32_t C, slices, clipped_identity, pooled_W;
};
}  // namespace bireal
