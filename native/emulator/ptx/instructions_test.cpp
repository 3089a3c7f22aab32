// Each family of instructions (testdata/instructions.cu) against the same expression on the host: integers, bits and correctly
// rounded floats exactly; functions made of .approx instructions within the bound that CUDA's manual gives for them.
#include <cfenv>
#include <climits>
#include <cmath>

#include "core/rng.h"
#include "emulator/ptx/half.h"
#include "emulator/ptx/ptx_testing.h"

namespace bireal::ptx::testing {
namespace {

Counters run(const std::string& name, Memory& memory, uint32_t blocks, uint32_t threads, const std::vector<uint8_t>& bytes,
             bool reverse = false) {
  Options options = memory.options();
  options.reverse = reverse;
  const Module& module = module_of("instructions");
  return launch(module, module.kernel(name), {blocks, 1, 1}, {threads, 1, 1}, 0, bytes, options);
}
const Kernel& kernel(const char* name) { return module_of("instructions").kernel(name); }

std::vector<int> nasty_ints(int count, uint64_t seed) {
  const int special[] = {0, 1, -1, INT_MAX, INT_MIN, 31, 32, 33, 0x55555555, -2, 7, 100};
  std::vector<int> v;
  for (int i = 0; i < count; ++i) {
    uint64_t r = splitmix64(seed, uint64_t(i));
    v.push_back(r % 3 == 0 ? special[r / 3 % 12] : r % 3 == 1 ? int(r >> 20) : int(r >> 20) % 64);
  }
  return v;
}
std::vector<float> nasty_floats(int count, uint64_t seed) {
  const float special[] = {0.0f,  -0.0f,   1.0f,  -1.0f,    1e-42f,   -1e-42f,   0.5f, 65504.0f, 65520.0f, 1e6f,
                           -1e6f, 3.4e38f, 6e-8f, 5.96e-8f, INFINITY, -INFINITY, NAN,  2.5f,     -2.5f,    1.00048828125f};
  std::vector<float> v;
  for (int i = 0; i < count; ++i) {
    uint64_t r = splitmix64(seed, uint64_t(i));
    v.push_back(r % 3 == 0 ? special[r / 3 % 20] : float(2 * uniform01(seed, uint64_t(i)) - 1) * (r % 3 == 1 ? 4.0f : 200.0f));
  }
  return v;
}

uint32_t bits_of(float f) { return float_bits(f); }
/// All NaNs are one.
template <class T>
void expect_same(T got, T expected, const std::string& what) {
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(got)) << what << ": got " << got;
  } else {
    EXPECT_TRUE(got == expected && std::signbit(got) == std::signbit(expected))
        << what << ": got " << got << ", expected " << expected;
  }
}

int clamp_to(double v, int low, int high) { return v != v ? 0 : v < low ? low : v > high ? high : int(v); }

