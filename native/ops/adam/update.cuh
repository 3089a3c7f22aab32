// Device code that finite_norm, adam and sgd share: the gradient of an element as the optimizer sees it, and the walk over an
// item that applies an update and, for a filter, binarizes the new weights.
#pragma once
#include "cuda/warp.cuh"
#include "ops/adam/update_items.h"

namespace bireal::cuda {

/// Threads of a block that works on one item.
constexpr int kUpdateThreads = 256;

/// weight_gradient of weight_binarize.h for one element; `gradient` is already divided by the loss scale.
__device__ __forceinline__ float ruled_gradient(float gradient, float w, float alpha, float inverse_n, WeightGradient rule) {
  float magnitude = fabsf(w);
  switch (rule) {
    case WeightGradient::kClipped: return magnitude <= 1.0f ? gradient : 0.0f;
    case WeightGradient::kMagnitudeAware: return magnitude < 1.0f ? alpha * gradient : 0.0f;
    case WeightGradient::kXnor: return gradient * (inverse_n + (magnitude <= 1.0f ? alpha : 0.0f));
    default: return gradient;
  }
}

/// The factor that takes the loss scale out of a gradient; exact, because scales are powers of two.
__device__ __forceinline__ float unscale_factor(const LossScale* scale) { return scale ? float(scale->unscale) : 1.0f; }

/// Applies `update(i, gradient) -> new parameter` to each element i of the item, with its ruled gradient. Then, for a filter,
/// writes the bits and alpha of the new weights. One block of kUpdateThreads. A warp owns 32 channels of a tap at a time, so that
/// its ballot is a word.
template <class Update>
__device__ __forceinline__ void update_item(const UpdateItem& item, const float* p, const float* g, float unscale,
                                            const Update& update) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, words = (item.C + kWordBits - 1) / kWordBits;
  const bool filter = item.bits != nullptr;
  const float alpha = filter ? *item.alpha : 0.0f, inverse_n = 1.0f / float(item.taps * item.C);
  int64_t sum = 0;
  bool in_range = true;
#pragma unroll 1  // unrolled, it takes more registers than the calls for sqrt and division leave free
  for (int word = warp; word < item.taps * words; word += kUpdateThreads / 32) {
    const int tap = word / words, c = word % words * kWordBits + lane;
    bool negative = false;
    if (c < item.C) {
      const int64_t i = item.begin + tap * item.C + c;
      float gradient = g[i] * unscale;
      if (filter) gradient = ruled_gradient(gradient, p[i], alpha, inverse_n, item.rule);
      const float value = update(i, gradient);
      if (filter) {
        negative = sign_bit(value);
        if (fabsf(value) < 512.0f)
          sum += __double2ll_rn(fabs(double(value)) * 0x1p40);
        else
          in_range = false;
      }
    }
    if (filter) {
      const word_t bits = __ballot_sync(kAllLanes, negative);
      if (lane == 0) item.bits[word] = bits;
    }
  }
  if (!filter) return;

  __shared__ int64_t warp_sums[kUpdateThreads / 32];
  __shared__ int warp_in_range[kUpdateThreads / 32];
  sum = warp_sum(sum);
  in_range = __all_sync(kAllLanes, in_range);
  if (lane == 0) {
    warp_sums[warp] = sum;
    warp_in_range[warp] = in_range;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kUpdateThreads / 32; ++i) {
      sum += warp_sums[i];
      in_range = in_range && warp_in_range[i];
    }
    const double n = double(item.taps * item.C);
    *item.alpha = in_range ? float(double(sum) / (n * 0x1p40)) : __int_as_float(0x7FC00000);
  }
}

}  // namespace bireal::cuda
