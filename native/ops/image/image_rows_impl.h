#pragma once
#include "core/bits.h"

BIREAL_INLINE void image_scale_bytes_loop(float* __restrict__ x, const uint8_t* __restrict__ pixels,
                                          const float* __restrict__ scale, const float* __restrict__ shift, int64_t count) {
  for (int64_t j = 0; j < count; ++j) x[j] = __builtin_fmaf((float)pixels[j], scale[j], shift[j]);
}
