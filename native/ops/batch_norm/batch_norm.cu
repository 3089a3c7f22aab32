#include "cuda/row_sums.cuh"
#include "cuda/warp.cuh"
#include "ops/batch_norm/batch_norm.cuh"
#include "ops/batch_norm/batch_norm_params.h"

namespace bireal {

// ---- Statistics ---------------------------------------------------------------------------------------------------

// A block of 16 warps finishes 32 channels. Shared: 8 KB.
extern "C" __global__ void __launch_bounds__(kSliceThreads) batch_norm_statistics_kernel(const BatchNormStatisticsParams p) {
  __shared__ double scratch[2 * kSliceThreads];
  const int c = int(blockIdx.x) * 32 + int(threadIdx.x % 32);
  long long exact[2] = {0, 0};
  double real[2] = {0.0, 0.0};
  if (p.integer_sums)
    add_slices(exact, static_cast<const long long*>(p.sums), p.C, 2 * p.C, p.slices, reinterpret_cast<long long*>(scratch));
  else
    add_slices(real, static_cast<const double*>(p.sums), p.C, 2 * p.C, p.slices, scratch);
  if (threadIdx.x < 32 && c < p.C) channel_statistics(p, c, exact[0], exact[1], real[0], real[1], true);
}

// ---- Sums ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ int32_t summand(int16_t v) { return v; }
__device__ __forceinline__ int32_t summand(int32_t v) { return v; }
template <class T>
__device__ __forceinline__ float summand(T v) {
  return to_float(v);
}

// S1 and S2 of a slice of rows. Limiter: bandwidth. Shared: 4 KB.
template <class V>
__device__ __forceinline__ void batch_norm_sums(const BatchNormSumsParams& p) {
  const V* v = static_cast<const V*>(p.v);
  RowSums<V> sums;
  walk_rows(
      p.rows, p.C, p.slices, [&](int64_t i, int64_t) { return v[i]; },
      [&](int64_t, V value) { sums.add(summand(value), summand(value)); }, [&] { sums.flush(); });
  store_row_sums(p.sums, p.C, sums);
}
BIREAL_ENTRY(batch_norm_sums, i16, kRowThreads, BatchNormSumsParams, batch_norm_sums<int16_t>)
BIREAL_ENTRY(batch_norm_sums, i32, kRowThreads, BatchNormSumsParams, batch_norm_sums<int32_t>)
BIREAL_STORAGE_ENTRIES(batch_norm_sums, kRowThreads, BatchNormSumsParams, batch_norm_sums)

template <class T, class V>
struct Gradient {
  T dy;
  V v;
};

// B1 and B2 of a slice of rows. Limiter: bandwidth. Shared: 4 KB.
template <class T, class V>
__device__ __forceinline__ void batch_norm_bwd_sums(const BatchNormSumsParams& p) {
  const T* dy = static_cast<const T*>(p.dy);
  const V* v = static_cast<const V*>(p.v);
  RowSums<T> sums;
  walk_rows(
      p.rows, p.C, p.slices,
      [&](int64_t i, int64_t) {
        return Gradient<T, V>{dy[i], v[i]};
      },
      [&](int64_t, const Gradient<T, V>& g) { sums.add(to_float(g.dy), to_float(g.v)); }, [&] { sums.flush(); });
  store_row_sums(p.sums, p.C, sums);
}
BIREAL_V_ENTRIES(batch_norm_bwd_sums, kRowThreads, BatchNormSumsParams, batch_norm_bwd_sums)

// ---- Apply --------------------------------------------------------------------------------------------------------

struct SharedConstants {  // references: what a pass does not need is not loaded
  const float &scale, &shift, &shortcut_scale, &shortcut_shift, &threshold;
  const Vec<float, 4>& rprelu;
};

// A block takes up to 8 words of channels of a slice of rows. Where the sums of v are given it first finishes their statistics,
// one channel a thread (the blocks of slice 0 also store them). A step of a warp is 8 words of output: one row of 8 words, or
// several rows of fewer, so that its bits are one 32-byte sector where the channels allow it; four elements a lane are in flight.
// y is rounded to T once, and the bits are those of the rounded value. Limiter: bandwidth. Shared: 9 KB.
template <class T, class V>
__device__ __forceinline__ void batch_norm_apply(const BatchNormApplyParams& p) {
  constexpr int kChannels = 256, kWords = 8;
  __shared__ float scale[kChannels], shift[kChannels], shortcut_scale[kChannels], shortcut_shift[kChannels], threshold[kChannels];
  __shared__ Vec<float, 4> rprelu[kChannels];  // bias1, slope, bias2; one load of the four keeps 40 registers free on sm_100
  const int groups = (p.Cw + p.group_words - 1) / p.group_words;
  const int group = int(blockIdx.x % unsigned(groups)), slice = int(blockIdx.x / unsigned(groups));
  const int first_word = group * p.group_words, first_channel = first_word * kWordBits;
  const int words = min(p.group_words, p.Cw - first_word);
  const int c = first_channel + int(threadIdx.x);
  if (int(threadIdx.x) < words * kWordBits && c < p.C) {
    if (p.statistics.sums) {
      const long long* sums = static_cast<const long long*>(p.statistics.sums);
      const Affine affine = channel_statistics(p.statistics, c, sums[c], sums[p.C + c], 0.0, 0.0, slice == 0);
      scale[threadIdx.x] = affine.scale;
      shift[threadIdx.x] = affine.shift;
    } else {
      scale[threadIdx.x] = p.affine[c];
      shift[threadIdx.x] = p.affine[p.C + c];
    }
    shortcut_scale[threadIdx.x] = p.shortcut_affine ? p.shortcut_affine[c] : 1.0f;
    shortcut_shift[threadIdx.x] = p.shortcut_affine ? p.shortcut_affine[p.C + c] : 0.0f;
    threshold[threadIdx.x] = p.threshold ? p.threshold[c] : 0.0f;
    if (p.slope) rprelu[threadIdx.x] = {p.bias1[c], p.slope[c], p.bias2[c], 0.0f};
  }
  __syncthreads();

  const V* v = static_cast<const V*>(p.v);
  const T* shortcut = static_cast<const T*>(p.shortcut);
  T* y = static_cast<T*>(p.y);
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  const int rows_of_step = kWords / words;
  // Element j of a step: row row_of[j] of the step, channel channel_of[j] of the group.
  int row_of[kWords], channel_of[kWords];
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    row_of[j] = j / words;
    channel_of[j] = (j - row_of[j] * words) * kWordBits + lane;
    if (row_of[j] >= rows_of_step || first_channel + channel_of[j] >= p.C) row_of[j] = 1 << 30;  // none
  }
  const int64_t end = cuda::row_slice_begin(p.rows, p.slices, slice + 1);
  for (int64_t row = cuda::row_slice_begin(p.rows, p.slices, slice) + warp * rows_of_step; row < end;
       row += kRowWarps * rows_of_step) {
    word_t mine = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      V value[4];
      T residual[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = 4 * half + i;
        value[i] = V(0);
        residual[i] = T(0);
        if (row + row_of[j] >= end) continue;
        const int64_t at = (row + row_of[j]) * p.C + first_channel + channel_of[j];
        value[i] = v[at];
        if (shortcut) residual[i] = shortcut[at];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = 4 * half + i, k = channel_of[j];
        bool negative = false;
        if (row + row_of[j] < end) {
          const SharedConstants constants{scale[k], shift[k], shortcut_scale[k], shortcut_shift[k], threshold[k], rprelu[k]};
          y[(row + row_of[j]) * p.C + first_channel + k] =
              batch_norm_applied(p, constants, to_float(value[i]), residual[i], negative);
        }
        const word_t packed = __ballot_sync(kAllLanes, negative);
        if (lane == j) mine = packed;
      }
    }
    if (p.bits && lane < rows_of_step * words) {
      const int r = lane / words;
      if (row + r < end) p.bits[(row + r) * p.Cw + first_word + lane - r * words] = mine;
    }
  }
}
BIREAL_V_ENTRIES(batch_norm_apply, kRowThreads, BatchNormApplyParams, batch_norm_apply)

