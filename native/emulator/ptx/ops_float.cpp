// f32 and f64 arithmetic, comparisons and special functions.
#include <immintrin.h>

#include <cmath>
#include <limits>

#include "emulator/ptx/compare.h"
#include "emulator/ptx/half.h"
#include "emulator/ptx/lanes.h"

namespace bireal::ptx {

namespace {

constexpr InstructionClass kFloat = InstructionClass::kFloat, kSpecial = InstructionClass::kSpecial;

/// The NaN that a GPU's f32 instructions write, whatever came in; f64 passes the payload on.
inline float canonical(float r) { return r != r ? bits_float(0x7fffffffu) : r; }
inline double canonical(double r) { return r; }

/// Keeps the rounding mode of the host for one expression. The operands pass through volatile, so nothing moves out of the scope.
template <Rounding R>
class HostRounding {
 public:
  HostRounding() : before_(_mm_getcsr()) {
    constexpr unsigned bits = R == Rounding::kZero ? _MM_ROUND_TOWARD_ZERO : R == Rounding::kDown ? _MM_ROUND_DOWN : _MM_ROUND_UP;
    _mm_setcsr((before_ & ~unsigned(_MM_ROUND_MASK)) | bits);
  }
  ~HostRounding() { _mm_setcsr(before_); }