TEST(PtxInstructions, Integers) {
  const int n = 300;
  auto a = nasty_ints(n, 1), b = nasty_ints(n, 2);
  Memory memory;
  long long* out = memory.get<long long>(size_t(n) * 32);
  run("integer_kernel", memory, 3, 128, parameters(kernel("integer_kernel"), memory.put(a), memory.put(b), out, n));
  for (int i = 0; i < n; ++i) {
    int x = a[size_t(i)], y = b[size_t(i)];
    unsigned ux = unsigned(x), uy = unsigned(y);
    using u64 = unsigned long long;
    u64 ulx = u64((long long)x) * 3037000493ull + u64((long long)y), uly = (u64((long long)y) << 17) ^ u64((long long)x);
    long long lx = (long long)ulx, ly = (long long)uly;
    auto popc = [](u64 v) { return __builtin_popcountll(v); };
    auto clz32 = [](unsigned v) { return v ? __builtin_clz(v) : 32; };
    auto clz64 = [](u64 v) { return v ? __builtin_clzll(v) : 64; };
    auto reverse = [](u64 v, int width) {
      u64 r = 0;
      for (int k = 0; k < width; ++k) r |= (v >> k & 1) << (width - 1 - k);
      return r;
    };
    auto byte = [](unsigned v, int k) { return int(v >> (8 * k) & 255); };
    auto sbyte = [&](int v, int k) { return int(int8_t(byte(unsigned(v), k))); };
    unsigned perm = 0;
    for (int k = 0; k < 4; ++k) perm |= unsigned((((u64(uy) << 32 | ux) >> (8 * ((ux ^ uy) >> (4 * k) & 7))) & 255) << (8 * k));
    unsigned rc = std::min(ux & 63, 32u);
    long long dot = 5 + 3, udot = 5;
    for (int k = 0; k < 4; ++k) dot += sbyte(x, k) * sbyte(y, k), udot += byte(ux, k) * byte(uy, k);
    for (int k = 0; k < 2; ++k) dot += int(int16_t(x >> (16 * k))) * sbyte(y, k);
    unsigned sad = 4 + (x < y ? unsigned(y) - unsigned(x) : unsigned(x) - unsigned(y));
    int position = y & 31, length = int(ux & 15);
    long long wide = (long long)x >> position;
    int field = length == 0 ? 0 : int((long long)(u64(wide) << (64 - length)) >> (64 - length));
    if (length && position + length > 32) field = x >> position;
    unsigned into = uy, put = ux & 31, width = uy & 15;
    for (unsigned k = 0; k < width && put + k < 32; ++k) into = (into & ~(1u << (put + k))) | ((ux >> k & 1) << (put + k));
    long long div = y ? (y == -1 ? int(0u - ux) : x / y) : 7, rem = y ? (y == -1 ? 0 : x % y) : 7;
    long long ldiv = ly ? (ly == -1 ? (long long)(0 - ulx) : lx / ly) : 9, lrem = ly ? (ly == -1 ? 0 : lx % ly) : 9;
    long long expected[32] = {int(ux + uy),
                              int(ux - uy),
                              int(ux * uy),
                              div,
                              rem,
                              uy ? ux / uy : 7,
                              uy ? ux % uy : 7,
                              std::min(x, y),
                              std::max(ux, uy),
                              int(((long long)x * y) >> 32),
                              unsigned((u64(ux) * uy) >> 32),
                              (long long)x * y,
                              (long long)(u64(ux) * uy),
                              popc(ux) + popc(ulx),
                              clz32(ux) + clz64(uly),
                              (long long)reverse(ux, 32),
                              (long long)reverse(ulx, 64),
                              __builtin_ffs(x) + __builtin_ffsll(ly),
                              perm,
                              unsigned(((u64(uy) << 32 | ux) << (uy & 31)) >> 32),
                              unsigned((u64(uy) << 32 | ux) >> rc),
                              (x >> (y & 31)) ^ int(ux >> (uy & 31)),
                              (long long)(ulx * uly),
                              ldiv,
                              lrem,
                              (long long)((__int128(lx) * ly) >> 64),
                              int(dot),
                              (long long)unsigned(unsigned(udot) + sad),
                              int((x & y) | ((~x & (y ^ 0x55)) ^ (x | y))),
                              int(int8_t(x)) + int(uint8_t(y)) + int(int16_t(x >> 3)),
                              int(unsigned(x < 0 ? 0u - ux : ux) + unsigned((x < y ? 10 : 20) + (ux < uy && x != 5 ? 100 : 200))),
                              (long long)(u64(unsigned(field)) << 32 | into)};
    for (int k = 0; k < 32; ++k) EXPECT_EQ(out[i * 32 + k], expected[k]) << "result " << k << " of " << x << ", " << y;
  }
}

template <class F>
auto rounded(int mode, F f) {
  std::fesetround(mode);
  volatile auto r = f();
  std::fesetround(FE_TONEAREST);
  return r;
}

// Registers share places: one that is read at the loop's begin alone keeps its value through the loop's end, and a write whose
// guard is false leaves the value that was there.
TEST(PtxInstructions, RegistersKeepTheirValuesThroughLoopsAndGuards) {
  const char* const text = R"(
.version 9.0
.target sm_80
.address_size 64
.visible .entry loop(.param .u64 loop_param_0)
{
  .reg .pred %p<3>;
  .reg .b32 %r<9>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [loop_param_0];
  cvta.to.global.u64 %rd2, %rd1;
  mov.u32 %r1, 7;
  mov.u32 %r2, 0;
  mov.u32 %r3, 0;
  mov.u32 %r7, 3;
$head:
  add.s32 %r2, %r2, %r1;
  setp.eq.u32 %p1, %r3, 100;
  @%p1 bra $end;
$end:
  add.s32 %r4, %r3, 1;
  mov.u32 %r5, 1000;
  @%p1 mov.u32 %r7, 4;
  mov.u32 %r3, %r4;
  setp.lt.u32 %p2, %r3, 5;
  @%p2 bra $head;
  add.s32 %r6, %r2, %r5;
  add.s32 %r8, %r6, %r7;
  st.global.u32 [%rd2], %r8;
  ret;
}
)";
  Memory memory;
  uint32_t* result = memory.get<uint32_t>(1);
  std::unique_ptr<Module> module = parse(text);
  const Kernel& kernel = module->kernel("loop");
  launch(*module, kernel, {}, {}, 0, parameters(kernel, result), memory.options());
  EXPECT_EQ(5u * 7 + 1000 + 3, *result);
}

