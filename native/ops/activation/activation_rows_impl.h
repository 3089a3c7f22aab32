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
  } else if (kind == 2) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      float u = x[i], upper = u >= 1 ? 1.0f : u;
      y[i] = u <= -1 ? -1.0f : upper;
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = x[i];
  }
}

template <bool kShortcut>
BIREAL_INLINE void activation_bwd_pick(float* dx, const float* dy, const float* x, const float* shortcut, int64_t count, int kind,
                                       float slope) {
  if (kind == 0) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      float product = x[i] > 0 ? dy[i] : 0.0f;
      dx[i] = kShortcut ? shortcut[i] + product : product;
    }
  } else if (kind == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      // |u| >= 1 and |u| < 1 are both false for a NaN, which so passes nothing.
      float u = __builtin_fabsf(x[i]), g = dy[i], outside = u >= 1 ? g * slope : 0.0f;
      float product = u < 1 ? g : outside;
      dx[i] = kShortcut ? shortcut[i] + product : product;
    }
  } else if (kind == 2) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
      float product = __builtin_fabsf(x[i]) < 1 ? dy[i] : 0.0f;
      dx[i] = kShortcut ? shortcut[i] + product : product;
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) dx[i] = kShortcut ? shortcut[i] + dy[i] : dy[i];
  }
}

BIREAL_INLINE void activation_bwd_loop(float* dx, const float* dy, const float* x, const float* shortcut, int64_t count, int kind,
                                       float slope) {
  if (shortcut)
    activation_bwd_pick<true>(dx, dy, x, shortcut, count, kind, slope);
  else
    activation_bwd_pick<false>(dx, dy, x, shortcut, count, kind, slope);
}
