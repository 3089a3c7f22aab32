#include "cuda/row_sums.cuh"
#include "cuda/warp.cuh"
#include "ops/approx_sign/approx_sign_params.h"

namespace bireal {

template <class T, class V>
struct Loaded {
  T db, x, shortcut;
  V v;
};

// Gradient of the sign, plus that of the shortcut, the sums that the backward pass of the previous batch norm needs of the
// result, and those of the threshold's gradient, in one pass. The norm's sums are of the stored dx, which is what that pass
// reads. Limiter: bandwidth. Shared: 6 KB.
template <class T, class V>
__device__ __forceinline__ void approx_sign_bwd(const ApproxSignParams& p) {
  T* dx = static_cast<T*>(p.dx);
  const T *db = static_cast<const T*>(p.db), *x = static_cast<const T*>(p.x), *shortcut = static_cast<const T*>(p.shortcut);
  const V* v = static_cast<const V*>(p.norm_v);
  const int c = row_channel(p.C);
  const float threshold = p.threshold && c < p.C ? p.threshold[c] : 0.0f;
  RowSums<T> norm_sums, threshold_sums;
  walk_rows(
      p.rows, p.C, p.slices,
      [&](int64_t i) {
        Loaded<T, V> loaded{db[i], x[i], T(0.0f), V(0)};
        if (shortcut) loaded.shortcut = shortcut[i];
        if (p.norm_sums) loaded.v = v[i];
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
        if (shortcut) gradient = to_float(loaded.shortcut) + gradient;
        const T stored = from_float<T>(gradient);
        dx[i] = stored;
        if (p.norm_sums) norm_sums.add(to_float(stored), to_float(loaded.v));
      },
      [&] {
        norm_sums.flush();
        threshold_sums.flush();
      });
  if (p.norm_sums) store_row_sums(p.norm_sums, p.C, norm_sums);
  if (p.threshold_sums) store_row_sums<1>(p.threshold_sums, p.C, threshold_sums);
}

BIREAL_V_ENTRIES(approx_sign_bwd, kRowThreads, ApproxSignParams, approx_sign_bwd)
BIREAL_ENTRY(approx_sign_bwd, threshold, kSliceThreads, cuda::FinishRowSumsParams, finish_row_sums)

}  // namespace bireal
