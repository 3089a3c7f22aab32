#include "ops/weight_binarize/weight_binarize.h"

#include <algorithm>

#include "core/error.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

constexpr WeightGradient kRules[] = {WeightGradient::kClipped, WeightGradient::kMagnitudeAware, WeightGradient::kStraightThrough,
                                     WeightGradient::kXnor};

// Weights in range (|w| < 2^9), with the special values of nasty_floats but for its large ones.
static std::vector<float> weights(int64_t count, uint64_t seed) {
  std::vector<float> values = nasty_floats(count, seed);
  for (float& v : values) v = std::max(-511.0f, std::min(511.0f, v));
  return values;
}

TEST(WeightBinarizeFwd, HandWorkedFilters) {
  // Two filters of 1 tap, 4 channels. Only w < 0 sets a bit: -0 and the zeros are +1.
  Guarded<float> w(std::vector<float>{0.5f, -1.5f, -0.0f, 2.0f, 0.0f, 0.0f, -0.0f, 0.0f}), alpha(2);
  Guarded<word_t> bits(2);
  ref::weight_binarize_fwd(bits.data(), alpha.data(), w.data(), 2, 1, 4);
  EXPECT_EQ(bits[0], 0b0010u);
  EXPECT_EQ(bits[1], 0u);
  EXPECT_EQ(alpha[0], 1.0f);
  EXPECT_EQ(alpha[1], 0.0f) << "an all-zero filter has scale 0";
}

TEST(WeightBinarizeFwd, TiesRoundToEven) {
  // |w| 2^40 = 0.5, 1.5, 2.5 -> 0, 2, 2 -> mean 4/3 * 2^-40.
  for (auto& context : all_contexts()) {
    SCOPED_TRACE(context_name(*context));
    std::vector<float> values(96, 0.0f);  // 3 filters of 32: the vector paths are taken
    values[0] = 0x1p-41f, values[32] = 0x3p-41f, values[64] = -0x5p-41f;
    Guarded<float> w(values), alpha(3);
    Guarded<word_t> bits(3);
    cpu::weight_binarize_fwd(*context, bits.data(), alpha.data(), w.data(), 3, 1, 32);
    EXPECT_EQ(alpha[0], 0.0f);
    EXPECT_EQ(alpha[1], 0x1p-44f);  // 2 * 2^-40 / 32
    EXPECT_EQ(alpha[2], 0x1p-44f);
  }
}

TEST(WeightBinarizeFwd, ScaleIsTheMeanMagnitude) {
  const int64_t K = 5, taps = 9, C = 65;
  Guarded<float> w(random_floats(K * taps * C, 3, 0.05f)), alpha(K);
  Guarded<word_t> bits(K * taps * word_count(C));
  ref::weight_binarize_fwd(bits.data(), alpha.data(), w.data(), K, taps, C);
  for (int64_t k = 0; k < K; ++k) {
    double mean = 0;
    for (int64_t i = 0; i < taps * C; ++i) mean += std::fabs(double(w[k * taps * C + i])) / double(taps * C);
    EXPECT_NEAR(alpha[k], mean, 0x1p-41 + 0x1p-24 * mean);  // rounding of the integers, and of alpha
  }
}

TEST(WeightBinarizeFwd, EveryIsaMatchesRefToTheBit) {
  for (auto& context : all_contexts())
    for (int64_t C : nasty_channels())
      for (int64_t taps : {1, 9, 49})
        for (int64_t K : {1, 17, 100}) {
          SCOPED_TRACE(context_name(*context) + " K" + std::to_string(K) + "_taps" + std::to_string(taps) + "_C" +
                       std::to_string(C));
          Guarded<float> w(weights(K * taps * C, 7)), expected_alpha(K), alpha(K);
          Guarded<word_t> expected(K * taps * word_count(C)), bits(K * taps * word_count(C));
          ref::weight_binarize_fwd(expected.data(), expected_alpha.data(), w.data(), K, taps, C);
          cpu::weight_binarize_fwd(*context, bits.data(), alpha.data(), w.data(), K, taps, C);
          expect_same_bits(bits, expected, "bits");
          expect_same_bits(alpha, expected_alpha, "alpha");
          bits.expect_guards("bits");
          alpha.expect_guards("alpha");
        }
}

