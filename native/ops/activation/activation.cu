// activation: elementwise, 4 elements a thread, 256 threads apart. Limited by memory.
#include "cuda/warp.cuh"
#include "ops/activation/activation_params.h"

namespace bireal::cuda {

static constexpr int kThreads = 256, kElements = 4;

__device__ __forceinline__ float activated(float u, ActivationKind kind, float slope) {
  if (kind == ActivationKind::kIdentity) return u;
  if (kind == ActivationKind::kRelu) return u <= 0 ? 0.0f : u;
  if (kind == ActivationKind::kClip) return u <= -1 ? -1.0f : u >= 1 ? 1.0f : u;
  return u <= -1 ? slope * (u + 1) - 1 : u >= 1 ? slope * (u - 1) + 1 : u;
}

__device__ __forceinline__ float activation_gradient(float dy, float u, ActivationKind kind, float slope) {
  if (kind == ActivationKind::kIdentity) return dy;
  if (kind == ActivationKind::kRelu) return u > 0 ? dy : 0.0f;
  const bool inside = u > -1 && u < 1, outside = u <= -1 || u >= 1;  // neither for a NaN
  if (inside) return dy;
  return outside && kind == ActivationKind::kLeakyClip ? dy * slope : 0.0f;
}

template <class T, bool kBackward>
__device__ __forceinline__ void activation(const ActivationParams& k) {
  const T *x = static_cast<const T*>(k.x), *dy = static_cast<const T*>(k.dy), *shortcut = static_cast<const T*>(k.shortcut);
  T* out = static_cast<T*>(k.out);
#pragma unroll
  for (int j = 0; j < kElements; ++j) {
    const int64_t i = (int64_t(blockIdx.x) * kElements + j) * kThreads + threadIdx.x;
    if (i >= k.count) return;
    const float u = to_float(x[i]);
    float value;
    if (kBackward) {
      value = activation_gradient(to_float(dy[i]), u, k.kind, k.slope);
      if (shortcut) value = to_float(shortcut[i]) + value;
    } else {
      value = activated(u, k.kind, k.slope);
    }
    out[i] = from_float<T>(value);
  }
}

template <class T>
__device__ __forceinline__ void activation_fwd(const ActivationParams& k) {
  activation<T, false>(k);
}

template <class T>
__device__ __forceinline__ void activation_bwd(const ActivationParams& k) {
  activation<T, true>(k);
}

BIREAL_STORAGE_ENTRIES(activation_fwd, kThreads, ActivationParams, activation_fwd)
BIREAL_STORAGE_ENTRIES(activation_bwd, kThreads, ActivationParams, activation_bwd)

}  // namespace bireal::cuda
