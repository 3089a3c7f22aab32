// Integer and logic instructions, moves, comparisons of integers, predicates.
#include <algorithm>

#include "emulator/ptx/compare.h"
#include "emulator/ptx/lanes.h"

namespace bireal::ptx {

namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;
/// Twice as wide.
template <class T>
struct Wider;
template <>
struct Wider<int16_t> {
  using type = int32_t;
};
template <>
struct Wider<uint16_t> {
  using type = uint32_t;
};
template <>
struct Wider<int32_t> {
  using type = int64_t;
};
template <>
struct Wider<uint32_t> {
  using type = uint64_t;
};
template <>
struct Wider<int64_t> {
  using type = __int128;
};
template <>
struct Wider<uint64_t> {
  using type = unsigned __int128;
};
template <class T>
using Wide = typename Wider<T>::type;
template <class T>
constexpr uint32_t kBits = sizeof(T) * 8;

// Sums and products wrap: computed without sign. 16-bit operands would be promoted to int, so go through 32 bits.
template <class T>
using Wrap = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
template <class T>
T add(T a, T b) {
  return T(Wrap<T>(a) + Wrap<T>(b));
}
template <class T>
T sub(T a, T b) {
  return T(Wrap<T>(a) - Wrap<T>(b));
}
template <class T>
T mul_lo(T a, T b) {
  return T(Wrap<T>(a) * Wrap<T>(b));
}
template <class T>
T mul_hi(T a, T b) {
  return T((Wide<T>(a) * Wide<T>(b)) >> kBits<T>);
}
template <class T>
Wide<T> mul_wide(T a, T b) {
  return Wide<T>(a) * Wide<T>(b);
}
template <class T>
T mad_lo(T a, T b, T c) {
  return add(mul_lo(a, b), c);
}
template <class T>
T mad_hi(T a, T b, T c) {
  return add(mul_hi(a, b), c);
}
template <class T>
Wide<T> mad_wide(T a, T b, Wide<T> c) {
  return add(mul_wide(a, b), c);
}
template <bool Signed>
int32_t mul24(int32_t a, int32_t b) {
  return Signed ? int32_t(uint32_t(int32_t(uint32_t(a) << 8) >> 8) * uint32_t(int32_t(uint32_t(b) << 8) >> 8))
                : int32_t((uint32_t(a) & 0xffffff) * (uint32_t(b) & 0xffffff));
}
/// By zero: all ones, as the GPUs do; the ISA leaves it open.
template <class T>
T divide(T a, T b) {
  if (b == 0) return T(~T(0));
  if constexpr (std::is_signed_v<T>)
    if (b == T(-1)) return T(0 - Wrap<T>(a));
  return T(a / b);
}
template <class T>
T remainder(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>)
    if (b == T(-1)) return 0;
  return T(a % b);
}
template <class T>
T min_of(T a, T b) {
  return a < b ? a : b;
}
template <class T>
T max_of(T a, T b) {
  return a > b ? a : b;
}
template <class T>
T negate(T a) {
  return T(0 - Wrap<T>(a));
}
template <class T>
T absolute(T a) {
  return a < 0 ? negate(a) : a;
}
template <class T>
T sad(T a, T b, T c) {
  return add<T>(c, T(a < b ? Wrap<T>(b) - Wrap<T>(a) : Wrap<T>(a) - Wrap<T>(b)));
}
template <class T>
T bit_and(T a, T b) {
  return T(a & b);
}
template <class T>
T bit_or(T a, T b) {
  return T(a | b);
}
template <class T>
T bit_xor(T a, T b) {
  return T(a ^ b);
}
template <class T>
T bit_not(T a) {
  return T(~a);
}
template <class T>
T logical_not(T a) {
  return a == 0;
}
template <class T>
T shift_left(T a, uint32_t n) {
  return n >= kBits<T> ? T(0) : T(Wrap<T>(a) << n);
}
template <class T>
T shift_right(T a, uint32_t n) {
  return n >= kBits<T> ? T(std::is_signed_v<T> && a < 0 ? -1 : 0) : T(a >> n);
}
template <bool Left, bool Wrapped>
uint32_t funnel_shift(uint32_t low, uint32_t high, uint32_t n) {
  n = Wrapped ? n & 31 : std::min(n, 32u);
  uint64_t both = uint64_t(high) << 32 | low;
  return Left ? uint32_t((both << n) >> 32) : uint32_t(both >> n);
}
template <class T>
uint32_t population_count(T a) {
  return uint32_t(__builtin_popcountll(Unsigned<T>(a)));
}
template <class T>
uint32_t leading_zeros(T a) {
  return a == 0 ? kBits<T> : uint32_t(__builtin_clzll(uint64_t(a))) - (64 - kBits<T>);
}
template <class T>
T reverse_bits(T a) {
  T r = 0;
  for (uint32_t i = 0; i < kBits<T>; ++i) r = T(r | ((a >> i & 1) << (kBits<T> - 1 - i)));
  return r;
}
/// Position of the highest bit that differs from the sign; with Shift the distance from the top. None: all ones.
template <class T, bool Shift>
uint32_t find_bit(T a) {
  Unsigned<T> u = std::is_signed_v<T> && a < 0 ? Unsigned<T>(~a) : Unsigned<T>(a);
  if (u == 0) return 0xffffffffu;
  uint32_t position = kBits<T> - 1 - leading_zeros<Unsigned<T>>(u);
  return Shift ? kBits<T> - 1 - position : position;
}
template <class T>
T extract_bits(T a, uint32_t position, uint32_t length) {
  position &= 255;
  length &= 255;
  if (length == 0) return 0;
  constexpr uint32_t top = kBits<T> - 1;
  bool sign = std::is_signed_v<T> && (a >> std::min(position + length - 1, top) & 1);
  Unsigned<T> field = position > top ? 0 : Unsigned<T>(Unsigned<T>(a) >> position);
  uint32_t valid = std::min(length, position > top ? 0 : top + 1 - position);
  if (valid < kBits<T>) {
    Unsigned<T> keep = Unsigned<T>((Unsigned<T>(1) << valid) - 1);
    field = Unsigned<T>((field & keep) | (sign ? ~keep : 0));
  }
  return T(field);
}
template <class T>
T insert_bits(T field, T into, uint32_t position, uint32_t length) {
  position &= 255;
  length &= 255;
  if (position >= kBits<T> || length == 0) return into;
  T keep = length >= kBits<T> ? T(~T(0)) : T((T(1) << length) - 1);
  return T((into & ~T(keep << position)) | T((field & keep) << position));
}
uint32_t bit_mask(uint32_t position, uint32_t length) {
  uint32_t ones = length >= 32 ? ~0u : (1u << length) - 1;
  return position >= 32 ? 0 : ones << position;
}
uint32_t logic3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t r = 0;
  if (table & 1) r |= ~a & ~b & ~c;
  if (table & 2) r |= ~a & ~b & c;
  if (table & 4) r |= ~a & b & ~c;
  if (table & 8) r |= ~a & b & c;
  if (table & 16) r |= a & ~b & ~c;
  if (table & 32) r |= a & ~b & c;
  if (table & 64) r |= a & b & ~c;
  if (table & 128) r |= a & b & c;
  return r;
}
uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint64_t both = uint64_t(b) << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; ++i) {
    uint32_t pick = selector >> (4 * i) & 15;
    uint32_t byte = uint32_t(both >> (8 * (pick & 7))) & 255;
    if (pick & 8) byte = byte & 0x80 ? 255 : 0;
    r |= byte << (8 * i);
  }
  return r;
}
enum class PermuteMode { kForward4, kBackward4, kReplicate8, kEdgeLeft, kEdgeRight, kReplicate16 };
template <PermuteMode M>
uint32_t permute_mode(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t n = c & 3, selector = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    uint32_t pick = 0;
    switch (M) {
      case PermuteMode::kForward4: pick = n + i; break;
      case PermuteMode::kBackward4: pick = (n - i) & 7; break;
      case PermuteMode::kReplicate8: pick = n; break;
      case PermuteMode::kEdgeLeft: pick = std::max(i, n); break;
      case PermuteMode::kEdgeRight: pick = std::min(i, n); break;
      case PermuteMode::kReplicate16: pick = (n & 1) * 2 + (i & 1); break;
    }
    selector |= pick << (4 * i);
  }
  return permute(a, b, selector);
}
template <class A, class B>
uint32_t dot4(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 4; ++i) c += uint32_t(int32_t(A(a >> (8 * i))) * int32_t(B(b >> (8 * i))));
  return c;
}
template <class A, class B, bool High>
uint32_t dot2(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 2; ++i) c += uint32_t(int32_t(A(a >> (16 * i))) * int32_t(B(b >> (8 * (i + (High ? 2 : 0))))));
  return c;
}
template <class T>
T copy(T a) {
  return a;
}
/// d = c >= 0 ? a : b
template <class T, class C>
T select_sign(T a, T b, C c) {
  return c >= 0 ? a : b;
}