TEST(PtxInstructions, Floats) {
  const int n = 400;
  auto a = nasty_floats(n, 3), b = nasty_floats(n, 4);
  Memory memory;
  float* out = memory.get<float>(size_t(n) * 32);
  run("float_kernel", memory, 4, 128, parameters(kernel("float_kernel"), memory.put(a), memory.put(b), out, n));
  for (int i = 0; i < n; ++i) {
    volatile float x = a[size_t(i)], y = b[size_t(i)];
    const float* o = out + i * 32;
    auto exact = [&](int k, float expected) {
      expect_same(o[k], expected, "result " + std::to_string(k) + " of " + std::to_string(x) + ", " + std::to_string(y));
    };
    exact(0, x + y);
    exact(1, x - y);
    exact(2, x * y);
    exact(3, x / y);
    exact(4, std::fma(float(x), float(y), 1.25f));
    exact(5, std::sqrt(float(x)));
    float low = std::isnan(x) ? y : std::isnan(y) ? x : x == y ? (std::signbit(x) ? x : y) : std::min(float(x), float(y));
    float high = std::isnan(x) ? y : std::isnan(y) ? x : x == y ? (std::signbit(x) ? y : x) : std::max(float(x), float(y));
    exact(6, low);
    exact(7, high);
    exact(8, std::fabs(float(x)));
    exact(9, -y);
    exact(10, rounded(FE_DOWNWARD, [&] { return x + y; }));
    exact(11, rounded(FE_UPWARD, [&] { return x + y; }));
    exact(12, rounded(FE_TOWARDZERO, [&] { return x * y; }));
    exact(14, rounded(FE_UPWARD, [&] { return x / y; }));
    exact(16, std::floor(float(x)) + std::ceil(float(y)));
    exact(17, std::nearbyint(float(x)) - std::trunc(float(y)));
    exact(20, x < y ? 1.0f : x > y ? 2.0f : x == y ? 3.0f : 4.0f);
    exact(21, std::isnan(x) ? 5.0f : std::isinf(y) ? 6.0f : 7.0f);
    exact(27, 1.0f / y);
    exact(28, x >= 0 ? (x <= 1 ? (x == 0 ? 0.0f : float(x)) : 1.0f) : 0.0f);
    exact(29, std::copysign(float(x), float(y)));
    if (!(std::fabs(x) < 1000 && std::fabs(y) < 1000)) continue;
    exact(18, float(int(x)) + float(y < 0 ? 0u : unsigned(y)));
    exact(19, float(std::nearbyint(float(x))) + float((long long)std::floor(float(y))));
    auto near = [&](int k, double expected, double relative) {
      EXPECT_LE(std::fabs(o[k] - expected), relative * std::fabs(expected) + 1e-6) << "result " << k << " of " << x << ", " << y;
    };
    near(22, std::exp(double(x * 0.01f)), 1e-6);
    near(23, std::log(std::fabs(double(x)) + 0.5), 1e-6);
    near(24, 1 / std::sqrt(std::fabs(double(y)) + 0.25), 1e-6);
    near(25, std::tanh(double(x * 0.1f)), 1e-6);
    near(26, std::sin(double(x * 0.01f)) + std::cos(double(y * 0.01f)), 1e-6);
    near(30, std::pow(std::fabs(double(x)) * 0.01 + 0.5, 1.7), 2e-6);
    near(31, std::exp(double(x * 0.01f)) + double(x) / 3, 2e-6);
  }
}

TEST(PtxInstructions, Doubles) {
  const int n = 200;
  auto fa = nasty_floats(n, 5), fb = nasty_floats(n, 6);
  std::vector<double> a, b;
  for (int i = 0; i < n; ++i) a.push_back(double(fa[size_t(i)]) * 1.1), b.push_back(double(fb[size_t(i)]) / 3);
  Memory memory;
  double* out = memory.get<double>(size_t(n) * 12);
  run("double_kernel", memory, 2, 128, parameters(kernel("double_kernel"), memory.put(a), memory.put(b), out, n));
  for (int i = 0; i < n; ++i) {
    volatile double x = a[size_t(i)], y = b[size_t(i)];
    const double* o = out + i * 12;
    auto exact = [&](int k, double expected) {
      expect_same(o[k], expected, "result " + std::to_string(k) + " of " + std::to_string(x) + ", " + std::to_string(y));
    };
    exact(0, x + y);
    exact(1, x * y);
    exact(2, x / y);
    exact(3, std::sqrt(double(x)));
    exact(4, std::fma(double(x), double(y), 0.3));
    exact(5, float(x));
    if (std::fabs(x) < 1e15) {
      volatile long long whole = (long long)x;  // volatile: GCC would make it trunc(), which keeps the sign of zero
      exact(6, double(whole));
    }
    exact(7, std::floor(double(x)) + std::nearbyint(double(y)));
    exact(9, 1.0 / y);
    if (std::isfinite(x)) {
      EXPECT_NEAR(o[10] * std::sqrt(std::fabs(x) + 1.0), 1.0, 1e-14);
    }
    exact(11, rounded(FE_TOWARDZERO, [&] { return x + y; }));
  }
}

