#include "ops/binary_conv/binary_conv_fixed16.h"

#include "ops/binary_conv/binary_conv_cpu.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

constexpr BinaryConvGradient kFixed16 = BinaryConvGradient::kFixed16;

std::vector<word_t> random_bits(int64_t rows, int64_t C, uint64_t seed) {
  std::vector<word_t> bits(static_cast<size_t>(rows * word_count(C)));
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = word_t(splitmix64(seed, i)) & valid_mask(C, int64_t(i) % word_count(C));
  return bits;
}

// Tails of C and K; borders of every kind; strides 1 to 3 and beyond the filter; groups of 1, 2 and 3 taps. In the last list:
// tasks of several row blocks (56 wide), several blocks of C and of K, chunks of several images, several chunks and slices.
std::vector<Conv2dShape> shapes() {
  std::vector<Conv2dShape> shapes;
  for (int64_t C : {1, 15, 16, 17, 31, 32, 33, 48, 64, 65}) shapes.push_back({2, 5, 4, C, 6, 3, 3, 1, 1});
  for (int64_t K : {1, 2, 3, 4, 5, 17, 40}) shapes.push_back({2, 5, 6, 33, K, 3, 3, 2, 1});
  for (int64_t side : {1, 2, 3, 4, 7, 8, 9, 17})
    for (int64_t stride : {1, 2}) shapes.push_back({3, side, side, 33, 7, 3, 3, stride, 1});
  shapes.insert(shapes.end(), {{3, 1, 9, 33, 17, 3, 3, 1, 1},
                               {3, 9, 1, 33, 17, 3, 3, 2, 1},
                               {2, 7, 7, 33, 17, 1, 1, 1, 0},
                               {2, 9, 8, 32, 17, 1, 1, 2, 0},
                               {2, 9, 8, 32, 5, 1, 1, 3, 0},
                               {2, 6, 7, 33, 17, 3, 3, 1, 0},
                               {2, 7, 8, 33, 17, 3, 3, 2, 0},
                               {2, 7, 8, 33, 17, 3, 3, 1, 2},
                               {2, 9, 7, 33, 17, 5, 5, 1, 2},
                               {2, 9, 7, 33, 17, 5, 5, 2, 1},
                               {2, 11, 10, 33, 6, 7, 7, 2, 3},
                               {2, 9, 10, 33, 6, 7, 7, 1, 3},
                               {2, 11, 10, 33, 6, 5, 7, 3, 3},
                               {3, 2, 1, 33, 6, 7, 7, 1, 3},
                               {2, 5, 8, 33, 17, 1, 3, 1, 0},
                               {2, 5, 8, 33, 17, 3, 2, 1, 1}});
  shapes.insert(shapes.end(), {{1, 23, 56, 16, 64, 3, 3, 1, 1},
                               {1, 41, 56, 16, 64, 3, 3, 2, 1},
                               {2, 3, 3, 300, 12, 3, 3, 1, 1},
                               {2, 2, 3, 20, 270, 3, 3, 1, 1},
                               {35, 4, 4, 32, 6, 3, 3, 1, 1},
                               {30, 15, 14, 17, 5, 3, 3, 1, 1},
                               {16, 40, 31, 16, 5, 3, 3, 2, 1}});
  // Several rounds of output channels for AVX2's tables in memory (binary_conv_fixed16_lines.h), with every tail.
  for (int64_t C : {1, 16, 31, 32, 33, 64, 65, 97})
    for (int64_t stride : {1, 2}) shapes.push_back({2, 5, 6, C, 130 + C % 4, 3, 3, stride, 1});
  shapes.insert(shapes.end(), {{2, 9, 8, 33, 258, 1, 1, 3, 0},
                               {2, 9, 7, 33, 131, 5, 5, 2, 1},
                               {2, 1, 9, 33, 131, 3, 3, 1, 1},
                               {2, 9, 1, 65, 131, 3, 3, 2, 1},
                               {2, 9, 10, 33, 66, 7, 7, 1, 3}});
  // Lines of several images, with and without idle columns, and a batch that does not fill the last one.
  shapes.insert(shapes.end(), {{5, 4, 4, 33, 9, 3, 3, 1, 1}, {19, 9, 7, 17, 6, 3, 3, 2, 1}, {3, 18, 8, 40, 33, 3, 3, 1, 1}});
  // Backward input with tables in memory: several parts of the input channels, and of the rows beside them.
  shapes.insert(shapes.end(), {{2, 9, 56, 264, 13, 3, 3, 1, 1}, {3, 17, 56, 265, 7, 3, 3, 2, 1}, {2, 5, 30, 100, 6, 7, 7, 1, 3}});
  // Backward weight with tables in memory: several chunks of rows of one image.
  shapes.insert(shapes.end(), {{2, 20, 56, 100, 18, 3, 3, 1, 1}, {1, 45, 60, 100, 5, 3, 3, 2, 1}});
  return shapes;
}

