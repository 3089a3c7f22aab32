// Device code of one channel and one element of a batch normalisation, for the passes that it is fused with: statistics from
// finished sums, and application with shortcut, RPReLU and sign.
#pragma once
#include "cuda/warp.cuh"
#include "ops/batch_norm/batch_norm_params.h"

namespace bireal {

/// (m S2 - S1^2) / m^2, rounded once, as integer_variance of the reference: the quotient of 128 by 64 bits to 64 significant bits
/// by long division, the rest or-ed into the last bit, which the conversion to double then rounds.
__device__ __forceinline__ double integer_variance(long long S1, long long S2, long long m) {
  const unsigned long long s1 = S1 < 0 ? -(unsigned long long)S1 : (unsigned long long)S1;
  unsigned long long low = (unsigned long long)m * (unsigned long long)S2, high = __umul64hi(m, S2);
  const unsigned long long square_low = s1 * s1, square_high = __umul64hi(s1, s1);
  high -= square_high + (low < square_low);
  low -= square_low;
  if ((high | low) == 0) return 0.0;
  int exponent = 0;  // the quotient is q * 2^exponent
  if (high == 0) {
    high = low, low = 0;
    exponent -= 64;
  }
  const int shift = __clzll((long long)high);
  if (shift > 0) {
    high = high << shift | low >> (64 - shift);
    low <<= shift;
  }
  unsigned long long divisor = (unsigned long long)m * (unsigned long long)m;
  const int divisor_shift = __clzll((long long)divisor);
  divisor <<= divisor_shift;
  exponent += divisor_shift - shift;
  // Now 1/2 <= high, divisor / 2^64 < 1: the quotient has 64 or 65 bits.
  unsigned long long rest = high, q = 0;
  const bool has_65_bits = rest >= divisor;
  if (has_65_bits) rest -= divisor;
#pragma unroll 1
  for (int bit = 63; bit >= 0; --bit) {
    const bool carry = rest >> 63;
    rest = rest << 1 | (low >> bit & 1);
    q <<= 1;
    if (carry || rest >= divisor) {
      rest -= divisor;
      q |= 1;
    }
  }
  unsigned long long lost = rest != 0;
  if (has_65_bits) {
    lost |= q & 1;
    q = 1ull << 63 | q >> 1;
    exponent += 1;
  }
  return __ull2double_rn(q | lost) * __longlong_as_double((long long)(1023 + exponent) << 52);
}

struct Affine {
  float scale, shift;
};

/// Mean, variance, scale and shift of channel c from the finished sums; `write` says whether this thread also stores them.
__device__ __forceinline__ Affine channel_statistics(const BatchNormStatisticsParams& p, int c, long long exact1,
                                                     long long exact2, double real1, double real2, bool write) {
  const double m = double(p.rows), a = p.alpha ? double(p.alpha[c]) : 1.0;
  double mean, var;
  if (p.integer_sums) {
    mean = double(exact1) / m;
    var = integer_variance(exact1, exact2, p.rows);
  } else {
    mean = real1 / m;
    var = real2 / m - mean * mean;
    if (var < 0) var = 0;  // rounding; a NaN stays a NaN
  }
  const double invstd = 1.0 / sqrt(a * a * var + p.eps);
  const double scale = double(p.gamma[c]) * a * invstd;
  const Affine affine = {float(scale), float(double(p.beta[c]) - scale * mean)};
  if (write) {
    p.stats[c] = mean;
    p.stats[p.C + c] = var;
    p.stats[2 * p.C + c] = invstd;
    p.affine[c] = affine.scale;
    p.affine[p.C + c] = affine.shift;
    p.running_sums[c] += a * mean;
    p.running_sums[p.C + c] += a * a * var * (m / (m - 1.0));
  }
  return affine;
}

/// y of one element, rounded to T once, and whether the next sign, which is of the rounded value, is negative. `Constants` are
/// those of its channel: scale, shift, shortcut_scale, shortcut_shift, threshold and rprelu (bias1, slope, bias2), looked at
/// where `p` has them.
template <class T, class Constants>
__device__ __forceinline__ T batch_norm_applied(const BatchNormApplyParams& p, const Constants& k, float v, T residual,
                                                bool& negative) {
  float u = fmaf(k.scale, v, k.shift);
  if (p.shortcut_affine)
    u += fmaf(k.shortcut_scale, to_float(residual), k.shortcut_shift);
  else if (p.shortcut)
    u += to_float(residual);
  if (p.slope) {
    const Vec<float, 4> constants = k.rprelu;
    const float w = u + constants.v[0];
    u = (w > 0.0f ? w : constants.v[1] * w) + constants.v[2];
  }
  const T stored = from_float<T>(u);
  negative = sign_bit(p.threshold ? to_float(stored) + k.threshold : to_float(stored));
  return stored;
}

}  // namespace bireal