// An independent rounding of a double to few bits: significand and exponent by frexp, so not the interpreter's own code.
uint32_t slow_round(double v, int significand, int min_exponent, double largest, int exponent_bits, int direction) {
  uint32_t sign = std::signbit(v) ? 1u << (significand - 1 + exponent_bits) : 0;
  if (std::isnan(v)) return 0x7fff;
  double m = std::fabs(v);
  int e;
  std::frexp(m, &e);
  int unit = std::max(e - significand, min_exponent - significand + 1);
  double scaled = std::ldexp(m, -unit), whole = std::floor(scaled), rest = scaled - whole;
  bool up = false;
  if (direction == 0) up = rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2) == 1);
  if (direction == 2) up = sign && rest > 0;
  if (direction == 3) up = !sign && rest > 0;
  if (std::isinf(v))
    m = INFINITY;
  else
    m = std::ldexp(whole + (up ? 1 : 0), unit);
  uint32_t infinity = ((1u << exponent_bits) - 1) << (significand - 1);
  if (m > largest) {
    bool to_infinity = std::isinf(v) || direction == 0 || (direction == 2 && sign) || (direction == 3 && !sign);
    return sign | (to_infinity ? infinity : infinity - 1);
  }
  if (m == 0) return sign;
  std::frexp(m, &e);
  int biased = e - 1 + (1 << (exponent_bits - 1)) - 1;
  if (biased <= 0) return sign | uint32_t(std::ldexp(m, -(min_exponent - significand + 1)));
  return sign | uint32_t(biased) << (significand - 1) |
         (uint32_t(std::ldexp(m, significand - e)) & ((1u << (significand - 1)) - 1));
}
uint32_t half_of(double v, int direction = 0) { return slow_round(v, 11, -14, 65504.0, 5, direction); }
uint32_t bfloat_of(double v, int direction = 0) { return slow_round(v, 8, -126, 3.3895313892515355e38, 8, direction); }
double value_of_half(uint32_t h) { return double(to_float(Half{uint16_t(h)})); }
double value_of_bfloat(uint32_t b) { return double(to_float(Bfloat{uint16_t(b)})); }

TEST(PtxInstructions, HalvesAndBfloats) {
  const int n = 600;
  auto a = nasty_floats(n, 7), b = nasty_floats(n, 8);
  Memory memory;
  unsigned* out = memory.get<unsigned>(size_t(n) * 20);
  run("half_kernel", memory, 5, 128, parameters(kernel("half_kernel"), memory.put(a), memory.put(b), out, n));
  for (int i = 0; i < n; ++i) {
    double x = a[size_t(i)], y = b[size_t(i)];
    const unsigned* o = out + i * 20;
    auto is_nan = [](unsigned v, bool bf) { return bf ? (v & 0x7fff) > 0x7f80 : (v & 0x7fff) > 0x7c00; };
    auto same = [&](int k, unsigned got, unsigned expected, bool bf) {
      if (is_nan(expected, bf)) {
        EXPECT_TRUE(is_nan(got, bf)) << "result " << k << " of " << x << ", " << y;
      } else {
        EXPECT_EQ(got, expected) << "result " << k << " of " << x << ", " << y;
      }
    };
    unsigned h = half_of(x), g = half_of(y), p = bfloat_of(x), q = bfloat_of(y);
    double dh = value_of_half(h), dg = value_of_half(g), dp = value_of_bfloat(p), dq = value_of_bfloat(q);
    for (int r = 0; r < 4; ++r) same(r, o[r], half_of(x, r), false);
    same(4, o[4], half_of(dh + dg), false);
    same(5, o[5], half_of(dh * dg), false);
    same(6, o[6], half_of(std::fma(dh, dg, dh)), false);
    same(7, o[7], half_of(dh - dg), false);
    EXPECT_EQ(o[8], unsigned((dh < dg) + 2 * (dh == dg) + 4 * (dh > dg)));
    same(9, o[9] & 0xffff, h, false);
    same(9, o[9] >> 16, g, false);
    same(10, o[10] & 0xffff, half_of(std::fma(dh, dg, dh)), false);
    same(10, o[10] >> 16, half_of(std::fma(dg, dg, dg)), false);
    same(11, o[11], p, true);
    same(12, o[12], bfloat_of(x, 1), true);
    same(13, o[13], bfloat_of(dp + dq), true);
    same(14, o[14], bfloat_of(dp * dq), true);
    same(15, o[15], bfloat_of(std::fma(dp, dq, dp)), true);
    same(16, o[16] & 0xffff, p, true);
    same(16, o[16] >> 16, q, true);
    float sum = float(dh) + float(dq);
    if (std::isnan(sum)) {
      EXPECT_TRUE(std::isnan(bits_float(o[17])));
    } else {
      EXPECT_EQ(o[17], bits_of(sum)) << dh << " " << dq;
    }
    EXPECT_EQ(o[18],
              unsigned(clamp_to(std::nearbyint(dh), INT_MIN, INT_MAX)) + unsigned(clamp_to(std::trunc(dg), INT_MIN, INT_MAX)))
        << dh << " " << dg;
  }
}

