#include "cuda/row_sums.cuh"
#include "cuda/warp.cuh"
#include "ops/approx_sign/approx_sign_params.h"

namespace bireal {

template <class T, class V>
struct Loaded {
  T db, x, shortcut, second_v;
  V v;
};

// Gradient of the sign, plus that of the shortcut, the sums that the backward passes of the previous batch norms need of the
// result, and those of the threshold's gradient, in one pass. The norm's sums are of the stored dx, which is what that pass
// reads. Limiter: bandwidth. Shared: 6 KB.
template <class T, class V>
__device__ __forceinline__ void approx_sign_bwd(const ApproxSignParams& p) {
  T* dx = static_cast<T*>(p.dx);
  const T *db = static_cast<const T*>(p.db), *x = static_cast<const T*>(p.x), *shortcut = static_cast<const T*>(p.shortcut);
  const V* v = static_cast<const V*>(p.norm_v);
  const T* second_v = static_cast<const T*>(p.second_v);
  const int c = row_channel(p.C);
  const unsigned W = unsigned(p.pooled_W);
  const float threshold = p.threshold && c < p.C ? p.threshold[c] : 0.0f;
  RowSums<T> norm_sums, second_sums, threshold_sums;
  walk_rows(
      p.rows, p.C, p.slices,
      [&](int64_t i, int64_t row) {
        Loaded<T, V> loaded{db[i], x[i], T(0.0f), T(0.0f), V(0)};
        if (shortcut && W == 0) loaded.shortcut = shortcut[i];
        if (shortcut && W != 0) {
          const unsigned line = unsigned(row) / W, w = unsigned(row) % W;  // H is even: pairs of lines are within an image
          loaded.shortcut = shortcut[int64_t(line / 2 * (W / 2) + w / 2) * p.C + c];
        }
        if (p.norm_sums) loaded.v = v[i];
        if (p.second_sums) loaded.second_v = second_v[i];
        return loaded;
      },
      [&](int64_t i, const Loaded<T, V>& loaded) {
        const float u = p.threshold ? to_float(loaded.x) + threshold : to_float(loaded.x), magnitude = fabsf(u);
        float surrogate;
        if (p.clipped_identity)
          surrogate = magnitude <= 1.0f ? 1.0f : 0.0f;  // false for NaN
        else
          surrogate = magnitude < 1.0f ? 2.0f - 2.0f * magnitude : 0.0f;
        float gradient = to_float(loaded.db) * surrogate;
        if (p.threshold_sums) threshold_sums.add(gradient, 0.0f);
        if (shortcut) gradient = (W == 0 ? 1.0f : 0.25f) * to_float(loaded.shortcut) + gradient;
        const T stored = from_float<T>(gradient);
        dx[i] = stored;
        if (p.norm_sums) norm_sums.add(to_float(stored), to_float(loaded.v));
        if (p.second_sums) second_sums.add(to_float(stored), to_float(loaded.second_v));
      },
      [&] {
        norm_sums.flush();
        second_sums.flush();
        threshold_sums.flush();
      });
  if (p.norm_sums) store_row_sums(p.norm_sums, p.C, norm_sums);
  if (p.second_sums) {
    __syncthreads();  // both take the same shared memory
    store_row_sums(p.second_sums, p.C, second_sums);
  }
  if (p.threshold_sums) store_row_sums<1>(p.threshold_sums, p.C, threshold_sums);
}

BIREAL_V_ENTRIES(approx_sign_bwd, kRowThreads, ApproxSignParams, approx_sign_bwd)
BIREAL_ENTRY(approx_sign_bwd, threshold, kSliceThreads, cuda::FinishRowSumsParams, finish_row_sums)

}  // namespace bireal
