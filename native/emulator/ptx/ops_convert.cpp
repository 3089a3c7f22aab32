// cvt: every pair of integer and floating-point types, each rounding, saturation; pairs of 16-bit floats.
//
// One function knows them all and looks up for each value what to do. What kernels mostly use, conversions that C++ has too, have
// loops of their own beside it: a loop for each pair, rounding and saturation would be 500, and took a fifth of a minute to
// compile.
#include <cmath>
#include <iterator>
#include <limits>

#include "emulator/ptx/half.h"
#include "emulator/ptx/lanes.h"

namespace bireal::ptx {

namespace {

constexpr InstructionClass kConvert = InstructionClass::kConvert;

enum class Type : uint8_t { kS8, kU8, kS16, kU16, kS32, kU32, kS64, kU64, kF16, kBf16, kF32, kF64 };
constexpr const char* kTypeNames[] = {"s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "f16", "bf16", "f32", "f64"};
constexpr int kTypeBits[] = {8, 8, 16, 16, 32, 32, 64, 64, 16, 16, 32, 64};
constexpr bool is_integer(Type t) { return t <= Type::kU64; }
constexpr bool is_signed(Type t) { return int(t) % 2 == 0; }  // of an integer

enum class After : uint8_t { kNothing, kSaturate, kRelu };

/// What a cvt does, in mode and flags of its instruction.
struct Conversion {
  Type to, from;
  Rounding rounding = Rounding::kNearest;
  bool whole = false;  ///< .rni, .rzi, ...: to a whole number
  After after = After::kNothing;

  void put(Instruction& in) const {
    in.mode = uint8_t(int(to) << 4 | int(from));
    in.flags = uint8_t(int(rounding) | int(whole) << 2 | int(after) << 3);
  }
  static Conversion of(const Instruction& in) {
    return {Type(in.mode >> 4), Type(in.mode & 15), Rounding(in.flags & 3), bool(in.flags >> 2 & 1), After(in.flags >> 3)};
  }
};

double to_whole(double v, Rounding r) {
  switch (r) {
    case Rounding::kNearest: return std::nearbyint(v);
    case Rounding::kZero: return std::trunc(v);
    case Rounding::kDown: return std::floor(v);
    case Rounding::kUp: return std::ceil(v);
  }
  return v;
}

/// The low bits as an integer of that type, extended to 64 bits.
uint64_t extend(Type t, uint64_t bits) {
  const int unused = 64 - kTypeBits[int(t)];
  return is_signed(t) ? uint64_t(int64_t(bits << unused) >> unused) : bits << unused >> unused;
}
int64_t lowest(Type t) { return is_signed(t) ? int64_t(~0ull << (kTypeBits[int(t)] - 1)) : 0; }
uint64_t largest(Type t) { return ~0ull >> (64 - kTypeBits[int(t)] + is_signed(t)); }
__int128 integer_value(Type t, uint64_t slot) {
  uint64_t v = extend(t, slot);
  return is_signed(t) ? __int128(int64_t(v)) : __int128(v);
}
double float_value(Type t, uint64_t slot) {
  switch (t) {
    case Type::kF16: return to_float(from_slot<Half>(uint32_t(slot)));
    case Type::kBf16: return to_float(from_slot<Bfloat>(uint32_t(slot)));
    case Type::kF32: return from_slot<float>(uint32_t(slot));
    default: return from_slot<double>(slot);
  }
}

/// Float to integer always saturates. NaN: 0, but the lowest number (or 2^63) where the source or the destination has 64 bits.
uint64_t float_to_integer(Type to, Type from, double v, Rounding rounding) {
  if (v != v) return from == Type::kF64 || kTypeBits[int(to)] == 64 ? extend(to, 1ull << (kTypeBits[int(to)] - 1)) : 0;
  v = to_whole(v, rounding);
  if (v <= double(lowest(to))) return uint64_t(lowest(to));
  if (v >= 2.0 * double(1ull << (kTypeBits[int(to)] - is_signed(to) - 1))) return largest(to);
  return is_signed(to) ? uint64_t(int64_t(v)) : uint64_t(v);
}

/// One step from f towards `value` where the rounding to nearest went the wrong way.
template <class F, class V>
F directed(F f, V value, V got, Rounding rounding) {
  if (rounding == Rounding::kNearest || !(got < value || got > value)) return f;
  constexpr F infinity = std::numeric_limits<F>::infinity();
  bool down = rounding == Rounding::kDown || (rounding == Rounding::kZero && value > 0);
  if (down && got > value) return std::nextafter(f, -infinity);
  if (!down && got < value) return std::nextafter(f, infinity);
  return f;
}
template <class F>
F round_integer(__int128 v, Rounding rounding) {
  F f = F(v);
  return directed(f, v, static_cast<__int128>(f), rounding);
}
float round_double(double v, Rounding rounding) { return directed(float(v), v, double(float(v)), rounding); }

template <class H>
H round_to_16(float v, Rounding rounding) {
  switch (rounding) {
    case Rounding::kZero: return narrow<H, Rounding::kZero>(v);
    case Rounding::kDown: return narrow<H, Rounding::kDown>(v);
    case Rounding::kUp: return narrow<H, Rounding::kUp>(v);
    default: return narrow<H>(v);
  }
}
template <class D, class V>
D round_to(V v, Rounding rounding) {
  constexpr bool integer = !std::is_floating_point_v<V>;
  if constexpr (std::is_same_v<D, double>) {
    if constexpr (integer) return round_integer<double>(v, rounding);
    return double(v);
  } else if constexpr (std::is_same_v<D, float>) {
    if constexpr (integer) return round_integer<float>(v, rounding);
    float f = round_double(double(v), rounding);
    return f != f ? bits_float(0x7fffffffu) : f;
  } else if constexpr (integer) {
    if (rounding != Rounding::kNearest) return round_to_16<D>(round_integer<float>(v, rounding), rounding);
    // integers of up to 53 bits are exact in double; longer ones overflow f16, and for bf16 keep what was lost in the last bit
    double wide = round_integer<double>(v, Rounding::kZero);
    if (static_cast<__int128>(wide) == v) return narrow<D>(wide);
    uint64_t bits = to_slot(wide) | 1;
    return narrow<D>(from_slot<double>(bits));
  } else {
    if (rounding == Rounding::kNearest) return narrow<D>(double(v));
    return round_to_16<D>(round_double(v, rounding), rounding);
  }
}

inline float number(Half v) { return to_float(v); }
inline float number(Bfloat v) { return to_float(v); }
inline float number(float v) { return v; }
inline double number(double v) { return v; }

template <class D>
D finish(D v, After after) {
  if (after == After::kNothing) return v;
  auto f = number(v);
  if (after == After::kRelu) return f <= 0 ? D{} : v;
  if (!(f > 0)) return D{};
  if (f <= 1) return v;
  if constexpr (std::is_floating_point_v<D>)
    return 1;
  else
    return narrow<D>(1.0f);
}

template <class D>
uint64_t to_floating(const Conversion& c, uint64_t slot) {
  if (is_integer(c.from)) return to_slot(round_to<D>(integer_value(c.from, slot), c.rounding));
  double v = float_value(c.from, slot);
  if (c.whole) v = to_whole(v, c.rounding);
  return to_slot(finish(round_to<D>(v, c.whole ? Rounding::kNearest : c.rounding), c.after));
}

uint64_t convert(const Conversion& c, uint64_t slot) {
  switch (c.to) {
    case Type::kF16: return to_floating<Half>(c, slot);
    case Type::kBf16: return to_floating<Bfloat>(c, slot);
    case Type::kF32: return to_floating<float>(c, slot);
    case Type::kF64: return to_floating<double>(c, slot);
    default: break;
  }
  if (!is_integer(c.from)) return float_to_integer(c.to, c.from, float_value(c.from, slot), c.rounding);
  if (c.after == After::kSaturate) {
    __int128 v = integer_value(c.from, slot);
    if (v < lowest(c.to)) return uint64_t(lowest(c.to));
    if (v > __int128(largest(c.to))) return largest(c.to);
  }
  return extend(c.to, extend(c.from, slot));
}
/// The width of a register may exceed that of a small type: cvt.u8.u64 and cvt.s64.s8 read and write the slot that is there.
template <class D, class S>
D any(const Instruction& in, S slot) {
  return D(convert(Conversion::of(in), slot));
}

// ---- conversions with a loop of their own: those that need no modifier but .rn

template <class D, class S>
D plain(S v) {
  if constexpr (std::is_same_v<D, Half> || std::is_same_v<D, Bfloat>) {
    return narrow<D>(float(v));
  } else if constexpr (std::is_same_v<S, Half> || std::is_same_v<S, Bfloat>) {
    return to_float(v);
  } else if constexpr (std::is_same_v<D, float> && std::is_same_v<S, double>) {
    float f = float(v);
    return f != f ? bits_float(0x7fffffffu) : f;
  } else {
    return D(v);
  }
}
struct Plain {
  Type to, from;
  bool (*install)(Decoder&, InstructionClass);
};
constexpr Plain kPlain[] = {
    {Type::kU16, Type::kU32, lanes<plain<uint16_t, uint32_t>>}, {Type::kU16, Type::kU64, lanes<plain<uint16_t, uint64_t>>},
    {Type::kU32, Type::kU16, lanes<plain<uint32_t, uint16_t>>}, {Type::kS32, Type::kS16, lanes<plain<int32_t, int16_t>>},
    {Type::kS32, Type::kS8, lanes<plain<int32_t, int8_t>>},     {Type::kU32, Type::kU64, lanes<plain<uint32_t, uint64_t>>},
    {Type::kU64, Type::kU16, lanes<plain<uint64_t, uint16_t>>}, {Type::kS64, Type::kS16, lanes<plain<int64_t, int16_t>>},
    {Type::kU64, Type::kU32, lanes<plain<uint64_t, uint32_t>>}, {Type::kS64, Type::kS32, lanes<plain<int64_t, int32_t>>},
    {Type::kF32, Type::kS16, lanes<plain<float, int16_t>>},     {Type::kF32, Type::kU16, lanes<plain<float, uint16_t>>},
    {Type::kF32, Type::kS32, lanes<plain<float, int32_t>>},     {Type::kF32, Type::kU32, lanes<plain<float, uint32_t>>},
    {Type::kF64, Type::kS32, lanes<plain<double, int32_t>>},    {Type::kF64, Type::kU32, lanes<plain<double, uint32_t>>},
    {Type::kF64, Type::kS64, lanes<plain<double, int64_t>>},    {Type::kF64, Type::kU64, lanes<plain<double, uint64_t>>},
    {Type::kF16, Type::kF32, lanes<plain<Half, float>>},        {Type::kBf16, Type::kF32, lanes<plain<Bfloat, float>>},
    {Type::kF32, Type::kF16, lanes<plain<float, Half>>},        {Type::kF32, Type::kBf16, lanes<plain<float, Bfloat>>},
    {Type::kF32, Type::kF64, lanes<plain<float, double>>},      {Type::kF64, Type::kF32, lanes<plain<double, float>>}};

/// cvt.rn.f16x2.f32 d, a, b: a in the upper half.
template <class H>
uint32_t pack_pair(const Instruction& in, float a, float b) {
  const Conversion c = Conversion::of(in);
  auto half = [&](float v) { return uint32_t(finish(round_to_16<H>(v, c.rounding), c.after).bits); };
  return half(a) << 16 | half(b);
}

// ---- choice

Rounding rounding_of(Decoder& d) {
  std::string r = d.rounding();
  return r == "rz" ? Rounding::kZero : r == "rm" ? Rounding::kDown : r == "rp" ? Rounding::kUp : Rounding::kNearest;
}

bool decode_pair(Decoder& d, bool bfloat) {
  Conversion c{};
  if (d.take("relu")) c.after = After::kRelu;
  c.rounding = rounding_of(d);
  if (c.rounding != Rounding::kNearest && c.rounding != Rounding::kZero) d.fail("rounding not supported");
  c.put(d.in);
  return bfloat ? lanes<pack_pair<Bfloat>>(d, kConvert) : lanes<pack_pair<Half>>(d, kConvert);
}

Type type_of(Decoder& d, const std::string& name) {
  for (size_t i = 0; i < std::size(kTypeNames); ++i)
    if (name == kTypeNames[i]) return Type(i);
  d.fail("type not supported");
}

}  // namespace

bool decode_convert(Decoder& d) {
  if (d.opcode != "cvt") return false;
  if (d.modifiers.size() < 2) d.fail("types are missing");
  std::string s = d.type(), t = d.modifier(d.modifiers.size() - 2);
  if (d.take("pack")) d.fail("cvt.pack is not supported");
  if ((t == "f16x2" || t == "bf16x2") && s == "f32") return decode_pair(d, t == "bf16x2");
  Conversion c{type_of(d, t), type_of(d, s)};
  const bool to_integer = is_integer(c.to), from_integer = is_integer(c.from);
  if (to_integer || !from_integer) {
    if (d.take("sat")) c.after = After::kSaturate;
    if (!to_integer && c.after == After::kNothing && d.take("relu")) c.after = After::kRelu;
  }
  if (!from_integer && (to_integer || c.to == c.from)) {
    if (to_integer) d.take("ftz");
    const std::pair<const char*, Rounding> wholes[] = {
        {"rni", Rounding::kNearest}, {"rzi", Rounding::kZero}, {"rmi", Rounding::kDown}, {"rpi", Rounding::kUp}};
    for (const auto& [name, rounding] : wholes)
      if (!c.whole && d.take(name)) {
        c.whole = true;
        c.rounding = rounding;
      }
    if (to_integer && !c.whole) d.fail("a rounding to an integer is missing");
  }
  if (!to_integer && !c.whole) c.rounding = rounding_of(d);
  if (c.after == After::kSaturate && !to_integer && c.rounding != Rounding::kNearest && !c.whole) d.fail("rounding with .sat");
  if (c.after == After::kRelu && c.rounding > Rounding::kZero && !c.whole) d.fail("rounding with .relu");
  if (!c.whole && c.rounding == Rounding::kNearest && c.after == After::kNothing)
    for (const Plain& p : kPlain)
      if (p.to == c.to && p.from == c.from) return p.install(d, kConvert);
  c.put(d.in);
  const bool wide_to = kTypeBits[int(c.to)] == 64, wide_from = kTypeBits[int(c.from)] == 64;
  if (wide_to) return wide_from ? lanes<any<uint64_t, uint64_t>>(d, kConvert) : lanes<any<uint64_t, uint32_t>>(d, kConvert);
  return wide_from ? lanes<any<uint32_t, uint64_t>>(d, kConvert) : lanes<any<uint32_t, uint32_t>>(d, kConvert);
}

}  // namespace bireal::ptx