TEST(PtxInstructions, Conversions) {
  std::vector<double> a = {0.0,   -0.0,  0.5,     -0.5,     1.5, 2.5,          -2.5,          127.4,      128.7, -128.9,   -129.0,
                           255.9, 256.1, 32768.0, -32769.0, 1e5, 2147483520.0, -2147483648.0, 16777217.0, 0.1,   -1234.567};
  const int n = int(a.size());
  Memory memory;
  long long* out = memory.get<long long>(size_t(n) * 16);
  run("convert_kernel", memory, 1, 32, parameters(kernel("convert_kernel"), memory.put(a), out, n));
  for (int i = 0; i < n; ++i) {
    double v = a[size_t(i)];
    float f = float(v);
    const long long* o = out + i * 16;
    EXPECT_EQ(o[0], clamp_to(std::trunc(f), INT_MIN, INT_MAX)) << v;
    EXPECT_EQ(o[1], f < 0 ? 0 : (long long)f) << v;
    EXPECT_EQ(o[2], (long long)f) << v;
    EXPECT_EQ(o[3], f < 0 ? 0 : (long long)f) << v;
    EXPECT_EQ(o[4], clamp_to(std::trunc(v), INT_MIN, INT_MAX)) << v;
    EXPECT_EQ(o[5], (long long)std::nearbyint(v)) << v;
    EXPECT_EQ(o[6], clamp_to(std::trunc(f), -128, 127)) << v;
    int whole = clamp_to(std::trunc(f), INT_MIN, INT_MAX);
    EXPECT_EQ(o[7], std::min(255, std::max(0, whole))) << v;
    EXPECT_EQ(o[8], std::min(32767, std::max(-32768, whole))) << v;
    EXPECT_EQ(o[12], int(bits_of(rounded(FE_DOWNWARD,
                                         [&] {
                                           volatile double d = v;
                                           return float(d);
                                         }))))
        << v;
    EXPECT_EQ(o[13], int(bits_of(rounded(FE_UPWARD,
                                         [&] {
                                           volatile double d = v;
                                           return float(d);
                                         }))))
        << v;
    EXPECT_EQ(o[14],
              int(unsigned(clamp_to(std::floor(f), INT_MIN, INT_MAX)) + unsigned(clamp_to(std::ceil(f), INT_MIN, INT_MAX))))
        << v;
    EXPECT_EQ(o[15], int(bits_of(float((unsigned long long)(v * v))))) << v;
  }
}