struct Case {
  Conv2dShape s;
  int64_t n, dw_count;
  Guarded<word_t> x, w;
  Guarded<float> dz, alpha, before;

  explicit Case(const Conv2dShape& shape, int64_t images)
      : s(shape),
        n(images),
        dw_count(s.K * s.taps() * s.C),
        x(random_bits(n * s.H * s.W, s.C, 1)),
        w(random_bits(s.K * s.taps(), s.C, 2)),
        dz(random_floats(s.output_count(n), 3, 1e-3f)),
        alpha(random_floats(s.K, 4)),
        before(random_floats(dw_count, 5)) {}
  // dz of the middle pixel.
  float& at(int64_t image, int64_t k) { return dz[image * s.output_count(1) + (s.P() / 2 * s.Q() + s.Q() / 2) * s.K + k]; }
};

void expect_same_bits_in(const Guarded<float>& got, const Guarded<float>& expected, int64_t begin, int64_t end,
                         const char* what) {
  for (int64_t i = begin; i < end; ++i)
    ASSERT_EQ(0, std::memcmp(&got[i], &expected[i], sizeof(float)))
        << what << "[" << i << "]: got " << got[i] << ", expected " << expected[i];
}

// Both passes on every context. The images and channels for which `fixed` holds must equal the reference bit for bit; the
// others went through float32, and see_others(dx, dw) looks at them. Counts of fallbacks must agree with the reference.
template <class Fixed, class SeeOthers>
void check(Case& c, const Fixed& fixed, const SeeOthers& see_others) {
  const Conv2dShape& s = c.s;
  const int64_t inputs = s.input_count(1), row = s.taps() * s.C;
  Guarded<float> dx_expected(s.input_count(c.n));
  const int64_t images = ref::binary_conv_bwd_input_fixed16(dx_expected.data(), c.dz.data(), c.alpha.data(), c.w.data(), s, c.n);
  for (GradMode mode : {GradMode::kOverwrite, GradMode::kAccumulate}) {
    Guarded<float> dw_expected(c.before.values());
    const int64_t channels = ref::binary_conv_bwd_weight_fixed16(dw_expected.data(), c.x.data(), c.dz.data(), s, c.n, mode);
    for (auto& context : all_contexts()) {
      SCOPED_TRACE(s.text() + "_n" + std::to_string(c.n) + "_mode" + std::to_string(int(mode)) + "__" + context_name(*context));
      const cpu::BinaryConvPlan plan = cpu::binary_conv_plan(*context, s, kFixed16);
      Guarded<char> workspace(plan.workspace_bytes);
      Guarded<float> dx(s.input_count(c.n)), dw(c.before.values());
      if (mode == GradMode::kOverwrite) dw = Guarded<float>(c.dw_count);  // NaN: must not be read
      cpu::binary_conv_bwd_input(*context, plan, dx.data(), c.dz.data(), c.alpha.data(), c.w.data(), c.n, workspace.data());
      ASSERT_EQ(plan.fallbacks->load(), images);
      cpu::binary_conv_bwd_weight(*context, plan, dw.data(), c.x.data(), c.dz.data(), c.n, mode, workspace.data());
      ASSERT_EQ(plan.fallbacks->load(), images + channels);
      for (int64_t image = 0; image < c.n; ++image)
        if (fixed(image, -1)) expect_same_bits_in(dx, dx_expected, image * inputs, (image + 1) * inputs, "dx");
      for (int64_t k = 0; k < s.K; ++k)
        if (fixed(-1, k)) expect_same_bits_in(dw, dw_expected, k * row, (k + 1) * row, "dw");
      see_others(dx, dw);
      dx.expect_guards("dx");
      dw.expect_guards("dw");
      workspace.expect_guards("workspace");
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

const auto kAll = [](int64_t, int64_t) { return true; };
const auto kNone = [](const Guarded<float>&, const Guarded<float>&) {};

}  // namespace

TEST(BinaryConvFixed16Rule, RoundsToNearestTiesToEven) {
  for (float x : {0.0f, -0.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.49999997f, 32766.5f, 32766.498f, -32766.5f, 32767.0f, 1e-40f})
    EXPECT_EQ(fixed16_round(x), int32_t(std::nearbyint(double(x)))) << x;
}

TEST(BinaryConvFixed16Rule, NoValueIsFartherThanTheBoundFromItsFixedPoint) {
  for (float m : {1.0f, 0.7f, 3.1e38f, 1e-30f, 0x1p-100f, 1.9999999f}) {
    const uint32_t magnitude = fixed16_magnitude(m);
    ASSERT_TRUE(fixed16_fits(magnitude));
    const float inverse = fixed16_inverse(magnitude);
    const double step = fixed16_step(magnitude);
    EXPECT_EQ(fixed16_round(m * inverse), 32767);
    EXPECT_EQ(fixed16_round(-m * inverse), -32767);
    for (uint64_t i = 0; i < 100000; ++i) {
      const float v = float(2 * uniform01(7, i) - 1) * m;
      const int32_t q = fixed16_round(v * inverse);
      ASSERT_TRUE(std::fabs(q * step - double(v)) <= step * (0.5 + 0x1p-7)) << v;
    }
  }
}

TEST(BinaryConvFixed16Rule, SaysWhichGroupsItCannotTake) {
  EXPECT_TRUE(fixed16_fits(fixed16_magnitude(-0.0f)));
  EXPECT_TRUE(fixed16_fits(fixed16_magnitude(std::numeric_limits<float>::max())));
  EXPECT_FALSE(fixed16_fits(fixed16_magnitude(std::numeric_limits<float>::infinity())));
  EXPECT_FALSE(fixed16_fits(fixed16_magnitude(-std::numeric_limits<float>::quiet_NaN())));
  EXPECT_FALSE(fixed16_fits(fixed16_magnitude(std::nextafter(0x1p-100f, 0.0f))));
  EXPECT_FALSE(fixed16_too_spread(32767.0 * 32767.0, 160000));  // max / rms = 400
  EXPECT_TRUE(fixed16_too_spread(32767.0 * 32767.0, 160001));
}

TEST(BinaryConvFixed16, EveryContextEqualsTheReferenceBitForBit) {
  for (const Conv2dShape& s : shapes()) {
    Case c(s, s.N);
    check(c, kAll, kNone);
    if (HasFatalFailure()) return;
  }
}

TEST(BinaryConvFixed16, RunsAnyBatchUpToThePlans) {
  for (int64_t n : {1, 2, 7, 16, 29}) {
    Case c({30, 14, 14, 33, 5, 3, 3, 1, 1}, n);
    check(c, kAll, kNone);
    if (HasFatalFailure()) return;
  }
}

TEST(BinaryConvFixed16, ErrorIsAtMostHalfAStepForEachTerm) {
  for (const Conv2dShape& s : {Conv2dShape{2, 9, 8, 33, 40, 3, 3, 1, 1}, Conv2dShape{3, 9, 8, 17, 40, 3, 3, 2, 1}}) {
    Case c(s, s.N);
    for (int64_t i = 0; i < c.dz.count(); ++i) c.dz[i] *= c.dz[i] * c.dz[i] * 1e6f;  // most values far below the largest
    cpu::Context context(2, cpu::default_isa());
    const cpu::BinaryConvPlan plan = cpu::binary_conv_plan(context, s, kFixed16);
    Guarded<char> workspace(plan.workspace_bytes);
    Guarded<float> dx(s.input_count(c.n)), dx_exact(dx.count()), dw(c.dw_count), dw_exact(c.dw_count);
    cpu::binary_conv_bwd_input(context, plan, dx.data(), c.dz.data(), c.alpha.data(), c.w.data(), c.n, workspace.data());
    cpu::binary_conv_bwd_weight(context, plan, dw.data(), c.x.data(), c.dz.data(), c.n, GradMode::kOverwrite, workspace.data());
    ref::binary_conv_bwd_input(dx_exact.data(), c.dz.data(), c.alpha.data(), c.w.data(), s, c.n);
    ref::binary_conv_bwd_weight(dw_exact.data(), c.x.data(), c.dz.data(), s, c.n, GradMode::kOverwrite);
    // Terms of dx: K for each tap that hits the pixel; of dw: the output pixels whose tap is inside.
    std::vector<double> dx_bound(size_t(dx.count()), 0.0), dw_bound(size_t(dw.count()), 0.0);
    for (int64_t i = 0; i < c.n; ++i)
      for (int64_t p = 0; p < s.P(); ++p)
        for (int64_t q = 0; q < s.Q(); ++q)
          for (int64_t r = 0; r < s.R; ++r)
            for (int64_t t = 0; t < s.S; ++t) {
              const int64_t h = p * s.stride + r - s.pad, w = q * s.stride + t - s.pad;
              if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
              for (int64_t channel = 0; channel < s.C; ++channel) {
                dx_bound[size_t(((i * s.H + h) * s.W + w) * s.C + channel)] += double(s.K);
                for (int64_t k = 0; k < s.K; ++k) dw_bound[size_t((k * s.taps() + r * s.S + t) * s.C + channel)] += 1;
              }
            }
    auto finish_bound = [](double* bound, float largest, float exact) {
      *bound = *bound * largest / 32767 * (0.5 + 0x1p-7) + 0x1p-23 * std::fabs(exact);
    };
    double largest_share = 0, mean_share = 0;
    for (int64_t i = 0; i < dx.count(); ++i) {
      const int64_t outputs = s.output_count(1), first = i / s.input_count(1) * outputs;
      float largest = 0;
      for (int64_t o = first; o < first + outputs; ++o) largest = std::max(largest, std::fabs(c.dz[o] * c.alpha[o % s.K]));
      finish_bound(&dx_bound[size_t(i)], largest, dx_exact[i]);
      largest_share = std::max(largest_share, std::fabs(double(dx[i]) - dx_exact[i]) / dx_bound[size_t(i)]);
    }
    for (int64_t i = 0; i < dw.count(); ++i) {
      float largest = 0;
      for (int64_t o = i / (s.taps() * s.C); o < c.dz.count(); o += s.K) largest = std::max(largest, std::fabs(c.dz[o]));
      finish_bound(&dw_bound[size_t(i)], largest, dw_exact[i]);
      mean_share += std::fabs(double(dw[i]) - dw_exact[i]) / dw_bound[size_t(i)] / double(dw.count());
    }
    expect_within(dx, dx_exact, dx_bound, "dx");
    expect_within(dw, dw_exact, dw_bound, "dw");
    EXPECT_GT(largest_share, 1e-3) << "hardly anything was rounded: not the fixed-point path";
    EXPECT_GT(mean_share, 1e-3);
    EXPECT_LT(mean_share, 0.25) << "roundings should cancel, not add up";
  }
}

TEST(BinaryConvFixed16, NonFiniteTinyAndZeroGroups) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  Case c({5, 6, 7, 33, 9, 3, 3, 1, 1}, 5);
  const Conv2dShape& s = c.s;
  c.alpha[2] = 0;
  // NaN in image 0, channel 1; Inf in image 3, channel 5; image 2 and channel 7 are zero; channel 8 is tiny.
  for (int64_t i = 0; i < c.dz.count(); ++i) {
    if (i / s.output_count(1) == 2 || i % s.K == 7) c.dz[i] = 0;
    if (i % s.K == 8) c.dz[i] *= 1e-30f;
  }
  c.at(0, 1) = nan;
  c.at(3, 5) = -inf;
  auto fixed = [](int64_t image, int64_t k) { return image != 0 && image != 3 && k != 1 && k != 5 && k != 8; };
  check(c, fixed, [&](const Guarded<float>& dx, const Guarded<float>& dw) {
    const int64_t inputs = s.input_count(1), row = s.taps() * s.C;
    auto bad = [](const float* values, int64_t count) {
      int64_t found = 0;
      for (int64_t i = 0; i < count; ++i) found += !std::isfinite(values[i]);
      return found;
    };
    for (int64_t image : {0, 3}) EXPECT_EQ(bad(dx.data() + image * inputs, inputs), 9 * s.C);
    for (int64_t k : {1, 5}) EXPECT_EQ(bad(dw.data() + k * row, row), row);
    EXPECT_EQ(bad(dw.data() + 8 * row, row), 0);
  });
}

// AVX2 keeps three columns in a 64-bit word (binary_conv_fixed16_lines.h): columns of one line, or output channels.
TEST(BinaryConvFixed16, WhatIsNotFiniteDoesNotReachItsNeighbours) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t column = 0; column < 7; ++column)
    for (int64_t bad_image : {0, 1, 3}) {
      Case c({5, 2, 7, 9, 26, 3, 3, 1, 1}, 5);
      const int64_t bad_channel = (7 * bad_image + column) % 24;
      c.dz[bad_image * c.s.output_count(1) + column * c.s.K + bad_channel] = column % 2 ? nan : -inf;
      check(
          c, [&](int64_t image, int64_t k) { return image != bad_image && k != bad_channel; }, kNone);
      if (HasFatalFailure()) return;
    }
}

