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
enum class After : uint8_t { kNothing, kSaturate, kRelu };
template <class H>
H after(const Instruction& in, H h) {
  float f = to_float(h);
  if (After(in.mode) == After::kSaturate) return f >= 0 ? (f <= 1 ? (f == 0 ? H{0} : h) : narrow<H>(1.0f)) : H{0};
  if (After(in.mode) == After::kRelu) return f < 0 || (f == 0 && std::signbit(f)) ? H{0} : h;
  return h;
}

// Called, not inlined: kernels rarely have them, and a loop for each as a pair and alone, all of them inlined, takes long to
// compile.
template <class H>
[[gnu::noinline]] H add_(const Instruction& in, H a, H b) {
  return after(in, add(a, b));
}
template <class H>
[[gnu::noinline]] H sub_(const Instruction& in, H a, H b) {
  return after(in, subtract(a, b));
}
template <class H>
[[gnu::noinline]] H mul_(const Instruction& in, H a, H b) {
  return after(in, multiply(a, b));
}
template <class H>
[[gnu::noinline]] H fma_(const Instruction& in, H a, H b, H c) {
  return after(in, fused(a, b, c));
}
template <class H>
[[gnu::noinline]] H neg_(const Instruction&, H a) {
  return {uint16_t(a.bits ^ 0x8000)};
}
template <class H>
[[gnu::noinline]] H abs_(const Instruction&, H a) {
  return {uint16_t(a.bits & 0x7fff)};
}
template <bool Max, bool PropagateNan, class H>
[[gnu::noinline]] H extreme(const Instruction&, H x, H y) {
  float a = to_float(x), b = to_float(y);
  if (a != a || b != b) {
    if (PropagateNan || (a != a && b != b)) return {0x7fff};
    return a != a ? y : x;
  }
  if (a == b) return std::signbit(a) != Max ? x : y;
  return (a < b) != Max ? x : y;
}
template <double (*F)(double), class H>
[[gnu::noinline]] H function(const Instruction&, H a) {
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
template <class H, H (*F)(const Instruction&, H)>
Pair<H> both1(const Instruction& in, Pair<H> a) {
  return {F(in, a.low), F(in, a.high)};
}
template <class H, H (*F)(const Instruction&, H, H)>
Pair<H> both2(const Instruction& in, Pair<H> a, Pair<H> b) {
  return {F(in, a.low, b.low), F(in, a.high, b.high)};
}
template <class H, H (*F)(const Instruction&, H, H, H)>
Pair<H> both3(const Instruction& in, Pair<H> a, Pair<H> b, Pair<H> c) {
  return {F(in, a.low, b.low, c.low), F(in, a.high, b.high, c.high)};
}

template <class H, H (*F)(const Instruction&, H)>
bool one(Decoder& d, bool pair) {
  return pair ? lanes<both1<H, F>>(d, kFloat) : lanes<F>(d, kFloat);
}
template <class H, H (*F)(const Instruction&, H, H)>
bool two(Decoder& d, bool pair) {
  return pair ? lanes<both2<H, F>>(d, kFloat) : lanes<F>(d, kFloat);
}
template <class H, H (*F)(const Instruction&, H, H, H)>
bool three(Decoder& d, bool pair) {
  return pair ? lanes<both3<H, F>>(d, kFloat) : lanes<F>(d, kFloat);
}

template <class H>
bool decode_of(Decoder& d, bool pair) {
  const std::string& op = d.opcode;
  d.take("rn");  // the only rounding there is
  const bool arithmetic = op == "add" || op == "sub" || op == "mul" || op == "fma";
  if (arithmetic && d.take("sat")) d.in.mode = uint8_t(After::kSaturate);
  if (op == "fma" && d.take("relu")) d.in.mode = uint8_t(After::kRelu);
  if (op == "add") return two<H, add_<H>>(d, pair);
  if (op == "sub") return two<H, sub_<H>>(d, pair);
  if (op == "mul") return two<H, mul_<H>>(d, pair);
  if (op == "fma") return three<H, fma_<H>>(d, pair);
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