TEST(PtxInstructions, WarpFunctions) {
  std::vector<unsigned> in;
  for (unsigned i = 0; i < 64; ++i) in.push_back(unsigned(splitmix64(9, i) >> 40) % 900);
  for (bool reverse : {false, true}) {
    Memory memory;
    unsigned* out = memory.get<unsigned>(64 * 16);
    run("warp_kernel", memory, 1, 64, parameters(kernel("warp_kernel"), memory.put(in), out), reverse);
    for (unsigned t = 0; t < 64; ++t) {
      const unsigned *o = out + t * 16, *v = &in[t / 32 * 32];
      unsigned l = t % 32, ballot = 0, ballot2 = 0, ballot4 = 0, any = 0, match = 0, sum = 0, exclusive = 0, odd = 0, three = 0;
      int high = INT_MIN;
      for (unsigned k = 0; k < 32; ++k) {
        ballot |= (v[k] & 1) << k;
        if (k < 12)
          ballot2 |= (v[k] >> 1 & 1) << k;
        else
          ballot4 |= (v[k] >> 2 & 1) << k;
        any |= v[k] == 17;
        match |= unsigned((v[k] & 3) == (v[l] & 3)) << k;
        sum += v[k];
        exclusive ^= v[k];
        high = std::max(high, int(v[k]) - 500);
      }
      for (unsigned k = 0; k < 64; ++k) odd += in[k] & 1, three |= in[k] == 3;
      const unsigned expected[16] = {v[(l * 7 + 3) & 31],
                                     v[l < 3 ? l : l - 3],
                                     v[l + 5 > 31 ? l : l + 5],
                                     v[l ^ 17],
                                     v[l % 8 + 2 > 7 ? l : l + 2],
                                     v[l / 16 * 16 + 3],
                                     ballot,
                                     any | 2u,
                                     match,
                                     sum,
                                     unsigned(high),
                                     exclusive,
                                     l < 12 ? ballot2 : ballot4,
                                     ~0u,
                                     0u,
                                     odd + three * 1000 + 10000};
      for (int k = 0; k < 16; ++k)
        if (k != 14) {
          EXPECT_EQ(o[k], expected[k]) << "result " << k << " of thread " << t;
        }
      EXPECT_EQ(o[14], 0u) << "all lanes agree: mask ~0 plus predicate 1";
    }
  }
}

TEST(PtxInstructions, Atomics) {
  const int n = 200;
  std::vector<int> in;
  for (int i = 0; i < n; ++i) in.push_back(int(splitmix64(10, uint64_t(i)) >> 50));
  for (bool reverse : {false, true}) {
    Memory memory;
    std::vector<int> start(10, 0);
    start[4] = INT_MAX;
    start[5] = -1;
    int* sums = memory.put(start);
    float* f = memory.put(std::vector<float>(1));
    double* d = memory.put(std::vector<double>(1));
    unsigned long long* big = memory.put(std::vector<unsigned long long>(1));
    run("atomic_kernel", memory, 2, 128, parameters(kernel("atomic_kernel"), memory.put(in), sums, f, d, big, n), reverse);
    int sum = 0, high = 0, ones = 0, exclusive = 0, low = INT_MAX, all = -1;
    for (int v : in) sum += v, high = std::max(high, v), ones |= v, low = std::min(low, v), all &= v;
    for (int v : in) exclusive ^= v;
    const int expected[10] = {sum, high, ones, exclusive, low, all, 0, 3 * n, n % 10, 42};
    for (int k = 0; k < 10; ++k) EXPECT_EQ(sums[k], expected[k]) << k;
    EXPECT_EQ(*f, float(sum));  // exact: all partial sums are below 2^24
    EXPECT_EQ(*d, double(sum));
    EXPECT_EQ(*big, (unsigned long long)sum);
  }
}

template <class Encode, class Decode>
void check_mma(const char* name, Encode encode, Decode decode) {
  std::vector<uint16_t> a, b;
  std::vector<float> c;
  for (int i = 0; i < 256; ++i) a.push_back(uint16_t(encode(2 * uniform01(11, uint64_t(i)) - 1)));
  for (int i = 0; i < 128; ++i) b.push_back(uint16_t(encode(2 * uniform01(12, uint64_t(i)) - 1)));
  for (int i = 0; i < 128; ++i) c.push_back(float(i));
  Memory memory;
  float* d = memory.get<float>(128);
  run(name, memory, 1, 32, parameters(kernel(name), memory.put(a), memory.put(b), memory.put(c), d));
  for (int r = 0; r < 16; ++r)
    for (int k = 0; k < 8; ++k) {
      double sum = c[size_t(r * 8 + k)];
      for (int i = 0; i < 16; ++i) sum += decode(a[size_t(r * 16 + i)]) * decode(b[size_t(k * 16 + i)]);
      EXPECT_NEAR(d[r * 8 + k], sum, 1e-5) << r << "," << k;  // one rounding of at most 128 to 24 bits
    }
}