// With AVX2 the fields of a word are flushed before they could overflow (binary_conv_fixed16_lines.h). Here one column, and one
// output channel, fills its field with every round, and all others hardly at all.
TEST(BinaryConvFixed16, EachColumnAndChannelAloneCanFillItsField) {
  for (int64_t alone = 0; alone < 24; ++alone) {
    Case c({1, 8, 24, 9, 200, 3, 3, 1, 1}, 1);
    for (int64_t i = 0; i < c.dz.count(); ++i) c.dz[i] = i % c.s.K == alone || i / c.s.K % 24 == alone ? -1.0f : 0.0f;
    for (int64_t i = 0; i < c.w.count(); ++i) c.w[i] = 0x0F0;
    for (int64_t i = 0; i < c.x.count(); ++i) c.x[i] = 0x0F0;
    for (int64_t k = 0; k < c.s.K; ++k) c.alpha[k] = 1;
    check(c, kAll, kNone);
    if (HasFatalFailure()) return;
  }
}

TEST(BinaryConvFixed16, GroupsWithAFewHugeValuesGoThroughFloat32) {
  // 168,000 values of which one is 0.25 and the others 0 or 0.001: max / rms = 410 or 212.
  for (float other : {0.0f, 1e-3f}) {
    Case c({1, 420, 400, 3, 1, 1, 1, 1, 0}, 1);
    for (int64_t i = 0; i < c.dz.count(); ++i) c.dz[i] = other;
    c.dz[70000] = 0.25f;
    c.alpha[0] = 1;
    cpu::Context context(1, cpu::default_isa());
    const cpu::BinaryConvPlan plan = cpu::binary_conv_plan(context, c.s, kFixed16);
    Guarded<char> workspace(plan.workspace_bytes);
    Guarded<float> dx(c.s.input_count(1)), dw(c.dw_count);
    cpu::binary_conv_bwd_input(context, plan, dx.data(), c.dz.data(), c.alpha.data(), c.w.data(), 1, workspace.data());
    cpu::binary_conv_bwd_weight(context, plan, dw.data(), c.x.data(), c.dz.data(), 1, GradMode::kOverwrite, workspace.data());
    EXPECT_EQ(plan.fallbacks->load(), other == 0 ? 2 : 0);
    if (other == 0) {
      EXPECT_EQ(std::fabs(dx[70000 * 3]), 0.25f);
      EXPECT_EQ(std::fabs(dw[0]), 0.25f);
    }
    check(
        c, [&](int64_t, int64_t) { return other != 0; }, kNone);
    if (HasFatalFailure()) return;
  }
}

