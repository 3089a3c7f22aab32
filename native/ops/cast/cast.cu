// cast: elementwise, 4 elements a thread, 256 threads apart. Limited by memory; the tensors are weights, so it hardly counts.
#include "cuda/warp.cuh"
#include "ops/cast/cast_params.h"

namespace bireal::cuda {

static constexpr int kThreads = 256, kElements = 4;

template <class Body>
__device__ __forceinline__ void for_each_element(int64_t count, const Body& body) {
#pragma unroll
  for (int j = 0; j < kElements; ++j) {
    const int64_t i = (int64_t(blockIdx.x) * kElements + j) * kThreads + threadIdx.x;
    if (i < count) body(i);
  }
}

template <class T>
__device__ __forceinline__ void cast_narrow(const CastParams& k) {
  T* out = static_cast<T*>(k.out);
  const float* x = static_cast<const float*>(k.x);
  for_each_element(k.count, [&](int64_t i) { out[i] = from_float<T>(x[i]); });
}

template <class T>
__device__ __forceinline__ void cast_widen(const CastParams& k) {
  float* out = static_cast<float*>(k.out);
  const T* x = static_cast<const T*>(k.x);
  for_each_element(k.count, [&](int64_t i) { out[i] = k.accumulate ? out[i] + to_float(x[i]) : to_float(x[i]); });
}

BIREAL_STORAGE_ENTRIES(cast_narrow, kThreads, CastParams, cast_narrow)
BIREAL_STORAGE_ENTRIES(cast_widen, kThreads, CastParams, cast_widen)

}  // namespace bireal::cuda
