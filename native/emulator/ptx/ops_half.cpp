// Arithmetic and comparisons of f16, bf16 and pairs of them.
#include <cmath>

#include "emulator/ptx/compare.h"
#include "emulator/ptx/half.h"
#include "emulator/ptx/lanes.h"

namespace bireal::ptx {

// what setp compares
inline float comparable(Half h) { return to_float(h); }
inline float comparable(Bfloat b) { return to_float(b); }

namespace {

constexpr InstructionClass kFloat = InstructionClass::kFloat;

/// After the operation: as it is, clamped to [0, 1] (NaN gives 0), or negative and NaN to 0 (.relu keeps NaN).
enum class After { kNothing, kSaturate, kRelu };
template <After A, class H>
H after(H h) {
  float f = to_float(h);
  if (A == After::kSaturate) return f >= 0 ? (f <= 1 ? (f == 0 ? H{0} : h) : narrow<H>(1.0f)) : H{0};
  if (A == After::kRelu) return f < 0 || (f == 0 && std::signbit(f)) ? H{0} : h;
  return h;
}
template <After A, class H>
H add_(H a, H b) {
  return after<A>(add(a, b));
}
template <After A, class H>
H sub_(H a, H b) {
  return after<A>(subtract(a, b));
}
template <After A, class H>
H mul_(H a, H b) {
  return after<A>(multiply(a, b));
}
template <After A, class H>
H fma_(H a, H b, H c) {
  return after<A>(fused(a, b, c));
}
template <class H>
H neg_(H a) {
  return {uint16_t(a.bits ^ 0x8000)};
}
template <class H>
H abs_(H a) {
  return {uint16_t(a.bits & 0x7fff)};
}
template <bool Max, bool PropagateNan, class H>
H extreme(H x, H y) {
  float a = to_float(x), b = to_float(y);
  if (a != a || b != b) {
    if (PropagateNan || (a != a && b != b)) return {0x7fff};
    return a != a ? y : x;
  }
  if (a == b) return std::signbit(a) != Max ? x : y;
  return (a < b) != Max ? x : y;
}
template <double (*F)(double), class H>
H function(H a) {
  return narrow<H>(F(double(to_float(a))));
}
double ex2_of(double a) { return std::exp2(a); }
double tanh_of(double a) { return std::tanh(a); }

template <class H>
struct PairOf;
template <>
struct PairOf<Half> {
  using type = Half2;
};
template <>
struct PairOf<Bfloat> {
  using type = Bfloat2;
};
template <class H>
using Pair = typename PairOf<H>::type;

/// The same on both halves of a 32-bit register.
template <auto F, class H>
Pair<H> both1(Pair<H> a) {
  return {F(a.low), F(a.high)};
}
template <auto F, class H>
Pair<H> both2(Pair<H> a, Pair<H> b) {
  return {F(a.low, b.low), F(a.high, b.high)};
}
template <auto F, class H>
Pair<H> both3(Pair<H> a, Pair<H> b, Pair<H> c) {
  return {F(a.low, b.low, c.low), F(a.high, b.high, c.high)};
}

template <class H, H (*F)(H)>
bool one(Decoder& d, bool pair) {
  return pair ? lanes<both1<F, H>>(d, kFloat) : lanes<F>(d, kFloat);
}
template <class H, H (*F)(H, H)>
bool two(Decoder& d, bool pair) {
  return pair ? lanes<both2<F, H>>(d, kFloat) : lanes<F>(d, kFloat);
}
template <class H, H (*F)(H, H, H)>
bool three(Decoder& d, bool pair) {
  return pair ? lanes<both3<F, H>>(d, kFloat) : lanes<F>(d, kFloat);
}

template <class H>
bool decode_of(Decoder& d, bool pair) {
  const std::string& op = d.opcode;
  d.take("rn");  // the only rounding there is
  bool sat = d.take("sat"), relu = d.take("relu");
  if (op == "add") return sat ? two<H, add_<After::kSaturate, H>>(d, pair) : two<H, add_<After::kNothing, H>>(d, pair);
  if (op == "sub") return sat ? two<H, sub_<After::kSaturate, H>>(d, pair) : two<H, sub_<After::kNothing, H>>(d, pair);
  if (op == "mul") return sat ? two<H, mul_<After::kSaturate, H>>(d, pair) : two<H, mul_<After::kNothing, H>>(d, pair);
  if (op == "fma") {
    if (relu) return three<H, fma_<After::kRelu, H>>(d, pair);
    return sat ? three<H, fma_<After::kSaturate, H>>(d, pair) : three<H, fma_<After::kNothing, H>>(d, pair);
  }
  if (op == "neg") return one<H, neg_<H>>(d, pair);
  if (op == "abs") return one<H, abs_<H>>(d, pair);
  if (op == "min") return d.take("NaN") ? two<H, extreme<false, true, H>>(d, pair) : two<H, extreme<false, false, H>>(d, pair);
  if (op == "max") return d.take("NaN") ? two<H, extreme<true, true, H>>(d, pair) : two<H, extreme<true, false, H>>(d, pair);
  if (op == "ex2" && d.take("approx")) return d.take("ftz"), one<H, function<ex2_of, H>>(d, pair);
  if (op == "tanh" && d.take("approx")) return one<H, function<tanh_of, H>>(d, pair);
  if (op == "setp" && !pair) return decode_set_predicate<H>(d);
  return false;
}

}  // namespace

bool decode_half(Decoder& d) {
  if (d.modifiers.empty()) return false;
  const std::string last = d.modifiers.back();
  if (last != "f16" && last != "bf16" && last != "f16x2" && last != "bf16x2") return false;
  if (d.opcode == "mov" || d.opcode == "selp" || d.opcode == "mma") return false;
  d.type();
  bool pair = last.size() > 4 || last == "f16x2";
  return last[0] == 'f' ? decode_of<Half>(d, pair) : decode_of<Bfloat>(d, pair);
}

}  // namespace bireal::ptx
