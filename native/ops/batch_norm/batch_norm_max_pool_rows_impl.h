// The row kernels of batch_norm_max_pool for vectors of kLanes channels (gcc vector extension: one source, the compiler picks
// instructions).
#pragma once
#include "ops/batch_norm/batch_norm_max_pool_rows.h"
#include "ops/pool2d/pool2d_rows_impl.h"

namespace bireal::cpu {

// A block of kLanes channels of a pixel, whose winner stays in registers while the taps go by. What is compared is v, its sign
// turned where gamma < 0; a NaN, which nothing beats, stands for the first tap where gamma = 0.
template <int kLanes>
BIREAL_INLINE void batch_norm_max_pool_fwd_rows(const BatchNormMaxPoolRows& k, int64_t begin_row, int64_t end_row) {
  using V = PoolVector<kLanes>;
  using Floats = typename V::Floats;
  using Ints = typename V::Ints;
  for (int64_t row = begin_row; row < end_row; ++row) {
    const int64_t h0 = row % k.P * k.stride - k.pad;
    const PoolRange rs = pool_taps(h0, k.R, k.H);
    const float* image = k.v + row / k.P * k.H * k.W * k.C;
    for (int64_t q = 0; q < k.Q; ++q) {
      const int64_t w0 = q * k.stride - k.pad, out = (row * k.Q + q) * k.C;
      const PoolRange ss = pool_taps(w0, k.S, k.W);
      const float* first = image + ((h0 + rs.begin) * k.W + w0 + ss.begin) * k.C;
      int64_t c = 0;
      for (; c + kLanes <= k.C; c += kLanes) {
        Floats gamma, v;
        __builtin_memcpy(&gamma, k.gamma + c, sizeof gamma);
        __builtin_memcpy(&v, first + c, sizeof v);
        const Ints none = gamma == 0, turn = (gamma < 0) & (Ints{} + INT32_MIN);
        Floats best = (Floats)(((Ints)v ^ turn) | none), u;
        Ints where = Ints{} + (int32_t)(rs.begin * k.S + ss.begin);
        for (int64_t r = rs.begin; r < rs.end; ++r) {
          const float* line = image + ((h0 + r) * k.W + w0) * k.C + c;
          for (int64_t s = ss.begin; s < ss.end; ++s) {
            __builtin_memcpy(&u, line + s * k.C, sizeof u);
            u = (Floats)((Ints)u ^ turn);
            // Not <=: greater, or one of the two is a NaN; and then it is u, if best is not.
            const Ints take = ~(u <= best) & (best == best);
            best = take ? u : best;
            where = take ? Ints{} + (int32_t)(r * k.S + s) : where;
          }
        }
        best = none ? v : (Floats)((Ints)best ^ turn);
        // Through 16 bits: gcc 12 takes a step of four sizes apart into single elements.
        typename V::Bytes bytes = __builtin_convertvector(__builtin_convertvector(where, typename V::Shorts), typename V::Bytes);
        __builtin_memcpy(k.vmax + out + c, &best, sizeof best);
        __builtin_memcpy(k.index + out + c, &bytes, sizeof bytes);
      }
      for (; c < k.C; ++c) {
        const float sign = k.gamma[c] < 0 ? -1.0f : 1.0f;
        float best = first[c];
        int64_t where = rs.begin * k.S + ss.begin;
        for (int64_t r = rs.begin; r < rs.end && k.gamma[c] != 0; ++r)
          for (int64_t s = ss.begin; s < ss.end; ++s) {
            const float u = image[((h0 + r) * k.W + w0 + s) * k.C + c];
            if (!(sign * u <= sign * best) && best == best) best = u, where = r * k.S + s;
          }
        k.vmax[out + c] = best;
        k.index[out + c] = (uint8_t)where;
      }
    }
  }
}

// The winner of `best` and of `u`, which comes later: of a NaN or a zero in gamma (`none`) it must be exact, else one
// instruction.
template <bool kExact, class V>
BIREAL_INLINE typename V::Floats max_pool_winner(typename V::Floats u, typename V::Floats best, typename V::Ints none) {
  if (!kExact) return u > best ? u : best;
  return ~(u <= best) & (best == best) & ~none ? u : best;
}

/// kLanes channels from c on of one column of windows. A NaN among the taps sets lanes of `nan`; so may Infs.
template <int kLanes, bool kExact>
BIREAL_INLINE void max_pool_band_column(const BatchNormMaxPoolBand& k, int64_t q, int64_t c,
                                        typename PoolVector<kLanes>::Ints& nan) {
  using V = PoolVector<kLanes>;
  using Floats = typename V::Floats;
  using Ints = typename V::Ints;
  Floats gamma;
  __builtin_memcpy(&gamma, k.gamma + c, sizeof gamma);
  const Ints none = gamma == 0, turn = (gamma < 0) & (Ints{} + INT32_MIN);
  // A tap beside the image is the one next to it once more, which never wins over itself.
  const int64_t columns[3] = {q > 0 ? 2 * q - 1 : 0, 2 * q, 2 * q + 1 < k.W ? 2 * q + 1 : 2 * q};
  Floats along[kBatchNormMaxPoolBandRows], sum = {};
#pragma GCC unroll 4
  for (int64_t r = 0; r < kBatchNormMaxPoolBandRows; ++r) {
    const float* row = k.v + (r < k.rows ? r : k.rows - 1) * k.W * k.C + c;
    Floats u[3];
#pragma GCC unroll 3
    for (int s = 0; s < 3; ++s) {
      __builtin_memcpy(&u[s], row + columns[s] * k.C, sizeof u[s]);
      u[s] = (Floats)((Ints)u[s] ^ turn);
    }
    sum += u[1] + u[2];  // the first is the last of the column before
    along[r] = max_pool_winner<kExact, V>(u[2], max_pool_winner<kExact, V>(u[1], u[0], none), none);
  }
  Floats best = along[0];
  if (k.above) {
    __builtin_memcpy(&best, k.above + q * k.C + c, sizeof best);
    sum += best;
    best = max_pool_winner<kExact, V>(along[0], best, none);
  }
  best = max_pool_winner<kExact, V>(along[1], best, none);
  best = (Floats)((Ints)best ^ turn);
  __builtin_memcpy(k.vmax + q * k.C + c, &best, sizeof best);
  if (k.rows > 2) {
    best = max_pool_winner<kExact, V>(along[3], max_pool_winner<kExact, V>(along[2], along[1], none), none);
    best = (Floats)((Ints)best ^ turn);
    __builtin_memcpy(k.vmax + (k.Q + q) * k.C + c, &best, sizeof best);
  }
  __builtin_memcpy(k.last + q * k.C + c, &along[3], sizeof best);
  nan |= sum != sum;
}

/// False if a NaN was among the taps, which only kExact may let pass.
template <int kLanes, bool kExact>
BIREAL_INLINE bool max_pool_band_columns(const BatchNormMaxPoolBand& k) {
  typename PoolVector<kLanes>::Ints nan = {};
  typename PoolVector<1>::Ints unused = {};
  for (int64_t q = 0; q < k.Q; ++q) {
    int64_t c = 0;
    for (; c + kLanes <= k.C; c += kLanes) max_pool_band_column<kLanes, kExact>(k, q, c, nan);
    for (; c < k.C; ++c) max_pool_band_column<1, true>(k, q, c, unused);
  }
  int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= nan[lane];
  return any == 0;
}

// The winners along each row first, since two windows share a row; of equals the first is still the first.
template <int kLanes>
BIREAL_INLINE void batch_norm_max_pool_band(const BatchNormMaxPoolBand& k) {
  bool plain = true;
  for (int64_t c = 0; c < k.C; ++c) plain &= k.gamma[c] != 0;
  if (!plain || !max_pool_band_columns<kLanes, false>(k)) max_pool_band_columns<kLanes, true>(k);
}

// du = sum (or +0) + dy where `chosen` is `tap`, for C channels. Adding +0 for the others changes nothing: a sum that starts at
// +0 never becomes -0.
template <int kLanes>
BIREAL_INLINE void max_pool_add_window(float* du, const float* dy, const uint8_t* chosen, int32_t tap, bool first, int64_t C) {
  using V = PoolVector<kLanes>;
  int64_t c = 0;
  for (; c + kLanes <= C; c += kLanes) {
    typename V::Floats sum = {}, g;
    typename V::Bytes bytes;
    if (!first) __builtin_memcpy(&sum, du + c, sizeof sum);
    __builtin_memcpy(&g, dy + c, sizeof g);
    __builtin_memcpy(&bytes, chosen + c, sizeof bytes);
    typename V::Ints where = __builtin_convertvector(__builtin_convertvector(bytes, typename V::Shorts), typename V::Ints);
    sum += where == tap ? g : typename V::Floats{};
    __builtin_memcpy(du + c, &sum, sizeof sum);
  }
  for (; c < C; ++c) du[c] = (first ? 0.0f : du[c]) + (chosen[c] == tap ? dy[c] : 0.0f);
}

// Window by window over all channels of a pixel, whose du stands in dz meanwhile: the number of windows alternates from pixel to
// pixel (1, 2, 4 for 3x3/2), which as an inner loop is mispredicted.
template <int kLanes>
BIREAL_INLINE void batch_norm_max_pool_bwd_apply_rows(const BatchNormMaxPoolRows& k, int64_t begin_row, int64_t end_row) {
  const float *a = k.coefficients, *b = a + k.C, *shift = b + k.C;
  for (int64_t row = begin_row; row < end_row; ++row) {
    const int64_t i = row / k.H, h = row % k.H + k.pad;
    const PoolRange ps = pool_windows(h, k.R, k.stride, k.P);
    for (int64_t w = k.pad; w < k.W + k.pad; ++w) {
      const PoolRange qs = pool_windows(w, k.S, k.stride, k.Q);
      const int64_t in = (row * k.W + w - k.pad) * k.C;
      const float* v = k.v + in;
      float* dz = k.dz + in;
      bool first = true;
      for (int64_t p = ps.begin; p < ps.end; ++p)
        for (int64_t q = qs.begin; q < qs.end; ++q, first = false) {
          const int64_t out = ((i * k.P + p) * k.Q + q) * k.C;
          const int32_t tap = (int32_t)((h - p * k.stride) * k.S + w - q * k.stride);
          max_pool_add_window<kLanes>(dz, k.dy + out, k.chosen + out, tap, first, k.C);
        }
      if (first) __builtin_memset(dz, 0, (uint64_t)k.C * sizeof(float));
#pragma GCC ivdep
      for (int64_t c = 0; c < k.C; ++c) dz[c] = __builtin_fmaf(a[c], dz[c], __builtin_fmaf(b[c], v[c], shift[c]));
    }
  }
}

}  // namespace bireal::cpu
