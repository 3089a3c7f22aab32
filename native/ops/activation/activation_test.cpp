#include "ops/activation/activation.h"

#include "testing/testing.h"

namespace bireal {
using namespace testing;

static const ActivationKind kKinds[] = {ActivationKind::kRelu, ActivationKind::kLeakyClip, ActivationKind::kClip,
                                        ActivationKind::kIdentity};
static const float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

// Same bits, or a NaN on both sides: which of two NaN operands survives an addition is the compiler's choice.
static void expect_same(const Guarded<float>& got, const Guarded<float>& expected, const char* what) {
  ASSERT_EQ(got.count(), expected.count());
  for (int64_t i = 0; i < got.count(); ++i)
    ASSERT_TRUE(std::memcmp(&got[i], &expected[i], 4) == 0 || (std::isnan(got[i]) && std::isnan(expected[i])))
        << what << "[" << i << "]: got " << got[i] << ", expected " << expected[i];
  got.expect_guards(what);
}

TEST(ActivationFwd, HandWorkedValues) {
  std::vector<float> in = {-3, -1, -0.5f, -0.0f, 0.5f, 1, 3, kInf, -kInf, kNaN};
  const std::vector<float> expected[] = {{0, 0, 0, 0, 0.5f, 1, 3, kInf, 0, kNaN},
                                         {-2, -1, -0.5f, -0.0f, 0.5f, 1, 2, kInf, -kInf, kNaN},
                                         {-1, -1, -0.5f, -0.0f, 0.5f, 1, 1, 1, -1, kNaN},
                                         in};
  Guarded<float> x(in);
  for (ActivationKind kind : kKinds) {
    Guarded<float> y(x.count());
    ref::activation_fwd(y.data(), x.data(), x.count(), kind, 0.5f);
    expect_same(y, Guarded<float>(expected[int(kind)]), "y");
  }
}

TEST(ActivationBwd, HandWorkedValuesWithTheKinksOutside) {
  std::vector<float> in = {-3, -1, -0.5f, -0.0f, 0.0f, 0.5f, 1, 3, kInf, -kInf, kNaN};
  const std::vector<float> expected[] = {{0, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0},
                                         {2, 2, 4, 4, 4, 4, 2, 2, 2, 2, 0},
                                         {0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 0},
                                         std::vector<float>(11, 4.0f)};
  Guarded<float> x(in), dy(std::vector<float>(in.size(), 4.0f));
  for (ActivationKind kind : kKinds) {
    Guarded<float> dx(x.count());
    ref::activation_bwd(dx.data(), dy.data(), x.data(), nullptr, x.count(), kind, 0.5f);
    expect_same(dx, Guarded<float>(expected[int(kind)]), "dx");
    // The shortcut's gradient is added.
    Guarded<float> shortcut(std::vector<float>(in.size(), 0.5f)), sum(expected[int(kind)]);
    for (int64_t i = 0; i < sum.count(); ++i) sum[i] += 0.5f;
    ref::activation_bwd(dx.data(), dy.data(), x.data(), shortcut.data(), x.count(), kind, 0.5f);
    expect_same(dx, sum, "dx with shortcut");
  }
}

TEST(ActivationBwd, MatchesFiniteDifferencesAwayFromTheKinks) {
  for (ActivationKind kind : kKinds)
    for (float at : {-2.5f, -1.25f, -0.75f, 0.25f, 0.875f, 1.5f}) {
      // Piecewise linear: a difference quotient is exact up to the rounding of y, 2 * 2^-24 * 3 / 2^-4 < 6e-6.
      float h = 0x1p-5f, x[2] = {at - h, at + h}, y[2], dy = 1, dx;
      ref::activation_fwd(y, x, 2, kind, 0.1f);
      ref::activation_bwd(&dx, &dy, &at, nullptr, 1, kind, 0.1f);
      EXPECT_NEAR(dx, (y[1] - y[0]) / (2 * h), 6e-6) << int(kind) << " at " << at;
    }
}

TEST(ActivationFwd, EveryIsaMatchesRefAlsoInPlace) {
  for (auto& context : all_contexts())
    for (ActivationKind kind : kKinds)
      for (int64_t count : {0, 1, 3, 15, 16, 17, 31, 33, 65, 1000, 50001}) {
        SCOPED_TRACE(context_name(*context) + " kind" + std::to_string(int(kind)) + "_count" + std::to_string(count));
        Guarded<float> x(nasty_floats(count, 3, true)), expected(count), got(count), in_place(x.values());
        ref::activation_fwd(expected.data(), x.data(), count, kind, 0.1f);
        cpu::activation_fwd(*context, got.data(), x.data(), count, kind, 0.1f);
        cpu::activation_fwd(*context, in_place.data(), in_place.data(), count, kind, 0.1f);
        expect_same(got, expected, "y");
        expect_same(in_place, expected, "y in place of x");
      }
}

TEST(ActivationBwd, EveryIsaMatchesRefAlsoInPlace) {
  for (auto& context : all_contexts())
    for (ActivationKind kind : kKinds)
      for (int64_t count : {0, 1, 3, 15, 16, 17, 31, 33, 65, 1000, 50001})
        for (bool with_shortcut : {false, true}) {
          SCOPED_TRACE(context_name(*context) + " kind" + std::to_string(int(kind)) + "_count" + std::to_string(count));
          Guarded<float> x(nasty_floats(count, 4, true)), dy(nasty_floats(count, 5, true)),
              shortcut(nasty_floats(count, 6, true));
          Guarded<float> expected(count), got(count), in_dy(dy.values()), in_shortcut(shortcut.values());
          const float* s = with_shortcut ? shortcut.data() : nullptr;
          ref::activation_bwd(expected.data(), dy.data(), x.data(), s, count, kind, 0.1f);
          cpu::activation_bwd(*context, got.data(), dy.data(), x.data(), s, count, kind, 0.1f);
          cpu::activation_bwd(*context, in_dy.data(), in_dy.data(), x.data(), s, count, kind, 0.1f);
          expect_same(got, expected, "dx");
          expect_same(in_dy, expected, "dx in place of dy");
          if (!with_shortcut) continue;
          cpu::activation_bwd(*context, in_shortcut.data(), dy.data(), x.data(), in_shortcut.data(), count, kind, 0.1f);
          expect_same(in_shortcut, expected, "dx in place of shortcut");
        }
}

}  // namespace bireal