TEST(PtxInstructions, TensorCores) {
  check_mma(
      "mma_f16_kernel", [](double v) { return half_of(v); }, [](uint16_t h) { return value_of_half(h); });
  check_mma(
      "mma_bf16_kernel", [](double v) { return bfloat_of(v); }, [](uint16_t h) { return value_of_bfloat(h); });
  std::vector<uint32_t> a, b;
  for (int i = 0; i < 128; ++i) a.push_back(uint32_t(splitmix64(13, uint64_t(i)) >> 32));
  for (int i = 0; i < 64; ++i) b.push_back(uint32_t(splitmix64(14, uint64_t(i)) >> 32));
  Memory memory;
  int* d = memory.get<int>(384);
  run("mma_b1_kernel", memory, 1, 32, parameters(kernel("mma_b1_kernel"), memory.put(a), memory.put(b), d));
  for (int r = 0; r < 16; ++r)
    for (int k = 0; k < 8; ++k) {
      int exclusive = 0, both = 0, exclusive4 = 0, both4 = 0;
      for (int w = 0; w < 8; ++w) {
        uint32_t x = a[size_t(r * 8 + w)], y = b[size_t(k * 8 + w)];
        exclusive += __builtin_popcount(x ^ y);
        both += __builtin_popcount(x & y);
        if (w < 4) exclusive4 += __builtin_popcount(x ^ y), both4 += __builtin_popcount(x & y);
      }
      EXPECT_EQ(d[r * 8 + k], exclusive + 1 + r / 8 * 2 + k % 2);
      EXPECT_EQ(d[128 + r * 8 + k], both);
      if (r < 8) {
        EXPECT_EQ(d[256 + r * 8 + k], exclusive4);
      }
      if (r < 8) {
        EXPECT_EQ(d[320 + r * 8 + k], both4);
      }
    }
  // halves as words: two of a row, the lower first
  std::vector<uint32_t> ha, hb;
  std::vector<float> c(128, 0.0f);
  auto word = [](uint64_t seed, int i) {
    return half_of(2 * uniform01(seed, uint64_t(2 * i)) - 1) | half_of(2 * uniform01(seed, uint64_t(2 * i + 1)) - 1) << 16;
  };
  for (int i = 0; i < 128; ++i) ha.push_back(word(15, i));
  for (int i = 0; i < 64; ++i) hb.push_back(word(16, i));
  auto dot = [](const uint32_t* x, const uint32_t* y, int words) {
    double sum = 0;
    for (int w = 0; w < words; ++w)
      sum += value_of_half(x[w] & 0xffff) * value_of_half(y[w] & 0xffff) + value_of_half(x[w] >> 16) * value_of_half(y[w] >> 16);
    return sum;
  };
  float* e = memory.get<float>(128);
  uint32_t* h = memory.get<uint32_t>(64);
  run("mma_f16_k8_kernel", memory, 1, 32,
      parameters(kernel("mma_f16_k8_kernel"), memory.put(ha), memory.put(hb), memory.put(c), e));
  run("mma_f16_acc16_kernel", memory, 1, 32, parameters(kernel("mma_f16_acc16_kernel"), memory.put(ha), memory.put(hb), h));
  for (int r = 0; r < 16; ++r)
    for (int k = 0; k < 8; ++k) {
      EXPECT_NEAR(e[r * 8 + k], dot(&ha[size_t(r * 4)], &hb[size_t(k * 4)], 4), 1e-6);
      EXPECT_EQ(h[r * 4 + k / 2] >> (k % 2 * 16) & 0xffff, half_of(dot(&ha[size_t(r * 8)], &hb[size_t(k * 8)], 8)));
    }
  std::vector<uint16_t> m;
  for (int i = 0; i < 64; ++i) m.push_back(uint16_t(i * 3 + 1));
  uint32_t* t = memory.get<uint32_t>(32);
  run("ldmatrix_trans_kernel", memory, 1, 32, parameters(kernel("ldmatrix_trans_kernel"), memory.put(m), t));
  for (int l = 0; l < 32; ++l)
    EXPECT_EQ(t[l], uint32_t(m[size_t(l % 4 * 16 + l / 4)]) | uint32_t(m[size_t(l % 4 * 16 + 8 + l / 4)]) << 16);
}

struct Args {  // as in instructions.cu
  const float* x;
  float* y;
  int count;
  short small;
  unsigned char bytes[5];
  double scale;
};

