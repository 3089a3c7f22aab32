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
class HostRounding {
 public:
  explicit HostRounding(Rounding r) : before_(_mm_getcsr()) {
    const unsigned bits = r == Rounding::kZero ? _MM_ROUND_TOWARD_ZERO : r == Rounding::kDown ? _MM_ROUND_DOWN : _MM_ROUND_UP;
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

template <Arithmetic A, class T>
T rounded(Rounding r, T a, T b, T c) {
  if (r == Rounding::kNearest) return canonical(evaluate<A, T>(a, b, c));
  volatile T va = a, vb = b, vc = c, result;
  {
    HostRounding scope(r);
    result = evaluate<A, T>(va, vb, vc);
  }
  return canonical(T(result));
}
inline float flush(float v) { return std::fabs(v) < std::numeric_limits<float>::min() ? std::copysign(0.0f, v) : v; }
inline double flush(double v) { return v; }
template <class T>
inline T saturate(T v) {
  return v >= 0 ? (v <= 1 ? v : T(1)) : T(0);
}  // NaN gives 0

// As it mostly stands, rounded to nearest without a modifier: a loop for each operation.
template <Arithmetic A, class T>
T unary(T a) {
  return canonical(evaluate<A, T>(a, 0, 0));
}
template <Arithmetic A, class T>
T binary(T a, T b) {
  return canonical(evaluate<A, T>(a, b, 0));
}
template <Arithmetic A, class T>
T ternary(T a, T b, T c) {
  return canonical(evaluate<A, T>(a, b, c));
}

// The other forms: rounding in the instruction's mode, and in its flags whether it clamps to [0, 1] (.sat) and whether denormals
// count as zero, in and out (.ftz).
constexpr uint8_t kFtz = 1, kSat = 2;
template <Arithmetic A, class T>
T modified(const Instruction& in, T a, T b, T c) {
  if (in.flags & kFtz) a = flush(a), b = flush(b), c = flush(c);
  T r = rounded<A>(Rounding(in.mode), a, b, c);
  if (in.flags & kFtz) r = flush(r);
  return in.flags & kSat ? saturate(r) : r;
}
template <Arithmetic A, class T>
T modified_unary(const Instruction& in, T a) {
  return modified<A, T>(in, a, 0, 0);
}
template <Arithmetic A, class T>
T modified_binary(const Instruction& in, T a, T b) {
  return modified<A, T>(in, a, b, 0);
}
template <class T>
T reciprocal(const Instruction& in, T a) {
  return modified<Arithmetic::kDiv, T>(in, T(1), a, T(0));
}

Rounding rounding_of(Decoder& d) {
  std::string r = d.rounding();
  return r == "rz" ? Rounding::kZero : r == "rm" ? Rounding::kDown : r == "rp" ? Rounding::kUp : Rounding::kNearest;
}

template <Arithmetic A, class T>
bool arithmetic(Decoder& d) {
  d.in.mode = uint8_t(rounding_of(d));
  if (sizeof(T) == 4) d.in.flags = uint8_t((d.take("ftz") ? kFtz : 0) | (d.take("sat") ? kSat : 0));
  const bool plain = Rounding(d.in.mode) == Rounding::kNearest && d.in.flags == 0;
  if constexpr (A == Arithmetic::kSqrt)
    return plain ? lanes<unary<A, T>>(d, kSpecial) : lanes<modified_unary<A, T>>(d, kSpecial);
  else if constexpr (A == Arithmetic::kFma)
    return plain ? lanes<ternary<A, T>>(d, kFloat) : lanes<modified<A, T>>(d, kFloat);
  else
    return plain ? lanes<binary<A, T>>(d, A == Arithmetic::kDiv ? kSpecial : kFloat)
                 : lanes<modified_binary<A, T>>(d, A == Arithmetic::kDiv ? kSpecial : kFloat);
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

// .approx: computed in double, rounded once.
template <double (*F)(double)>
float approximate(const Instruction& in, float a) {
  if (in.flags & kFtz) a = flush(a);
  float r = canonical(float(F(double(a))));
  return in.flags & kFtz ? flush(r) : r;
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
  if (d.take("ftz")) d.in.flags = kFtz;  // of no matter to f64
  if (d.type() == "f32") return lanes<approximate<F>>(d, kSpecial);
  if (d.type() == "f64") return lanes<approximate_wide<F>>(d, kSpecial);
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
    d.in.mode = uint8_t(rounding_of(d));
    return lanes<reciprocal<T>>(d, kSpecial);
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
