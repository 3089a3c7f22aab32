// setp for any type that a trait can compare: d|q = (a CMP b) BOOL c.
#pragma once
#include <array>

#include "emulator/ptx/lanes.h"

namespace bireal::ptx {

enum class Comparison : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kEqu, kNeu, kLtu, kLeu, kGtu, kGeu, kNum, kNan };

/// The number that a type compares as: itself, or a float for the 16-bit ones.
template <class T>
inline T comparable(T value) {
  return value;
}

/// Ordered comparisons are false with a NaN, the ones that end in u are true.
template <Comparison C, class T>
inline bool compare(T a, T b) {
  bool unordered = false;
  if constexpr (!std::is_integral_v<T>) unordered = a != a || b != b;
  switch (C) {
    case Comparison::kEq: return a == b;
    case Comparison::kNe: return !unordered && a != b;
    case Comparison::kLt: return a < b;
    case Comparison::kLe: return a <= b;
    case Comparison::kGt: return a > b;
    case Comparison::kGe: return a >= b;
    case Comparison::kEqu: return unordered || a == b;
    case Comparison::kNeu: return unordered || a != b;
    case Comparison::kLtu: return unordered || a < b;
    case Comparison::kLeu: return unordered || a <= b;
    case Comparison::kGtu: return unordered || a > b;
    case Comparison::kGeu: return unordered || a >= b;
    case Comparison::kNum: return !unordered;
    case Comparison::kNan: return unordered;
  }
  return false;
}

enum class Combine : uint8_t { kNone, kAnd, kOr, kXor };

template <Comparison C, class T>
void set_predicate(Warp& warp, const Instruction& in, uint32_t mask) {
  const Slot<T>*a = warp.in<T>(in.args[2]), *b = warp.in<T>(in.args[3]);
  uint32_t result = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    result |= uint32_t(compare<C>(comparable(from_slot<T>(a[lane])), comparable(from_slot<T>(b[lane])))) << lane;
  uint32_t negated = ~result;
  if (in.args[4].present()) {
    uint32_t c = warp.predicate(in.args[4], in.flags & 1);
    switch (Combine(in.mode)) {
      case Combine::kAnd: result &= c, negated &= c; break;
      case Combine::kOr: result |= c, negated |= c; break;
      case Combine::kXor: result ^= c, negated ^= c; break;
      case Combine::kNone: break;
    }
  }
  warp.set_predicate(in.args[0], mask, result);
  warp.set_predicate(in.args[1], mask, negated);
}

/// One for each Comparison from the first on.
template <class T, size_t... I>
constexpr std::array<Handler, sizeof...(I)> comparisons(std::index_sequence<I...>) {
  return {set_predicate<Comparison(I), T>...};
}

/// Integers have the first six.
template <class T>
bool decode_set_predicate(Decoder& d) {
  constexpr auto handlers = comparisons<T>(std::make_index_sequence < std::is_integral_v<T> ? 6 : 14 > ());
  static const char* const names[] = {"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
  static const char* const unsigned_names[] = {"", "", "lo", "ls", "hi", "hs"};
  std::string name = d.modifier(0);
  int which = -1;
  for (int i = 0; i < int(handlers.size()); ++i)
    if (name == names[i] || (i >= 2 && i < 6 && name == unsigned_names[i])) which = i;
  if (which < 0) d.fail("comparison not supported");
  Combine combine = d.take("and") ? Combine::kAnd : d.take("or") ? Combine::kOr : d.take("xor") ? Combine::kXor : Combine::kNone;
  size_t least = combine == Combine::kNone ? 3 : 4;
  d.expect_operands(least, least + 1);
  size_t next = 0;
  d.in.args[0] = d.predicate_dest(d.operands[next++]);
  if (d.operands.size() > least) d.in.args[1] = d.predicate_dest(d.operands[next++]);
  d.in.args[2] = d.source(d.operands[next++], sizeof(T));
  d.in.args[3] = d.source(d.operands[next++], sizeof(T));
  if (combine != Combine::kNone) {
    std::string p = d.operands[next];
    if (p[0] == '!') {
      d.in.flags = 1;
      p = p.substr(1);
    }
    d.in.args[4] = d.predicate_source(p);
  }
  d.in.mode = uint8_t(combine);
  d.in.category = std::is_integral_v<T> ? InstructionClass::kInteger : InstructionClass::kFloat;
  d.in.run = handlers[size_t(which)];
  return true;
}

}  // namespace bireal::ptx