template <class T>
void select(Warp& warp, const Instruction& in, uint32_t mask) {
  Slot<T>* d = warp.out<T>(in.args[0]);
  const Slot<T>*a = warp.in<T>(in.args[1]), *b = warp.in<T>(in.args[2]);
  uint32_t p = warp.predicate(in.args[3]);
  Slot<T> result[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = p >> lane & 1 ? a[lane] : b[lane];
  keep_lanes(d, result, mask);
}

/// and, or, xor, not and mov of predicates.
enum PredicateOp : uint8_t { kAnd, kOr, kXor, kNot, kMove };
void predicate_logic(Warp& warp, const Instruction& in, uint32_t mask) {
  uint32_t a = warp.predicate(in.args[1]), b = in.args[2].present() ? warp.predicate(in.args[2]) : 0, r = 0;
  switch (PredicateOp(in.mode)) {
    case kAnd: r = a & b; break;
    case kOr: r = a | b; break;
    case kXor: r = a ^ b; break;
    case kNot: r = ~a; break;
    case kMove: r = a; break;
  }
  warp.set_predicate(in.args[0], mask, r);
}

/// mov.b32 d, {a, b} and wider: elements of `bytes`, the first the lowest.
template <class S>
void pack(Warp& warp, const Instruction& in, uint32_t mask) {
  S value[kLanes] = {};
  const uint32_t keep = ~0u >> (32 - 8 * in.bytes);  // at most 4 bytes
  for (int i = 0; i < in.count; ++i) {
    const uint32_t* element = warp.in<uint32_t>(in.args[1 + i]);
    const int shift = 8 * in.bytes * i;
    for (int lane = 0; lane < kLanes; ++lane) value[lane] |= S(element[lane] & keep) << shift;
  }
  keep_lanes(warp.out<S>(in.args[0]), value, mask);
}
template <class S>
void unpack(Warp& warp, const Instruction& in, uint32_t mask) {
  S value[kLanes];  // a part may lie where the whole does
  std::memcpy(value, warp.in<S>(in.args[0]), sizeof value);
  for (int i = 0; i < in.count; ++i) {
    if (!in.args[1 + i].present()) continue;
    uint32_t part[kLanes];
    const int shift = 8 * in.bytes * i;
    for (int lane = 0; lane < kLanes; ++lane) part[lane] = uint32_t(value[lane] >> shift);
    keep_lanes(warp.out<uint32_t>(in.args[1 + i]), part, mask);
  }
}

bool decode_move(Decoder& d) {
  std::string type = d.type();
  d.expect_operands(2, 2);
  if (type == "pred") {
    d.in.category = InstructionClass::kMove;
    d.in.args[0] = d.predicate_dest(d.operands[0]);
    d.in.args[1] = d.predicate_source(d.operands[1]);
    d.in.mode = kMove;
    d.in.run = predicate_logic;
    return true;
  }
  int bytes = type_bytes(type);
  if (bytes == 0 || bytes > 8) d.fail("type not supported");
  bool packs = d.operands[1][0] == '{';
  if (packs || d.operands[0][0] == '{') {
    auto parts = d.vector(d.operands[packs ? 1 : 0]);
    d.in.category = InstructionClass::kMove;
    d.in.count = uint8_t(parts.size());
    int element = bytes / int(parts.size());
    if (element * int(parts.size()) != bytes || element > 4) d.fail("elements do not fill the register");
    d.in.wide_data = bytes > 4;
    d.in.args[0] = packs ? d.dest(d.operands[0], bytes) : d.source(d.operands[1], bytes);
    for (size_t i = 0; i < parts.size(); ++i) d.in.args[1 + i] = packs ? d.source(parts[i], element) : d.dest(parts[i], element);
    if (d.in.wide_data)
      d.in.run = packs ? pack<uint64_t> : unpack<uint64_t>;
    else
      d.in.run = packs ? pack<uint32_t> : unpack<uint32_t>;
    d.in.bytes = uint8_t(element);
    return true;
  }
  return bytes <= 4 ? lanes<copy<uint32_t>>(d, InstructionClass::kMove) : lanes<copy<uint64_t>>(d, InstructionClass::kMove);
}

bool decode_predicate_logic(Decoder& d) {
  d.expect_operands(d.opcode == "not" ? 2 : 3, d.opcode == "not" ? 2 : 3);
  d.in.args[0] = d.predicate_dest(d.operands[0]);
  d.in.args[1] = d.predicate_source(d.operands[1]);
  if (d.opcode != "not") d.in.args[2] = d.predicate_source(d.operands[2]);
  d.in.mode = d.opcode == "and" ? kAnd : d.opcode == "or" ? kOr : d.opcode == "xor" ? kXor : kNot;
  d.in.run = predicate_logic;
  return true;
}

bool decode_select(Decoder& d) {
  int bytes = type_bytes(d.type());
  d.expect_operands(4, 4);
  if (bytes == 0 || bytes > 8) d.fail("type not supported");
  d.in.category = InstructionClass::kMove;
  d.in.args[0] = d.dest(d.operands[0], bytes);
  d.in.args[1] = d.source(d.operands[1], bytes);
  d.in.args[2] = d.source(d.operands[2], bytes);
  d.in.args[3] = d.predicate_source(d.operands[3]);
  d.in.run = bytes <= 4 ? select<uint32_t> : select<uint64_t>;
  return true;
}

bool decode_select_sign(Decoder& d) {
  std::string condition = d.modifier(d.modifiers.size() - 1);
  int bytes = type_bytes(d.modifier(d.modifiers.size() - 2));
  if (condition == "s32" && bytes == 4) return lanes<select_sign<uint32_t, int32_t>>(d, InstructionClass::kMove);
  if (condition == "s32" && bytes == 8) return lanes<select_sign<uint64_t, int32_t>>(d, InstructionClass::kMove);
  if (condition == "f32" && bytes == 4) return lanes<select_sign<uint32_t, float>>(d, InstructionClass::kMove);
  if (condition == "f32" && bytes == 8) return lanes<select_sign<uint64_t, float>>(d, InstructionClass::kMove);
  d.fail("type not supported");
}

bool decode_compare(Decoder& d) {
  std::string type = d.type();
  if (type == "s32") return decode_set_predicate<int32_t>(d);
  if (type == "u32" || type == "b32") return decode_set_predicate<uint32_t>(d);
  if (type == "s64") return decode_set_predicate<int64_t>(d);
  if (type == "u64" || type == "b64") return decode_set_predicate<uint64_t>(d);
  if (type == "s16") return decode_set_predicate<int16_t>(d);
  if (type == "u16" || type == "b16") return decode_set_predicate<uint16_t>(d);
  return false;
}

constexpr InstructionClass kClass = InstructionClass::kInteger;

/// Instructions whose forms differ by the width and sign alone.
template <class T>
bool decode_typed(Decoder& d) {
  const std::string& op = d.opcode;
  using U = Unsigned<T>;
  if (op == "add") return lanes<add<U>>(d, kClass);
  if (op == "sub") return lanes<sub<U>>(d, kClass);
  if (op == "div") return lanes<divide<T>>(d, kClass);
  if (op == "rem") return lanes<remainder<T>>(d, kClass);
  if (op == "min") return lanes<min_of<T>>(d, kClass);
  if (op == "max") return lanes<max_of<T>>(d, kClass);
  if (op == "neg") return lanes<negate<U>>(d, kClass);
  if (op == "abs") return lanes<absolute<T>>(d, kClass);
  if (op == "sad") return lanes<sad<T>>(d, kClass);
  if (op == "and") return lanes<bit_and<U>>(d, kClass);
  if (op == "or") return lanes<bit_or<U>>(d, kClass);
  if (op == "xor") return lanes<bit_xor<U>>(d, kClass);
  if (op == "not") return lanes<bit_not<U>>(d, kClass);
  if (op == "cnot") return lanes<logical_not<U>>(d, kClass);
  if (op == "shl") return lanes<shift_left<U>>(d, kClass);
  if (op == "shr") return lanes<shift_right<T>>(d, kClass);
  if (op == "mul" && d.take("hi")) return lanes<mul_hi<T>>(d, kClass);
  if (op == "mad" && d.take("hi")) return lanes<mad_hi<T>>(d, kClass);
  if (op == "mul" && d.take("lo")) return lanes<mul_lo<U>>(d, kClass);
  if (op == "mad" && d.take("lo")) return lanes<mad_lo<U>>(d, kClass);
  if constexpr (sizeof(T) < 8) {
    if (op == "mul" && d.take("wide")) return lanes<mul_wide<T>>(d, kClass);
    if (op == "mad" && d.take("wide")) return lanes<mad_wide<T>>(d, kClass);
  }
  if constexpr (sizeof(T) >= 4) {
    if (op == "popc") return lanes<population_count<U>>(d, kClass);
    if (op == "clz") return lanes<leading_zeros<U>>(d, kClass);
    if (op == "brev") return lanes<reverse_bits<U>>(d, kClass);
    if (op == "bfind") return d.take("shiftamt") ? lanes<find_bit<T, true>>(d, kClass) : lanes<find_bit<T, false>>(d, kClass);
    if (op == "bfe") return lanes<extract_bits<T>>(d, kClass);
    if (op == "bfi") return lanes<insert_bits<U>>(d, kClass);
  }
  if constexpr (sizeof(T) == 4) {
    constexpr bool kSigned = std::is_signed_v<T>;
    if (op == "mul24") {
      d.take("lo");
      return lanes<mul24<kSigned>>(d, kClass);
    }
    if (op == "bmsk") {
      d.take("clamp");
      return lanes<bit_mask>(d, kClass);
    }
    if (op == "lop3") return lanes<logic3>(d, kClass);
    if (op == "prmt") {
      if (d.take("f4e")) return lanes<permute_mode<PermuteMode::kForward4>>(d, kClass);
      if (d.take("b4e")) return lanes<permute_mode<PermuteMode::kBackward4>>(d, kClass);
      if (d.take("rc8")) return lanes<permute_mode<PermuteMode::kReplicate8>>(d, kClass);
      if (d.take("ecl")) return lanes<permute_mode<PermuteMode::kEdgeLeft>>(d, kClass);
      if (d.take("ecr")) return lanes<permute_mode<PermuteMode::kEdgeRight>>(d, kClass);
      if (d.take("rc16")) return lanes<permute_mode<PermuteMode::kReplicate16>>(d, kClass);
      return lanes<permute>(d, kClass);
    }
    if (op == "shf") {
      bool wrap = d.take("wrap");
      if (!wrap) d.take("clamp");
      if (d.take("l")) return wrap ? lanes<funnel_shift<true, true>>(d, kClass) : lanes<funnel_shift<true, false>>(d, kClass);
      d.take("r");
      return wrap ? lanes<funnel_shift<false, true>>(d, kClass) : lanes<funnel_shift<false, false>>(d, kClass);
    }
  }
  return false;
}

bool decode_dot(Decoder& d) {
  bool high = d.take("hi");
  if (d.opcode == "dp2a" && !high) d.take("lo");
  bool a = d.modifier(d.modifiers.size() - 2)[0] == 's', b = d.type()[0] == 's';
  if (d.opcode == "dp4a") {
    if (a && b) return lanes<dot4<int8_t, int8_t>>(d, kClass);
    if (a) return lanes<dot4<int8_t, uint8_t>>(d, kClass);
    return b ? lanes<dot4<uint8_t, int8_t>>(d, kClass) : lanes<dot4<uint8_t, uint8_t>>(d, kClass);
  }
  if (a && b) return high ? lanes<dot2<int16_t, int8_t, true>>(d, kClass) : lanes<dot2<int16_t, int8_t, false>>(d, kClass);
  if (a) return high ? lanes<dot2<int16_t, uint8_t, true>>(d, kClass) : lanes<dot2<int16_t, uint8_t, false>>(d, kClass);
  if (b) return high ? lanes<dot2<uint16_t, int8_t, true>>(d, kClass) : lanes<dot2<uint16_t, int8_t, false>>(d, kClass);
  return high ? lanes<dot2<uint16_t, uint8_t, true>>(d, kClass) : lanes<dot2<uint16_t, uint8_t, false>>(d, kClass);
}

}  // namespace

bool decode_integer(Decoder& d) {
  if (d.opcode == "mov") return decode_move(d);
  if (d.opcode == "selp") return decode_select(d);
  if (d.opcode == "slct") return decode_select_sign(d);
  if (d.opcode == "setp") return decode_compare(d);
  if (d.opcode == "dp4a" || d.opcode == "dp2a") return decode_dot(d);
  if (d.modifiers.empty()) return false;
  std::string type = d.type();
  if (type == "pred")
    return (d.opcode == "and" || d.opcode == "or" || d.opcode == "xor" || d.opcode == "not") && decode_predicate_logic(d);
  if (type == "s32") return decode_typed<int32_t>(d);
  if (type == "u32" || type == "b32") return decode_typed<uint32_t>(d);
  if (type == "s64") return decode_typed<int64_t>(d);
  if (type == "u64" || type == "b64") return decode_typed<uint64_t>(d);
  if (type == "s16") return decode_typed<int16_t>(d);
  if (type == "u16" || type == "b16") return decode_typed<uint16_t>(d);
  return false;
}

}  // namespace bireal::ptx