TEST(WeightBinarizeFwd, WeightsOutOfRangePoisonTheirFilterOnly) {
  const int64_t K = 3, taps = 2, C = 33;
  const float bad[] = {512.0f, -512.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(),
                       -std::numeric_limits<float>::quiet_NaN()};
  for (auto& context : all_contexts())
    for (float value : bad)
      for (int64_t at : {0, 20, 32, 65}) {  // in a whole word, and in a tail
        SCOPED_TRACE(context_name(*context) + " value " + std::to_string(value) + " at " + std::to_string(at));
        Guarded<float> w(std::vector<float>(size_t(K * taps * C), -0.25f)), alpha(K), ref_alpha(K);
        w[taps * C + at] = value;
        Guarded<word_t> bits(K * taps * 2), ref_bits(K * taps * 2);
        cpu::weight_binarize_fwd(*context, bits.data(), alpha.data(), w.data(), K, taps, C);
        EXPECT_EQ(alpha[0], 0.25f);
        EXPECT_TRUE(std::isnan(alpha[1]));
        EXPECT_EQ(alpha[2], 0.25f);
        ref::weight_binarize_fwd(ref_bits.data(), ref_alpha.data(), w.data(), K, taps, C);
        EXPECT_TRUE(std::isnan(ref_alpha[1]));
        expect_same_bits(bits, ref_bits, "bits");
      }
  // Just below the limit is fine, and 2^14 - 1 such values do not overflow the sum.
  const int64_t many = (1 << 14) - 1;
  const float limit = std::nextafter(512.0f, 0.0f);
  for (auto& context : all_contexts()) {
    Guarded<float> w(std::vector<float>(size_t(many), limit)), alpha(1);
    Guarded<word_t> bits(word_count(many));
    cpu::weight_binarize_fwd(*context, bits.data(), alpha.data(), w.data(), 1, 1, many);
    EXPECT_EQ(alpha[0], limit);
  }
}

TEST(WeightBinarizeCheck, RejectsBadShapesWithTheirNumbers) {
  weight_binarize_check(1, 9, 1820);
  auto message = [](int64_t K, int64_t taps, int64_t C) -> std::string {
    try {
      weight_binarize_check(K, taps, C);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message(0, 9, 64), "weight_binarize: K, taps and C must be >= 1, got K 0, taps 9, C 64");
  EXPECT_EQ(message(4, 9, 1821), "weight_binarize: taps*C must be < 2^14, got K 4, taps 9, C 1821");
}

TEST(WeightGradientBwd, HandWorkedRules) {
  // One filter of 4 weights, alpha 0.5, n = 4; |w| = 1 is inside for kClipped and kXnor, outside for kMagnitudeAware.
  Guarded<float> w(std::vector<float>{0.5f, -1.0f, 1.25f, std::numeric_limits<float>::quiet_NaN()});
  Guarded<float> alpha(std::vector<float>{0.5f});
  auto run = [&](WeightGradient rule) {
    Guarded<float> g(std::vector<float>{8, -8, -8, 8});
    ref::weight_gradient(g.data(), w.data(), alpha.data(), 1, 1, 4, rule);
    return g.values();
  };
  EXPECT_EQ(run(WeightGradient::kClipped), (std::vector<float>{8, -8, 0, 0}));
  EXPECT_EQ(run(WeightGradient::kMagnitudeAware), (std::vector<float>{4, 0, 0, 0}));
  EXPECT_EQ(run(WeightGradient::kStraightThrough), (std::vector<float>{8, -8, -8, 8}));
  EXPECT_EQ(run(WeightGradient::kXnor), (std::vector<float>{6, -6, -2, 2}));
}

TEST(WeightGradientBwd, EveryIsaMatchesRefToTheBit) {
  for (auto& context : all_contexts())
    for (int64_t C : nasty_channels())
      for (int64_t K : {1, 17, 100})
        for (WeightGradient rule : kRules) {
          SCOPED_TRACE(context_name(*context) + " K" + std::to_string(K) + "_C" + std::to_string(C) + "_rule" +
                       std::to_string(int(rule)));
          const int64_t taps = 9, count = K * taps * C;
          Guarded<float> w(nasty_floats(count, 1, true)), alpha(random_floats(K, 2));
          Guarded<float> expected(nasty_floats(count, 3)), got(expected.values());
          ref::weight_gradient(expected.data(), w.data(), alpha.data(), K, taps, C, rule);
          cpu::weight_gradient(*context, got.data(), w.data(), alpha.data(), K, taps, C, rule);
          expect_same_bits(got, expected, "g");
          got.expect_guards("g");
        }
}

}  // namespace bireal
