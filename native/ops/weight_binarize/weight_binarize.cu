#include "cuda/warp.cuh"
#include "ops/weight_binarize/weight_binarize_params.h"

namespace bireal {

constexpr int kThreads = 128;

// The tensor that this block's filter belongs to: the last whose first block is not behind it.
__device__ __forceinline__ int tensor_of_block(const WeightBinarizeParams& p) {
  int low = 0, high = p.tensor_count - 1;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (p.tensors[middle].first_block <= int(blockIdx.x))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// A block packs one filter: each warp takes every fourth word, lane l reads channel l of it. |w| 2^40 is exact in float32, so one
// conversion rounds it. Limiter: bandwidth. Shared: 40 bytes.
extern "C" __global__ void __launch_bounds__(kThreads) weight_binarize_fwd_kernel(const WeightBinarizeParams p) {
  __shared__ long long sums[kThreads / 32];
  const BinaryFilters& t = p.tensors[tensor_of_block(p)];
  const int C = t.C, Cw = (C + kWordBits - 1) / kWordBits, words = t.taps * Cw;
  const int64_t k = int64_t(blockIdx.x) - t.first_block;
  const float* w = t.w + k * t.taps * C;
  uint32_t* bits = t.bits + k * words;
  const int lane = int(threadIdx.x % 32);
  long long sum = 0;
  bool in_range = true;
  for (int word = int(threadIdx.x / 32); word < words; word += kThreads / 32) {
    const int tap = word / Cw, c = (word - tap * Cw) * kWordBits + lane;
    float value = 0.0f;
    if (c < C) value = w[tap * C + c];
    const float magnitude = fabsf(value);
    if (magnitude < 512.0f)
      sum += __float2ll_rn(magnitude * 0x1p40f);
    else
      in_range = false;  // too large, or NaN
    const word_t packed = __ballot_sync(kAllLanes, sign_bit(value));
    if (lane == 0) bits[word] = packed;
  }
  const bool all_in_range = __syncthreads_and(in_range);
  sum = block_sum<kThreads>(sum, sums);
  if (threadIdx.x == 0)
    t.alpha[k] = all_in_range ? float(double(sum) / (double(t.taps * C) * 0x1p40)) : __int_as_float(0x7FC00000);
}

// A block takes one filter.
extern "C" __global__ void __launch_bounds__(kThreads) weight_gradient_bwd_kernel(const WeightBinarizeParams p) {
  const BinaryFilters& t = p.tensors[tensor_of_block(p)];
  const int n = t.taps * t.C;
  const int64_t k = int64_t(blockIdx.x) - t.first_block;
  const float* w = t.w + k * n;
  float* g = t.g + k * n;
  const float alpha = t.alpha[k], inverse_n = 1.0f / float(n);
  for (int i = int(threadIdx.x); i < n; i += kThreads) {
    const float magnitude = fabsf(w[i]);
    if (p.rule == 0)
      g[i] = magnitude <= 1.0f ? g[i] : 0.0f;
    else if (p.rule == 1)
      g[i] = magnitude < 1.0f ? alpha * g[i] : 0.0f;
    else if (p.rule == 3)
      g[i] = g[i] * (inverse_n + (magnitude <= 1.0f ? alpha : 0.0f));
  }
}

}  // namespace bireal
