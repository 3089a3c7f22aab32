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

/// For each row of the block's slice: loaded = load(index of the element, row), then finish(index, loaded). Loads of
/// kRowsInFlight rows come before their finishes, so finish may write over what load reads; flush() comes after each such group.
template <class Load, class Finish, class Flush>
__device__ __forceinline__ void walk_rows(int64_t rows, int C, int slices, const Load& load, const Finish& finish,
                                          const Flush& flush) {
  const int c = row_channel(C), slice = row_slice(C);
  if (c >= C) return;
  const int64_t end = cuda::row_slice_begin(rows, slices, slice + 1);
  for (int64_t row = cuda::row_slice_begin(rows, slices, slice) + threadIdx.x / 32; row < end; row += kRowWarps * kRowsInFlight) {
    decltype(load(int64_t(0), int64_t(0))) loaded[kRowsInFlight];
#pragma unroll
    for (int i = 0; i < kRowsInFlight; ++i)
      if (row + i * kRowWarps < end) loaded[i] = load((row + i * kRowWarps) * C + c, row + i * kRowWarps);
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

/// Adds the 8 warps' sums in warp order and stores the first PARTS of them as partial sums [slices, PARTS, C] of this block's
/// slice. Every thread calls it; a second call needs a barrier before it.
template <int PARTS = 2, class Sums>
__device__ __forceinline__ void store_row_sums(void* out, int C, const Sums& sums) {
  using Sum = typename Sums::Sum;
  __shared__ Sum scratch[kRowWarps][PARTS][32];
  const int c = row_channel(C), slice = row_slice(C), lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  scratch[warp][0][lane] = sums.s1;
  if (PARTS > 1) scratch[warp][PARTS - 1][lane] = sums.s2;
  __syncthreads();
  if (warp >= PARTS || c >= C) return;
  Sum sum = scratch[0][warp][lane];
#pragma unroll
  for (int other = 1; other < kRowWarps; ++other) sum += scratch[other][warp][lane];
  static_cast<Sum*>(out)[(int64_t(slice) * PARTS + warp) * C + c] = sum;
}

/// Adds partial sums [slices, PARTS, C], slices `stride` apart, of the 32 channels of a block of 16 warps, in a fixed order: warp
/// w takes slices w, w + 16, ..., then the warps in order. The first warp has the result in sums. `scratch` is shared, PARTS *
/// kSliceThreads values.
template <class Sum, int PARTS>
__device__ __forceinline__ void add_slices(Sum (&sums)[PARTS], const Sum* partial, int C, int64_t stride, int slices,
                                           Sum* scratch) {
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32), c = int(blockIdx.x) * 32 + lane;
#pragma unroll
  for (int part = 0; part < PARTS; ++part) sums[part] = 0;
  if (c < C)
#pragma unroll 4
    for (int slice = warp; slice < slices; slice += kSliceWarps)
#pragma unroll
      for (int part = 0; part < PARTS; ++part) sums[part] += partial[slice * stride + int64_t(part) * C + c];
#pragma unroll
  for (int part = 0; part < PARTS; ++part) {
    scratch[part * kSliceThreads + warp * 32 + lane] = sums[part];
    sums[part] = 0;
  }
  __syncthreads();
  if (warp != 0) return;
#pragma unroll 4
  for (int other = 0; other < kSliceWarps; ++other)
#pragma unroll
    for (int part = 0; part < PARTS; ++part) sums[part] += scratch[part * kSliceThreads + other * 32 + lane];
}

/// Gradients of per-channel parameters from partial sums: a block of 16 warps takes 32 channels of one part. Shared: 4 KB.
__device__ __forceinline__ void finish_row_sums(const cuda::FinishRowSumsParams& p) {
  __shared__ double scratch[kSliceThreads];
  // A table indexed by the block would be copied to local memory.
  const double* partial = blockIdx.y == 0 ? p.parts[0].partial : blockIdx.y == 1 ? p.parts[1].partial : p.parts[2].partial;
  float* out = blockIdx.y == 0 ? p.parts[0].out : blockIdx.y == 1 ? p.parts[1].out : p.parts[2].out;
  double sum[1];
  add_slices(sum, partial, p.C, p.stride, p.slices, scratch);
  const int c = int(blockIdx.x) * 32 + int(threadIdx.x % 32);
  if (threadIdx.x < 32 && c < p.C) out[c] = p.accumulate ? out[c] + float(sum[0]) : float(sum[0]);
}

}  // namespace bireal
