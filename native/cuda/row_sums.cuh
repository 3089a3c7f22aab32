// Device code of passes over the rows of [rows, C] tensors: one block of 8 warps takes one word of 32 channels of one slice of
// rows (row_slices.h), lane l channel l of the word, so that per-channel constants and sums are registers. Four rows are in
// flight in each warp; every load and store is 32 neighbours.
#pragma once
#include "cuda/row_slices.h"
#include "cuda/warp.cuh"

namespace bireal {

constexpr int kRowWarps = cuda::kRowBlockThreads / 32;
constexpr int kRowThreads = cuda::kRowBlockThreads;
constexpr int kRowsInFlight = 4;
constexpr int kSliceThreads = cuda::kSliceThreads;
constexpr int kSliceWarps = kSliceThreads / 32;

/// The channel of this thread; not below C in the tail of the last word.
__device__ __forceinline__ int row_channel(int C) {
  return int(blockIdx.x % unsigned((C + 31) / 32)) * 32 + int(threadIdx.x % 32);
}
__device__ __forceinline__ int row_slice(int C) { return int(blockIdx.x / unsigned((C + 31) / 32)); }

/// For each row of the block's slice: loaded = load(index of the element), then finish(index, loaded). Loads of kRowsInFlight
/// rows come before their finishes, so finish may write over what load reads; flush() comes after each such group.
template <class Load, class Finish, class Flush>
__device__ __forceinline__ void walk_rows(int64_t rows, int C, int slices, const Load& load, const Finish& finish,
                                          const Flush& flush) {
  const int c = row_channel(C), slice = row_slice(C);
  if (c >= C) return;
  const int64_t end = cuda::row_slice_begin(rows, slices, slice + 1);
  for (int64_t row = cuda::row_slice_begin(rows, slices, slice) + threadIdx.x / 32; row < end; row += kRowWarps * kRowsInFlight) {
    decltype(load(int64_t(0))) loaded[kRowsInFlight];
#pragma unroll
    for (int i = 0; i < kRowsInFlight; ++i)
      if (row + i * kRowWarps < end) loaded[i] = load((row + i * kRowWarps) * C + c);
#pragma unroll
    for (int i = 0; i < kRowsInFlight; ++i)
      if (row + i * kRowWarps < end) finish((row + i * kRowWarps) * C + c, loaded[i]);
    flush();
  }
}

/// sum a and sum a*b of one channel, for a stored as T. float: in double. 16-bit types: groups of kRowsInFlight products in
/// float32, the groups in double, since many GPUs have 1/64 of their arithmetic for doubles; the product of two fp16, or of an
/// fp16 and an integer below 2^13, is exact.
template <class T>
struct RowSums {
  using Sum = double;
  double s1 = 0.0, s2 = 0.0;
  float group1 = 0.0f, group2 = 0.0f;
  __device__ __forceinline__ void add(float a, float b) {
    group1 += a;
    group2 += a * b;
  }
  __device__ __forceinline__ void flush() {
    s1 += double(group1);
    s2 += double(group2);
    group1 = group2 = 0.0f;
  }
};
template <>
struct RowSums<float> {
  using Sum = double;
  double s1 = 0.0, s2 = 0.0;
  __device__ __forceinline__ void add(float a, float b) {
    s1 += double(a);
    s2 += double(a) * double(b);
  }
  __device__ __forceinline__ void flush() {}
};
struct ExactRowSums {
  using Sum = long long;
  long long s1 = 0, s2 = 0;
  __device__ __forceinline__ void add(int32_t a, int32_t b) {
    s1 += a;
    s2 += (long long)a * b;
  }
  __device__ __forceinline__ void flush() {}
};
template <>
struct RowSums<int16_t> : ExactRowSums {};
template <>
struct RowSums<int32_t> : ExactRowSums {};

/// Adds the 8 warps' sums in warp order and stores them as partial sums [slices, 2, C] of this block's slice. Every thread calls
/// it.
template <class Sums>
__device__ __forceinline__ void store_row_sums(void* out, int C, const Sums& sums) {
  using Sum = typename Sums::Sum;
  __shared__ Sum scratch[kRowWarps][2][32];
  const int c = row_channel(C), slice = row_slice(C), lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  scratch[warp][0][lane] = sums.s1;
  scratch[warp][1][lane] = sums.s2;
  __syncthreads();
  if (warp >= 2 || c >= C) return;
  Sum sum = scratch[0][warp][lane];
#pragma unroll
  for (int other = 1; other < kRowWarps; ++other) sum += scratch[other][warp][lane];
  static_cast<Sum*>(out)[(int64_t(slice) * 2 + warp) * C + c] = sum;
}

/// Adds partial sums [slices, 2, C] of the 32 channels of a block of 32 warps, in a fixed order: warp w takes slices w, w + 32,
/// ..., then the warps in order. The first warp has the result in sums[0], sums[1]. `scratch` is shared, 2 * kSliceThreads
/// values.
template <class Sum>
__device__ __forceinline__ void add_slices(Sum (&sums)[2], const Sum* partial, int C, int slices, Sum* scratch) {
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32), c = int(blockIdx.x) * 32 + lane;
  Sum s1 = 0, s2 = 0;
  if (c < C)
#pragma unroll 4
    for (int slice = warp; slice < slices; slice += kSliceWarps) {
      s1 += partial[int64_t(slice) * 2 * C + c];
      s2 += partial[(int64_t(slice) * 2 + 1) * C + c];
    }
  scratch[warp * 32 + lane] = s1;
  scratch[kSliceThreads + warp * 32 + lane] = s2;
  __syncthreads();
  sums[0] = sums[1] = 0;
  if (warp != 0) return;
#pragma unroll 4
  for (int other = 0; other < kSliceWarps; ++other) {
    sums[0] += scratch[other * 32 + lane];
    sums[1] += scratch[kSliceThreads + other * 32 + lane];
  }
}

}  // namespace bireal
