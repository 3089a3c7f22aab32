// cvt: every pair of integer and floating-point types, each rounding, saturation; pairs of 16-bit floats.
#include <cmath>
#include <limits>

#include "emulator/ptx/half.h"
#include "emulator/ptx/lanes.h"

namespace bireal::ptx {

namespace {

constexpr InstructionClass kConvert = InstructionClass::kConvert;

template <Rounding R>
inline double to_whole(double v) {
  if constexpr (R == Rounding::kNearest)
    return std::nearbyint(v);
  else if constexpr (R == Rounding::kZero)
    return std::trunc(v);
  else if constexpr (R == Rounding::kDown)
    return std::floor(v);
  else
    return std::ceil(v);
}

template <class T>
inline T widen(T v) {
  return v;
}
inline float widen(Half v) { return to_float(v); }
inline float widen(Bfloat v) { return to_float(v); }

/// What the slot of an integer destination holds: types below 16 bits are extended to it.
template <class D>
using IntegerSlot = std::conditional_t<sizeof(D) == 8, D, std::conditional_t<std::is_signed_v<D>, int32_t, uint32_t>>;

/// Float to integer always saturates. NaN: 0, but the lowest number (or 2^63) where the source or the destination has 64 bits.
template <class D, class S, Rounding R>
IntegerSlot<D> float_to_integer(S source) {
  double v = widen(source);
  if (v != v) {
    if (sizeof(S) < 8 && sizeof(D) < 8) return 0;
    return IntegerSlot<D>(D(std::make_unsigned_t<D>(1) << (sizeof(D) * 8 - 1)));
  }
  v = to_whole<R>(v);
  constexpr double low = double(std::numeric_limits<D>::min());
  constexpr double above = std::is_signed_v<D> ? -double(std::numeric_limits<std::make_signed_t<D>>::min())
                                               : -2.0 * double(std::numeric_limits<std::make_signed_t<D>>::min());
  if (v <= low) return std::numeric_limits<D>::min();
  if (v >= above) return std::numeric_limits<D>::max();
  return IntegerSlot<D>(D(v));
}

/// Truncates, or clamps with Sat.
template <class D, class S, bool Sat>
IntegerSlot<D> integer_to_integer(S v) {
  if constexpr (Sat) {
    if constexpr (std::is_signed_v<S>) {
      int64_t wide = v;
      if (!std::is_signed_v<D> && wide < 0) return 0;
      if (std::is_signed_v<D> && wide < int64_t(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
      if (wide > 0 && uint64_t(wide) > uint64_t(std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
    } else if (uint64_t(v) > uint64_t(std::numeric_limits<D>::max())) {
      return std::numeric_limits<D>::max();
    }
  }
  return IntegerSlot<D>(D(v));
}

/// Rounds an integer to float with a direction: to nearest by the host, then one step where that went the wrong way.
template <class F, Rounding R, class S>
F directed(S v) {
  F f = F(v);
  if constexpr (R == Rounding::kNearest) return f;
  __int128 exact = v, got = static_cast<__int128>(f);
  if (got == exact) return f;
  constexpr F infinity = std::numeric_limits<F>::infinity();
  bool down = R == Rounding::kDown || (R == Rounding::kZero && exact > 0);
  if (down && got > exact) return std::nextafter(f, -infinity);
  if (!down && got < exact) return std::nextafter(f, infinity);
  return f;
}
template <class D, class S, Rounding R>
D integer_to_float(S v) {
  if constexpr (std::is_floating_point_v<D>) {
    return directed<D, R>(v);
  } else if constexpr (R == Rounding::kNearest) {
    // integers of up to 53 bits are exact in double; longer ones overflow f16, and for bf16 keep what was lost in the last bit
    double wide = directed<double, Rounding::kZero>(v);
    if (static_cast<__int128>(wide) != static_cast<__int128>(v)) {
      uint64_t bits;
      std::memcpy(&bits, &wide, 8);
      bits |= 1;
      std::memcpy(&wide, &bits, 8);
    }
    return narrow<D>(wide);
  } else {
    return narrow<D, R>(directed<float, R>(v));
  }
}

template <Rounding R>
inline float double_to_float(double v) {
  float f = float(v);
  if (R == Rounding::kNearest || v != v || double(f) == v) return f;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  bool down = R == Rounding::kDown || (R == Rounding::kZero && v > 0);
  if (down && double(f) > v) return std::nextafterf(f, -infinity);
  if (!down && double(f) < v) return std::nextafterf(f, infinity);
  return f;
}

enum class After { kNothing, kSaturate, kRelu };
template <After A, class D>
inline D finish(D v) {
  if constexpr (A == After::kNothing) {
    return v;
  } else {
    auto f = widen(v);
    if (A == After::kSaturate && !(f >= 0)) return D{};
    if (A == After::kSaturate && f == 0) return D{};
    if (A == After::kRelu && f <= 0) return D{};
    if (A == After::kSaturate && f > 1) {
      if constexpr (std::is_floating_point_v<D>)
        return D(1);
      else
        return narrow<D>(1.0f);
    }
    return v;
  }
}

template <class D, class S, Rounding R, After A>
D float_to_float(S source) {
  auto v = widen(source);
  if constexpr (std::is_same_v<D, double>) {
    return finish<A>(D(v));
  } else if constexpr (std::is_same_v<D, float>) {
    float f = double_to_float<R>(double(v));
    return finish<A>(f != f ? bits_float(0x7fffffffu) : f);
  } else if constexpr (std::is_same_v<decltype(v), double>) {
    return finish<A>(R == Rounding::kNearest ? narrow<D>(v) : narrow<D, R>(double_to_float<R>(v)));
  } else {
    return finish<A>(narrow<D, R>(v));
  }
}
/// cvt.rni.f32.f32 and so on: a whole number.
template <class T, Rounding R>
T round_float(T v) {
  if constexpr (std::is_floating_point_v<T>)
    return T(to_whole<R>(double(v)));
  else
    return narrow<T>(float(to_whole<R>(double(widen(v)))));
}

/// cvt.rn.f16x2.f32 d, a, b: a in the upper half.
template <class H, Rounding R, bool Relu>
uint32_t pack_pair(float a, float b) {
  constexpr After A = Relu ? After::kRelu : After::kNothing;
  return uint32_t(finish<A>(narrow<H, R>(a)).bits) << 16 | finish<A>(narrow<H, R>(b)).bits;
}

// ---- choice

template <class D, class S>
bool choose_float_float(Decoder& d) {
  After a = d.take("sat") ? After::kSaturate : d.take("relu") ? After::kRelu : After::kNothing;
  if constexpr (std::is_same_v<D, S>) {
    if (d.take("rni")) return lanes<round_float<D, Rounding::kNearest>>(d, kConvert);
    if (d.take("rzi")) return lanes<round_float<D, Rounding::kZero>>(d, kConvert);
    if (d.take("rmi")) return lanes<round_float<D, Rounding::kDown>>(d, kConvert);
    if (d.take("rpi")) return lanes<round_float<D, Rounding::kUp>>(d, kConvert);
  }
  std::string r = d.rounding();
  if (a == After::kSaturate)
    return r == "rn" ? lanes<float_to_float<D, S, Rounding::kNearest, After::kSaturate>>(d, kConvert)
                     : (d.fail("rounding with .sat"), false);
  if (a == After::kRelu) {
    if (r == "rn") return lanes<float_to_float<D, S, Rounding::kNearest, After::kRelu>>(d, kConvert);
    return r == "rz" ? lanes<float_to_float<D, S, Rounding::kZero, After::kRelu>>(d, kConvert)
                     : (d.fail("rounding with .relu"), false);
  }
  if (r == "rz") return lanes<float_to_float<D, S, Rounding::kZero, After::kNothing>>(d, kConvert);
  if (r == "rm") return lanes<float_to_float<D, S, Rounding::kDown, After::kNothing>>(d, kConvert);
  if (r == "rp") return lanes<float_to_float<D, S, Rounding::kUp, After::kNothing>>(d, kConvert);
  return lanes<float_to_float<D, S, Rounding::kNearest, After::kNothing>>(d, kConvert);
}

template <class D, class S>
bool choose_float_integer(Decoder& d) {  // from float
  d.take("sat");
  d.take("ftz");
  if (d.take("rni")) return lanes<float_to_integer<D, S, Rounding::kNearest>>(d, kConvert);
  if (d.take("rmi")) return lanes<float_to_integer<D, S, Rounding::kDown>>(d, kConvert);
  if (d.take("rpi")) return lanes<float_to_integer<D, S, Rounding::kUp>>(d, kConvert);
  if (d.take("rzi")) return lanes<float_to_integer<D, S, Rounding::kZero>>(d, kConvert);
  d.fail("a rounding to an integer is missing");
}

template <class D, class S>
bool choose_integer_float(Decoder& d) {  // to float
  std::string r = d.rounding();
  if (r == "rz") return lanes<integer_to_float<D, S, Rounding::kZero>>(d, kConvert);
  if (r == "rm") return lanes<integer_to_float<D, S, Rounding::kDown>>(d, kConvert);
  if (r == "rp") return lanes<integer_to_float<D, S, Rounding::kUp>>(d, kConvert);
  return lanes<integer_to_float<D, S, Rounding::kNearest>>(d, kConvert);
}

/// The width of a register may exceed that of a small type: cvt.u8.u64 and cvt.s64.s8 read and write the slot that is there.
template <class D, class S>
bool choose(Decoder& d) {
  if constexpr (std::is_integral_v<D> && std::is_integral_v<S>) {
    return d.take("sat") ? lanes<integer_to_integer<D, S, true>>(d, kConvert)
                         : lanes<integer_to_integer<D, S, false>>(d, kConvert);
  } else if constexpr (std::is_integral_v<D>) {
    return choose_float_integer<D, S>(d);
  } else if constexpr (std::is_integral_v<S>) {
    return choose_integer_float<D, S>(d);
  } else {
    return choose_float_float<D, S>(d);
  }
}

template <class D>
bool choose_source(Decoder& d, const std::string& s) {
  if (s == "s8") return choose<D, int8_t>(d);
  if (s == "u8") return choose<D, uint8_t>(d);
  if (s == "s16") return choose<D, int16_t>(d);
  if (s == "u16") return choose<D, uint16_t>(d);
  if (s == "s32") return choose<D, int32_t>(d);
  if (s == "u32") return choose<D, uint32_t>(d);
  if (s == "s64") return choose<D, int64_t>(d);
  if (s == "u64") return choose<D, uint64_t>(d);
  if (s == "f16") return choose<D, Half>(d);
  if (s == "bf16") return choose<D, Bfloat>(d);
  if (s == "f32") return choose<D, float>(d);
  if (s == "f64") return choose<D, double>(d);
  d.fail("source type not supported");
}

template <class H>
bool choose_pair(Decoder& d) {
  bool relu = d.take("relu");
  std::string r = d.rounding();
  if (r == "rn")
    return relu ? lanes<pack_pair<H, Rounding::kNearest, true>>(d, kConvert)
                : lanes<pack_pair<H, Rounding::kNearest, false>>(d, kConvert);
  if (r == "rz")
    return relu ? lanes<pack_pair<H, Rounding::kZero, true>>(d, kConvert)
                : lanes<pack_pair<H, Rounding::kZero, false>>(d, kConvert);
  d.fail("rounding not supported");
}

}  // namespace

bool decode_convert(Decoder& d) {
  if (d.opcode != "cvt") return false;
  if (d.modifiers.size() < 2) d.fail("types are missing");
  std::string s = d.type(), t = d.modifier(d.modifiers.size() - 2);
  if (d.take("pack")) d.fail("cvt.pack is not supported");
  if (t == "f16x2" && s == "f32") return choose_pair<Half>(d);
  if (t == "bf16x2" && s == "f32") return choose_pair<Bfloat>(d);
  if (t == "s8") return choose_source<int8_t>(d, s);
  if (t == "u8") return choose_source<uint8_t>(d, s);
  if (t == "s16") return choose_source<int16_t>(d, s);
  if (t == "u16") return choose_source<uint16_t>(d, s);
  if (t == "s32") return choose_source<int32_t>(d, s);
  if (t == "u32") return choose_source<uint32_t>(d, s);
  if (t == "s64") return choose_source<int64_t>(d, s);
  if (t == "u64") return choose_source<uint64_t>(d, s);
  if (t == "f16") return choose_source<Half>(d, s);
  if (t == "bf16") return choose_source<Bfloat>(d, s);
  if (t == "f32") return choose_source<float>(d, s);
  if (t == "f64") return choose_source<double>(d, s);
  d.fail("destination type not supported");
}

}  // namespace bireal::ptx
