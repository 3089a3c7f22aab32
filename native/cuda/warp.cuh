// Device code shared by the kernels of all ops: stored types, vectors of them, sign bits, reductions in a fixed order.
// Included by .cu files only.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace bireal {

using word_t = uint32_t;  // core/bits.h: channel c is bit c % 32 of word c / 32, bit 1 means -1
constexpr int kWordBits = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

/// Entry points of one kernel for each stored type: NAME_f32_kernel, NAME_f16_kernel and NAME_bf16_kernel call body<T>(params).
/// They are extern "C" because the loader finds kernels by name.
#define BIREAL_ENTRY(NAME, SUFFIX, THREADS, PARAMS, ...) \
  extern "C" __global__ void __launch_bounds__(THREADS) NAME##_##SUFFIX##_kernel(const PARAMS p) { __VA_ARGS__(p); }
#define BIREAL_STORAGE_ENTRIES(NAME, THREADS, PARAMS, BODY) \
  BIREAL_ENTRY(NAME, f32, THREADS, PARAMS, BODY<float>)     \
  BIREAL_ENTRY(NAME, f16, THREADS, PARAMS, BODY<__half>)    \
  BIREAL_ENTRY(NAME, bf16, THREADS, PARAMS, BODY<__nv_bfloat16>)
/// The same for a stored type T and each type V of a convolution output: the integers of binary_conv, or T itself:
/// NAME_f16_i16_kernel calls BODY<T, V>(params).
#define BIREAL_V_ENTRIES(NAME, THREADS, PARAMS, BODY)                         \
  BIREAL_ENTRY(NAME, f32_i16, THREADS, PARAMS, BODY<float, int16_t>)          \
  BIREAL_ENTRY(NAME, f32_i32, THREADS, PARAMS, BODY<float, int32_t>)          \
  BIREAL_ENTRY(NAME, f32_f32, THREADS, PARAMS, BODY<float, float>)            \
  BIREAL_ENTRY(NAME, f16_i16, THREADS, PARAMS, BODY<__half, int16_t>)         \
  BIREAL_ENTRY(NAME, f16_i32, THREADS, PARAMS, BODY<__half, int32_t>)         \
  BIREAL_ENTRY(NAME, f16_f16, THREADS, PARAMS, BODY<__half, __half>)          \
  BIREAL_ENTRY(NAME, bf16_i16, THREADS, PARAMS, BODY<__nv_bfloat16, int16_t>) \
  BIREAL_ENTRY(NAME, bf16_i32, THREADS, PARAMS, BODY<__nv_bfloat16, int32_t>) \
  BIREAL_ENTRY(NAME, bf16_bf16, THREADS, PARAMS, BODY<__nv_bfloat16, __nv_bfloat16>)

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(int16_t x) { return float(x); }
__device__ __forceinline__ float to_float(int32_t x) { return float(x); }

/// Rounds to nearest, ties to even; the one rounding of a stored value.
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

/// sign(x) = -1 iff x < 0, as core/bits.h has it: +0, -0 and NaN give 0.
__device__ __forceinline__ word_t sign_bit(float x) { return x < 0.0f ? 1u : 0u; }

/// N elements that one instruction loads or stores; addresses are multiples of its size (at most 16 bytes).
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0, "one load moves 1, 2, 4, 8 or 16 bytes");
  T v[N];
};
template <class T, int N>
__device__ __forceinline__ Vec<T, N> load(const T* p) {
  return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <class T, int N>
__device__ __forceinline__ void store(T* p, const Vec<T, N>& v) {
  *reinterpret_cast<Vec<T, N>*>(p) = v;
}

/// Sum over the warp, the same for every lane; lanes are added as ((l + l^16) + (l^8...)): a fixed tree.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

/// Sum over a block of THREADS (a multiple of 32), the same for every thread: warps by warp_sum, then in warp order. `scratch`
/// holds THREADS / 32 values in shared memory, free again after the next barrier.
template <int THREADS, class T>
__device__ __forceinline__ T block_sum(T x, T* scratch) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  T sum = scratch[0];
#pragma unroll
  for (int warp = 1; warp < THREADS / 32; ++warp) sum += scratch[warp];
  return sum;
}

}  // namespace bireal
