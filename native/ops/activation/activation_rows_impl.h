// The loops of activation, compiled by gcc for the instruction set of the including file. Selects only, so that they vectorise;
// `ivdep` because the output may be the input, element for element.
#pragma once
#include "core/bits.h"

BIREAL_INLINE void activation_fwd_loop(float* y, const float* x, int64_t count, int kind, float slope) {
  if (kind == 0) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = x[i] <= 0 ? 0.0f : x[i];
  } else if (kind == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      float u = x[i], below = slope * (u + 1) - 1, above = slope * (u - 1) + 1;
      float upper = u >= 1 ? above : u;
      y[i] = u <= -1 ? below : upper;
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      float u = x[i], upper = u >= 1 ? 1.0f : u;
      y[i] = u <= -1 ? -1.0f : upper;
    }
  }
}

BIREAL_INLINE void activation_bwd_loop(float* dx, const float* dy, const float* x, int64_t count, int kind, float slope) {
  if (kind == 0) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) dx[i] = x[i] > 0 ? dy[i] : 0.0f;
  } else if (kind == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      // |u| >= 1 and |u| < 1 are both false for a NaN, which so passes nothing.
      float u = __builtin_fabsf(x[i]), g = dy[i], outside = u >= 1 ? g * slope : 0.0f;
      dx[i] = u < 1 ? g : outside;
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) dx[i] = __builtin_fabsf(x[i]) < 1 ? dy[i] : 0.0f;
  }
}
