// 16-bit floating point: conversions with each rounding, and arithmetic that is rounded once.
#pragma once
#include <immintrin.h>

#include <cmath>

#include "emulator/ptx/code.h"

namespace bireal::ptx {

enum class Rounding : uint8_t { kNearest, kZero, kDown, kUp };

inline float to_float(Half h) { return _cvtsh_ss(h.bits); }
inline float to_float(Bfloat b) {
  uint32_t bits = uint32_t(b.bits) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline uint32_t float_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}
inline float bits_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

/// A double rounded to float so that a second rounding to fewer bits gives what one rounding would ("round to odd").
inline float round_to_odd(double value) {
  float f = float(value);
  if (double(f) == value || value != value || std::isinf(f)) {
    if (!std::isinf(f) || std::isinf(value)) return f;
    return std::copysign(3.402823466e38f,
                         f);  // odd, and above all 16-bit numbers but bfloat16's largest, where it rounds up as well
  }
  uint32_t bits = float_bits(f);
  if (bits & 1) return f;
  bool away = std::fabs(double(f)) < std::fabs(value);
  return bits_float(away ? bits + 1 : bits - 1);
}

template <Rounding R>
inline Half to_half(float f) {
  if (f != f) return {0x7fff};
  constexpr int mode = R == Rounding::kNearest ? _MM_FROUND_TO_NEAREST_INT
                       : R == Rounding::kZero  ? _MM_FROUND_TO_ZERO
                       : R == Rounding::kDown  ? _MM_FROUND_TO_NEG_INF
                                               : _MM_FROUND_TO_POS_INF;
  return {uint16_t(_cvtss_sh(f, mode | _MM_FROUND_NO_EXC))};
}
template <Rounding R>
inline Bfloat to_bfloat(float f) {
  if (f != f) return {0x7fff};
  uint32_t bits = float_bits(f), low = bits & 0xffff, high = bits >> 16;
  if ((bits & 0x7fffffff) == 0x7f800000) return {uint16_t(high)};
  bool negative = bits >> 31, up = false;
  switch (R) {
    case Rounding::kNearest: up = low > 0x8000 || (low == 0x8000 && (high & 1)); break;
    case Rounding::kZero: break;
    case Rounding::kDown: up = negative && low; break;
    case Rounding::kUp: up = !negative && low; break;
  }
  return {uint16_t(high + (up ? 1 : 0))};
}

template <class H, Rounding R = Rounding::kNearest>
inline H narrow(float f) {
  if constexpr (std::is_same_v<H, Half>)
    return to_half<R>(f);
  else
    return to_bfloat<R>(f);
}
template <class H>
inline H narrow(double d) {
  return narrow<H>(round_to_odd(d));
}

/// a * b + c in double with the last bit telling of what was lost, so that narrow() rounds once. Products of 16-bit numbers are
/// exact.
inline double fused_to_odd(double a, double b, double c) {
  double product = a * b, sum = product + c;
  if (std::isinf(sum) || sum != sum) return sum;
  double part = sum - product, lost = (product - (sum - part)) + (c - part);
  if (lost == 0) return sum;
  uint64_t bits;
  std::memcpy(&bits, &sum, 8);
  if (bits & 1) return sum;
  bits += (lost > 0) == (sum > 0) ? 1 : uint64_t(-1);
  std::memcpy(&sum, &bits, 8);
  return sum;
}

// Sums and products of two 16-bit numbers: the double result loses nothing that matters, except for far exponents of bfloat16,
// which fused_to_odd keeps.
template <class H>
inline H add(H a, H b) {
  return narrow<H>(fused_to_odd(to_float(a), 1.0, to_float(b)));
}
template <class H>
inline H subtract(H a, H b) {
  return narrow<H>(fused_to_odd(to_float(a), 1.0, -double(to_float(b))));
}
template <class H>
inline H multiply(H a, H b) {
  return narrow<H>(double(to_float(a)) * double(to_float(b)));
}
template <class H>
inline H fused(H a, H b, H c) {
  return narrow<H>(fused_to_odd(to_float(a), to_float(b), to_float(c)));
}
inline Half2 add(Half2 a, Half2 b) { return {add(a.low, b.low), add(a.high, b.high)}; }
inline Bfloat2 add(Bfloat2 a, Bfloat2 b) { return {add(a.low, b.low), add(a.high, b.high)}; }

}  // namespace bireal::ptx