// ---- Backward -----------------------------------------------------------------------------------------------------

template <class T, class V>
struct LoadedRprelu {
  T dy, shortcut;
  V v;
};

// Backward of RPReLU: its input is computed anew, its gradient dz rounded to T once, and the norm's sums are of the stored dz.
// Limiter: bandwidth. Shared: 4 KB.
template <class T, class V>
__device__ __forceinline__ void batch_norm_rprelu_bwd(const BatchNormRpreluBwdParams& p) {
  const T *dy = static_cast<const T*>(p.dy), *shortcut = static_cast<const T*>(p.shortcut);
  const V* v = static_cast<const V*>(p.v);
  T* dz = static_cast<T*>(p.dz);
  const int c = min(row_channel(p.C), p.C - 1);  // of the tail, which walk_rows and store_row_sums leave out, any
  const float scale = p.affine[c], shift = p.affine[p.C + c], bias1 = p.bias1[c], slope = p.slope[c];
  const float shortcut_scale = p.shortcut_affine ? p.shortcut_affine[c] : 0.0f,
              shortcut_shift = p.shortcut_affine ? p.shortcut_affine[p.C + c] : 0.0f;
  RowSums<T> norm_sums, sums;
  walk_rows(
      p.rows, p.C, p.slices,
      [&](int64_t i, int64_t) {
        LoadedRprelu<T, V> loaded{dy[i], T(0.0f), v[i]};
        if (shortcut) loaded.shortcut = shortcut[i];
        return loaded;
      },
      [&](int64_t i, const LoadedRprelu<T, V>& loaded) {
        float w = fmaf(scale, to_float(loaded.v), shift);
        if (p.shortcut_affine)
          w += fmaf(shortcut_scale, to_float(loaded.shortcut), shortcut_shift);
        else if (shortcut)
          w += to_float(loaded.shortcut);
        w += bias1;
        const float gradient = to_float(loaded.dy);
        const T stored = from_float<T>(w > 0.0f ? gradient : slope * gradient);
        dz[i] = stored;
        norm_sums.add(to_float(stored), to_float(loaded.v));
        sums.add(gradient, w > 0.0f ? 0.0f : w);
      },
      [&] {
        norm_sums.flush();
        sums.flush();
      });
  store_row_sums(p.norm_sums, p.C, norm_sums);
  __syncthreads();  // both take the same shared memory
  store_row_sums(p.sums, p.C, sums);
}
BIREAL_V_ENTRIES(batch_norm_rprelu_bwd, kRowThreads, BatchNormRpreluBwdParams, batch_norm_rprelu_bwd)
BIREAL_ENTRY(batch_norm_rprelu_bwd, sum, kSliceThreads, cuda::FinishRowSumsParams, finish_row_sums)

