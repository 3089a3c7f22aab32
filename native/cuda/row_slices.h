// How reductions over the rows of a [rows, C] tensor are cut: slice s of `count` takes rows [slice_begin(s), slice_begin(s + 1)),
// one block sums one word of 32 channels of one slice, and whoever needs the sums adds the slices in order. By shape alone, so
// that the sums do not depend on the GPU.
#pragma once
#include <stdint.h>

#ifdef __CUDACC__
#define BIREAL_HOST_DEVICE __host__ __device__ inline
#else
#define BIREAL_HOST_DEVICE inline
#endif

namespace bireal::cuda {

/// Threads of a block of these passes (row_sums.cuh).
constexpr int kRowBlockThreads = 256;
/// Threads of a block that adds the slices of one word.
constexpr int kSliceThreads = 512;

/// About 1,024 blocks, as large GPUs want, of at least 64 rows each.
BIREAL_HOST_DEVICE int64_t row_slice_count(int64_t rows, int64_t C) {
  const int64_t words = (C + 31) / 32, most = (rows + 63) / 64, wanted = (1024 + words - 1) / words;
  return most < 1 ? 1 : most < wanted ? most : wanted;
}
BIREAL_HOST_DEVICE int64_t row_slice_begin(int64_t rows, int64_t slices, int64_t slice) { return rows * slice / slices; }

/// Parameters of a kernel that adds finished slices (finish_row_sums in row_sums.cuh): blocks are [words, parts].
struct FinishRowSumsParams {
  struct Part {
    const double* partial;  // [slices] of [C], `stride` apart
    float* out;             // [C]
  } parts[3];
  int64_t stride;
  int32_t C, slices, accumulate;
};

/// Partial sums [slices, 2, C] double.
inline int64_t row_slice_sums_bytes(int64_t rows, int64_t C) {
  return row_slice_count(rows, C) * 2 * C * int64_t(sizeof(double));
}

}  // namespace bireal::cuda
