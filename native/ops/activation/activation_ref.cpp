#include "ops/activation/activation.h"

namespace bireal::ref {

void activation_fwd(float* y, const float* x, int64_t count, ActivationKind kind, float slope) {
  for (int64_t i = 0; i < count; ++i) {
    float u = x[i];
    if (kind == ActivationKind::kIdentity) {
      y[i] = u;
    } else if (kind == ActivationKind::kRelu) {
      y[i] = u <= 0 ? 0.0f : u;
    } else if (kind == ActivationKind::kClip) {
      y[i] = u <= -1 ? -1.0f : u >= 1 ? 1.0f : u;
    } else {
      y[i] = u <= -1 ? slope * (u + 1) - 1 : u >= 1 ? slope * (u - 1) + 1 : u;
    }
  }
}

void activation_bwd(float* dx, const float* dy, const float* x, const float* shortcut, int64_t count, ActivationKind kind,
                    float slope) {
  for (int64_t i = 0; i < count; ++i) {
    float u = x[i];
    bool inside = u > -1 && u < 1, outside = u <= -1 || u >= 1;  // neither for a NaN
    float product;
    if (kind == ActivationKind::kIdentity) {
      product = dy[i];
    } else if (kind == ActivationKind::kRelu) {
      product = u > 0 ? dy[i] : 0.0f;
    } else if (kind == ActivationKind::kClip) {
      product = inside ? dy[i] : 0.0f;
    } else {
      product = inside ? dy[i] : outside ? dy[i] * slope : 0.0f;
    }
    dx[i] = shortcut ? shortcut[i] + product : product;
  }
}

}  // namespace bireal::ref