// A block of 16 warps finishes 32 channels of one of the norms. Shared: 8 KB.
extern "C" __global__ void __launch_bounds__(kSliceThreads)
    batch_norm_bwd_coefficients_kernel(const BatchNormBwdCoefficientsParams p) {
  __shared__ double scratch[2 * kSliceThreads];
  BatchNormBwdCoefficientsParams::Norm norm = p.norm;
  if (blockIdx.y == 1) norm = p.shortcut;
  double sums[2];
  add_slices(sums, norm.sums, p.C, 2 * p.C, p.slices, scratch);
  const int c = int(blockIdx.x) * 32 + int(threadIdx.x % 32);
  if (threadIdx.x >= 32 || c >= p.C) return;
  const double m = double(p.rows), B1 = sums[0], B2 = sums[1], mean = norm.stats[c], invstd = norm.stats[2 * p.C + c];
  const double alpha = norm.alpha ? double(norm.alpha[c]) : 1.0;
  const double G = alpha * invstd * (B2 - mean * B1);
  const double a = double(norm.gamma[c]) * invstd;
  const double b = -a * alpha * invstd * G / m;
  norm.coefficients[c] = float(a);
  norm.coefficients[p.C + c] = float(b);
  norm.coefficients[2 * p.C + c] = float(-a * B1 / m - b * mean);
  norm.dgamma[c] = p.accumulate ? norm.dgamma[c] + float(G) : float(G);
  norm.dbeta[c] = p.accumulate ? norm.dbeta[c] + float(B1) : float(B1);
}

