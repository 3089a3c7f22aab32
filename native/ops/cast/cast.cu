// cast: elementwise, 4 elements a thread, 256 threads apart. Limited by memory; the tensors are weights, so it hardly counts.
#include "cuda/warp.cuh"
#include "ops/cast/cast_params.h"

namespace bireal::cuda {

static constexpr int kThreads = 256, kElements = CastParams::kBlockElements / kThreads;

// body(tensor, i) for this block's elements of its tensor.
template <class Body>
__device__ __forceinline__ void for_each_element(const CastParams& k, const Body& body) {
  int low = 0, high = k.tensor_count - 1;  // the last tensor whose first block is not behind this one
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (k.tensors[middle].first_block <= blockIdx.x)
      low = middle;
    else
      high = middle - 1;
  }
  const CastParams::Tensor& t = k.tensors[low];
#pragma unroll
  for (int j = 0; j < kElements; ++j) {
    const uint32_t i = ((blockIdx.x - t.first_block) * kElements + j) * kThreads + threadIdx.x;
    if (i < t.count) body(t, i);
  }
}

template <class T>
__device__ __forceinline__ void cast_weights(const CastParams& k) {
  for_each_element(k, [](const CastParams::Tensor& t, uint32_t i) {
    float w = static_cast<const float*>(t.x)[i];
    if (t.alpha) {
      const float scale = t.alpha[i / t.filter_weights];
      w = sign_bit(w) ? -scale : scale;
    }
    static_cast<T*>(t.out)[i] = from_float<T>(w);
  });
}

template <class T>
__device__ __forceinline__ void cast_gradients(const CastParams& k) {
  for_each_element(k, [&](const CastParams::Tensor& t, uint32_t i) {
    float* out = static_cast<float*>(t.out);
    const float x = to_float(static_cast<const T*>(t.x)[i]);
    out[i] = k.accumulate ? out[i] + x : x;
  });
}

BIREAL_STORAGE_ENTRIES(cast_weights, kThreads, CastParams, cast_weights)
BIREAL_STORAGE_ENTRIES(cast_gradients, kThreads, CastParams, cast_gradients)

}  // namespace bireal::cuda