 private:
  unsigned before_;
};

enum class Arithmetic { kAdd, kSub, kMul, kDiv, kFma, kSqrt };

template <Arithmetic A, class T>
inline T evaluate(T a, T b, T c) {
  if constexpr (A == Arithmetic::kAdd)
    return a + b;
  else if constexpr (A == Arithmetic::kSub)
    return a - b;
  else if constexpr (A == Arithmetic::kMul)
    return a * b;
  else if constexpr (A == Arithmetic::kDiv)
    return a / b;
  else if constexpr (A == Arithmetic::kFma)
    return std::fma(a, b, c);
  else
    return std::sqrt(a);
}

template <Arithmetic A, Rounding R, class T>
inline T rounded(T a, T b, T c) {
  if constexpr (R == Rounding::kNearest) {
    return canonical(evaluate<A, T>(a, b, c));
  } else {
    volatile T va = a, vb = b, vc = c, result;
    {
      HostRounding<R> scope;
      result = evaluate<A, T>(va, vb, vc);
    }
    return canonical(T(result));
  }
}
inline float flush(float v) { return std::fabs(v) < std::numeric_limits<float>::min() ? std::copysign(0.0f, v) : v; }
inline double flush(double v) { return v; }
template <class T>
inline T saturate(T v) {
  return v >= 0 ? (v <= 1 ? v : T(1)) : T(0);
}  // NaN gives 0

/// Sat: clamp to [0, 1]. Ftz: denormals count as zero, in and out.
template <Arithmetic A, Rounding R, bool Ftz, bool Sat, class T>
inline T apply(T a, T b, T c) {
  if (Ftz) a = flush(a), b = flush(b), c = flush(c);
  T r = rounded<A, R>(a, b, c);
  if (Ftz) r = flush(r);
  return Sat ? saturate(r) : r;
}
template <Arithmetic A, Rounding R, bool Ftz, bool Sat, class T>
T unary(T a) {
  return apply<A, R, Ftz, Sat, T>(a, 0, 0);
}
template <Arithmetic A, Rounding R, bool Ftz, bool Sat, class T>
T binary(T a, T b) {
  return apply<A, R, Ftz, Sat, T>(a, b, 0);
}
template <Arithmetic A, Rounding R, bool Ftz, bool Sat, class T>
T ternary(T a, T b, T c) {
  return apply<A, R, Ftz, Sat, T>(a, b, c);
}
template <Rounding R, class T>
T reciprocal(T a) {
  return rounded<Arithmetic::kDiv, R, T>(T(1), a, T(0));
}

template <Arithmetic A, Rounding R, bool Ftz, bool Sat, class T>
bool install(Decoder& d) {
  if constexpr (A == Arithmetic::kSqrt)
    return lanes<unary<A, R, Ftz, Sat, T>>(d, kSpecial);
  else if constexpr (A == Arithmetic::kFma)
    return lanes<ternary<A, R, Ftz, Sat, T>>(d, kFloat);
  else
    return lanes<binary<A, R, Ftz, Sat, T>>(d, A == Arithmetic::kDiv ? kSpecial : kFloat);
}
template <Arithmetic A, Rounding R, class T>
bool with_modifiers(Decoder& d) {
  if constexpr (sizeof(T) == 8) return install<A, R, false, false, T>(d);
  bool ftz = d.take("ftz"), sat = d.take("sat");
  if (ftz) return sat ? install<A, R, true, true, T>(d) : install<A, R, true, false, T>(d);
  return sat ? install<A, R, false, true, T>(d) : install<A, R, false, false, T>(d);
}
template <Arithmetic A, class T>
bool arithmetic(Decoder& d) {
  std::string r = d.rounding();
  if (r == "rz") return with_modifiers<A, Rounding::kZero, T>(d);
  if (r == "rm") return with_modifiers<A, Rounding::kDown, T>(d);
  if (r == "rp") return with_modifiers<A, Rounding::kUp, T>(d);
  return with_modifiers<A, Rounding::kNearest, T>(d);
}

// min and max: -0 < +0; a NaN loses against a number, or wins with .NaN.
template <bool Max, bool PropagateNan, class T>
T extreme(T a, T b) {
  if (a != a || b != b) {
    if (PropagateNan || (a != a && b != b)) return canonical(std::numeric_limits<T>::quiet_NaN());
    return a != a ? b : a;
  }
  if (a == b) return std::signbit(a) != Max ? a : b;
  return (a < b) != Max ? a : b;
}
template <class T>
T negate(T a) {
  return -a;
}
template <class T>
T absolute(T a) {
  return std::fabs(a);
}
template <class T>
T copy_sign(T sign, T value) {
  return std::copysign(value, sign);
}

/// test p, a: one bit a lane.
enum Property : uint8_t { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };
template <class T>
void test_property(Warp& warp, const Instruction& in, uint32_t mask) {
  const Slot<T>* a = warp.in<T>(in.args[1]);
  uint32_t result = 0;
  for_lanes(mask, [&](int lane) {
    T v = from_slot<T>(a[lane]);
    int c = std::fpclassify(v);
    bool r = false;
    switch (Property(in.mode)) {
      case kFinite: r = c != FP_NAN && c != FP_INFINITE; break;
      case kInfinite: r = c == FP_INFINITE; break;
      case kNumber: r = c != FP_NAN; break;
      case kNotANumber: r = c == FP_NAN; break;
      case kNormal: r = c == FP_NORMAL; break;
      case kSubnormal: r = c == FP_SUBNORMAL; break;
    }
    result |= uint32_t(r) << lane;
  });
  warp.set_predicate(in.args[0], mask, result);
}

// .approx: computed in double, rounded once. Ftz as above.
using Function = double (*)(double);
template <double (*F)(double), bool Ftz>
float approximate(float a) {
  if (Ftz) a = flush(a);
  float r = canonical(float(F(double(a))));
  return Ftz ? flush(r) : r;
}
double rcp_of(double a) { return 1.0 / a; }
double rsqrt_of(double a) { return 1.0 / std::sqrt(a); }
double sqrt_of(double a) { return std::sqrt(a); }
double ex2_of(double a) { return std::exp2(a); }
double lg2_of(double a) { return std::log2(a); }
double sin_of(double a) { return std::sin(a); }
double cos_of(double a) { return std::cos(a); }
double tanh_of(double a) { return std::tanh(a); }
template <double (*F)(double)>
double approximate_wide(double a) {
  return F(a);
}

template <double (*F)(double)>
bool special(Decoder& d) {
  if (!d.take("approx")) d.fail("only the .approx form is supported");
  if (d.type() == "f32")
    return d.take("ftz") ? lanes<approximate<F, true>>(d, kSpecial) : lanes<approximate<F, false>>(d, kSpecial);
  if (d.type() == "f64") {
    d.take("ftz");
    return lanes<approximate_wide<F>>(d, kSpecial);
  }
  d.fail("type not supported");
}

template <bool Max, class T>
bool decode_extreme(Decoder& d) {
  if constexpr (sizeof(T) == 4) d.take("ftz");  // min and max of denormals: the flushed value differs by less than 1.2e-38
  return d.take("NaN") ? lanes<extreme<Max, true, T>>(d, kFloat) : lanes<extreme<Max, false, T>>(d, kFloat);
}

bool has(const Decoder& d, const char* modifier) {
  for (const std::string& m : d.modifiers)
    if (m == modifier) return true;
  return false;
}

template <class T>
bool decode_of(Decoder& d) {
  const std::string& op = d.opcode;
  if (op == "add") return arithmetic<Arithmetic::kAdd, T>(d);
  if (op == "sub") return arithmetic<Arithmetic::kSub, T>(d);
  if (op == "mul") return arithmetic<Arithmetic::kMul, T>(d);
  if (op == "fma" || op == "mad") return arithmetic<Arithmetic::kFma, T>(d);
  if (op == "div") {
    d.take("full");  // div.full and div.approx: within 2 ulp on a GPU, correctly rounded here
    d.take("approx");
    return arithmetic<Arithmetic::kDiv, T>(d);
  }
  if (op == "sqrt") return has(d, "approx") ? special<sqrt_of>(d) : arithmetic<Arithmetic::kSqrt, T>(d);
  if (op == "rcp") {
    if (has(d, "approx")) return special<rcp_of>(d);
    if (sizeof(T) == 4 && d.take("ftz")) d.fail("rcp.ftz with a rounding is not supported");
    std::string r = d.rounding();
    if (r == "rz") return lanes<reciprocal<Rounding::kZero, T>>(d, kSpecial);
    if (r == "rm") return lanes<reciprocal<Rounding::kDown, T>>(d, kSpecial);
    if (r == "rp") return lanes<reciprocal<Rounding::kUp, T>>(d, kSpecial);
    return lanes<reciprocal<Rounding::kNearest, T>>(d, kSpecial);
  }
  if (op == "min") return decode_extreme<false, T>(d);
  if (op == "max") return decode_extreme<true, T>(d);
  if (op == "neg" || op == "abs") {
    if (d.take("ftz")) d.fail(op + ".ftz is not supported");
    return op == "neg" ? lanes<negate<T>>(d, kFloat) : lanes<absolute<T>>(d, kFloat);
  }
  if (op == "copysign") return lanes<copy_sign<T>>(d, kFloat);
  if (op == "rsqrt") return special<rsqrt_of>(d);
  if (op == "ex2") return special<ex2_of>(d);
  if (op == "lg2") return special<lg2_of>(d);
  if (op == "sin") return special<sin_of>(d);
  if (op == "cos") return special<cos_of>(d);
  if (op == "tanh") return special<tanh_of>(d);
  if (op == "setp") {
    if (d.take("ftz")) d.fail("setp.ftz is not supported");
    return decode_set_predicate<T>(d);
  }
  if (op == "testp") {
    static const char* const names[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
    d.in.category = kFloat;
    for (uint8_t i = 0; i < 6; ++i)
      if (d.take(names[i])) {
        d.in.mode = i;
        d.in.args[0] = d.predicate_dest(d.operands[0]);
        d.in.args[1] = d.source(d.operands[1], sizeof(T));
        d.in.run = test_property<T>;
        return true;
      }
  }
  return false;
}

}  // namespace

bool decode_float(Decoder& d) {
  if (d.modifiers.empty()) return false;
  const std::string& last = d.modifiers.back();
  if (last == "f32" && d.opcode != "mov" && d.opcode != "selp" && d.opcode != "slct") return d.type(), decode_of<float>(d);
  if (last == "f64" && d.opcode != "mov" && d.opcode != "selp") return d.type(), decode_of<double>(d);
  return false;
}

}  // namespace bireal::ptx