TEST(BinaryConvFixed16, OutputChannelsWithAFewHugeValuesGoThroughFloat32) {
  // 168,000 values of each channel: all 0.25, or one of them alone.
  Case c({1, 420, 400, 1, 18, 1, 1, 1, 0}, 1);
  auto huge = [](int64_t k) { return k == 3 || k == 6 || k == 17; };
  for (int64_t i = 0; i < c.dz.count(); ++i) c.dz[i] = huge(i % c.s.K) && i / c.s.K != 70000 ? 0 : 0.25f;
  check(
      c, [&](int64_t, int64_t k) { return !huge(k); }, kNone);
}

TEST(BinaryConvFixed16, LongestSumsFit) {
  // 65,536 terms of 32,767, all of one sign.
  Case input({1, 1, 2, 17, 65536, 1, 1, 1, 0}, 1);
  for (int64_t i = 0; i < input.dz.count(); ++i) input.dz[i] = -3.0f;
  for (int64_t k = 0; k < input.s.K; ++k) input.alpha[k] = 1;
  for (int64_t i = 0; i < input.w.count(); ++i) input.w[i] = 0x1FF00;
  check(input, kAll, kNone);
  // As many pixels as a slice may have, and one row more.
  for (int64_t rows : {256, 257}) {
    Case weight({1, rows, 256, 17, 2, 1, 1, 1, 0}, 1);
    for (int64_t i = 0; i < weight.dz.count(); ++i) weight.dz[i] = -3.0f;
    for (int64_t i = 0; i < weight.x.count(); ++i) weight.x[i] = 0x1FF00;
    check(weight, kAll, kNone);
  }
}