TEST(PtxInstructions, MemorySpaces) {
  const Module& module = module_of("instructions");
  const Kernel& k = module.kernel("memory_kernel");
  std::vector<float> x;
  for (int i = 0; i < 32; ++i) x.push_back(float(i) * 0.5f);
  int* counter = reinterpret_cast<int*>(module.variable("device_counter").address);
  int before = *counter;
  Memory memory;
  Args args = {memory.put(x), memory.get<float>(32), 32, 7, {2, 5, 0, 3, 1}, 2.5};
  launch(module, k, {1, 1, 1}, {32, 1, 1}, 32 * 4, parameters(k, args), memory.options());
  EXPECT_EQ(*counter, before + 1);
  const float table[4] = {1.5f, -2.0f, 0.25f, 8.0f}, device[3] = {10, 20, 30};
  for (int i = 0; i < 32; ++i) {
    int b = args.bytes[i % 5];
    float r = (i & 1) ? float(i & 7) : x[size_t(i)];
    r = r + x[size_t((i + b) % 32)] + table[i & 3] + device[i % 3] + x[size_t(31 - i)];
    r = b == 0   ? r + 1
        : b == 1 ? r * 3
        : b == 2 ? r - 7
        : b == 3 ? r * r
        : b == 4 ? r + 2.5f
        : b == 5 ? -r
        : b == 6 ? r + 0.5f
                 : r + 100;
    r = i > 2 ? r * 2 : r + 1;
    EXPECT_EQ(args.y[i], r) << i;
  }
  EXPECT_TRUE(module.variable("table").constant);
  EXPECT_EQ(module.variable("table").bytes, 16u);

  std::vector<float> v;
  std::vector<int8_t> bytes;
  for (int i = 0; i < 256; ++i) v.push_back(float(i % 37) - 11), bytes.push_back(int8_t(i * 5));
  uint32_t* out = memory.get<uint32_t>(128);
  int16_t* shorts = memory.get<int16_t>(64);
  Counters c =
      run("vector_kernel", memory, 2, 32, parameters(kernel("vector_kernel"), memory.put(v), out, memory.put(bytes), shorts));
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(out[2 * i], bits_of(v[4 * i] + v[4 * i + 2]));
    EXPECT_EQ(out[2 * i + 1], bits_of(v[4 * i + 1] * v[4 * i + 3]));
    EXPECT_EQ(shorts[i], int16_t(bytes[i] * 3));
  }
  EXPECT_EQ(c.read.sectors_requested, 64u * 16 / 32 + 64 / 32);
  EXPECT_EQ(c.write.sectors_distinct, 64u * 8 / 32 + 64 * 2 / 32);
}

TEST(PtxInstructions, AsynchronousCopiesBarriersAndBlocks) {
  Memory memory;
  std::vector<float> in;
  for (int i = 0; i < 1024; ++i) in.push_back(float(i % 89) * 0.25f);
  for (bool reverse : {false, true}) {
    float* out = memory.get<float>(64);
    run("async_kernel", memory, 1, 64, parameters(kernel("async_kernel"), memory.put(in), out), reverse);
    for (int i = 0; i < 64; ++i) {
      float sum = 0;
      for (int k = 0; k < 4; ++k) sum += in[size_t(k * 256 + ((i * 5) & 255))] - in[size_t(k * 256 + 255 - i)];
      EXPECT_EQ(out[i], sum + (i & 1 ? in[size_t(i)] : 0.0f)) << i;
    }
    std::vector<int> ints;
    for (int i = 0; i < 32; ++i) ints.push_back(i * i);
    int* o = memory.get<int>(32);
    run("named_barrier_kernel", memory, 1, 64, parameters(kernel("named_barrier_kernel"), memory.put(ints), o), reverse);
    for (int i = 0; i < 32; ++i) EXPECT_EQ(o[i], 2 * (31 - i) * (31 - i));
    float *partial = memory.get<float>(8), *total = memory.get<float>(1);
    run("last_block_kernel", memory, 8, 64,
        parameters(kernel("last_block_kernel"), memory.put(in), partial, memory.put(std::vector<unsigned>(1)), total), reverse);
    float sum = 0;
    for (int i = 0; i < 512; ++i) sum += in[size_t(i)];
    EXPECT_EQ(*total, sum);  // multiples of 0.25 below 2^22: exact in any order
    std::vector<int> starts;
    for (int i = 0; i < 96; ++i) starts.push_back(i + 1);
    int* steps = memory.get<int>(96);
    Counters c =
        run("divergent_kernel", memory, 1, 96, parameters(kernel("divergent_kernel"), memory.put(starts), steps), reverse);
    for (int i = 0; i < 96; ++i) {
      int v = i + 1, n = 0;
      while (v != 1 && n < 200) v = v & 1 ? 3 * v + 1 : v / 2, ++n;
      EXPECT_EQ(steps[i], n);
    }
    EXPECT_GT(c.divergent_branches, 0u);
  }
}

}  // namespace
}  // namespace bireal::ptx::testing