template <class T, class V>
struct GradientOfBoth {
  T dy, shortcut_v;
  V v;
};

// Of one norm, or of two that were added: then dy is read once. The coefficients of the block's channels are read by one warp
// each. Limiter: bandwidth. Shared: 768 bytes.
template <class T, class V>
__device__ __forceinline__ void batch_norm_bwd_apply(const BatchNormBwdApplyParams& p) {
  __shared__ float coefficients[6][32];
  const T *dy = static_cast<const T*>(p.dy), *shortcut_v = static_cast<const T*>(p.shortcut_v);
  const V* v = static_cast<const V*>(p.v);
  T *dz = static_cast<T*>(p.dz), *shortcut_dz = static_cast<T*>(p.shortcut_dz);
  const int c = row_channel(p.C), lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  if (c < p.C && warp < (shortcut_dz ? 6 : 3))
    coefficients[warp][lane] = warp < 3 ? p.coefficients[warp * p.C + c] : p.shortcut_coefficients[(warp - 3) * p.C + c];
  __syncthreads();
  if (c >= p.C) return;
  const float a = coefficients[0][lane], b = coefficients[1][lane], shift = coefficients[2][lane];
  float shortcut_a = 0.0f, shortcut_b = 0.0f, shortcut_shift = 0.0f;
  if (shortcut_dz) {
    shortcut_a = coefficients[3][lane];
    shortcut_b = coefficients[4][lane];
    shortcut_shift = coefficients[5][lane];
  }
  walk_rows(
      p.rows, p.C, p.slices,
      [&](int64_t i, int64_t) {
        return GradientOfBoth<T, V>{dy[i], shortcut_dz ? shortcut_v[i] : T(0.0f), v[i]};
      },
      [&](int64_t i, const GradientOfBoth<T, V>& g) {
        dz[i] = from_float<T>(fmaf(a, to_float(g.dy), fmaf(b, to_float(g.v), shift)));
        if (shortcut_dz)
          shortcut_dz[i] =
              from_float<T>(fmaf(shortcut_a, to_float(g.dy), fmaf(shortcut_b, to_float(g.shortcut_v), shortcut_shift)));
      },
      [] {});
}
BIREAL_V_ENTRIES(batch_norm_bwd_apply, kRowThreads, BatchNormBwdApplyParams, batch_norm_bwd_apply)

// ---- Running statistics -------------------------------------------------------------------------------------------

// A block takes 128 channels of one normalisation; one launch for all of a network.
extern "C" __global__ void __launch_bounds__(128) batch_norm_commit_kernel(const BatchNormCommitParams p) {
  int low = 0, high = p.norm_count - 1;  // the last norm whose first block is not behind this one
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (p.norms[middle].first_block <= int(blockIdx.x))
      low = middle;
    else
      high = middle - 1;
  }
  const BatchNormCommitParams::Norm& norm = p.norms[low];
  const int c = (int(blockIdx.x) - norm.first_block) * 128 + int(threadIdx.x);
  if (c >= norm.C) return;
  if (*p.nonfinite == 0.0) {
    const double mean = double(norm.running_mean[c]), var = double(norm.running_var[c]), count = double(p.count);
    norm.running_mean[c] = float(mean + p.momentum * (norm.running_sums[c] / count - mean));
    norm.running_var[c] = float(var + p.momentum * (norm.running_sums[norm.C + c] / count - var));
  }
  norm.running_sums[c] = norm.running_sums[norm.C + c] = 0.0;
}

extern "C" __global__ void __launch_bounds__(128) batch_norm_inference_kernel(const BatchNormInferenceParams p) {
  const int c = int(blockIdx.x * 128 + threadIdx.x);
  if (c >= p.C) return;
  const double a = p.alpha ? double(p.alpha[c]) : 1.0, g = double(p.gamma[c]);
  const double deviation = sqrt(double(p.running_var[c]) + p.eps);
  p.affine[c] = float(g * a / deviation);
  p.affine[p.C + c] = float(double(p.beta[c]) - g * double(p.running_mean[c]) / deviation);
}

}  // namespace bireal