TEST(BinaryConvFixed16, ShapesWithLongerSumsStayFloat32) {
  for (const Conv2dShape& s : {Conv2dShape{1, 2, 2, 3, 7282, 3, 3, 1, 1}, Conv2dShape{1, 1, 65537, 2, 1, 1, 1, 1, 0}}) {
    SCOPED_TRACE(s.text());
    Case c(s, 1);
    cpu::Context context(1, cpu::default_isa());
    const cpu::BinaryConvPlan plan = cpu::binary_conv_plan(context, s, kFixed16), float32 = cpu::binary_conv_plan(context, s);
    Guarded<char> workspace(plan.workspace_bytes);
    Guarded<float> dx(s.input_count(1)), dx_float32(dx.count()), dw(c.dw_count), dw_float32(c.dw_count);
    for (const auto* p : {&plan, &float32}) {
      Guarded<float>&in = p == &plan ? dx : dx_float32, &weight = p == &plan ? dw : dw_float32;
      cpu::binary_conv_bwd_input(context, *p, in.data(), c.dz.data(), c.alpha.data(), c.w.data(), 1, workspace.data());
      cpu::binary_conv_bwd_weight(context, *p, weight.data(), c.x.data(), c.dz.data(), 1, GradMode::kOverwrite, workspace.data());
    }
    if (s.K > 1)
      expect_same_bits(dx, dx_float32, "dx");
    else
      expect_same_bits(dw, dw_float32, "dw");
    EXPECT_EQ(plan.fallbacks->load(), 0);
    workspace.expect_guards("workspace");
  }
}

}  // namespace bireal
