#include "ops/batch_norm/batch_norm.h"

#include <functional>

#include "ops/sign_pack/sign_pack.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

const float kNaN = std::numeric_limits<float>::quiet_NaN();
const double kEps = 1e-5;

// v as every type that an op takes; the integers are those of a 3x3 binary convolution unless `extreme`.
struct Values {
  DType type;
  Guarded<float> f32{0};
  Guarded<int16_t> i16{0};
  Guarded<int32_t> i32{0};

  Values(DType type, int64_t count, uint64_t seed, bool wild = false) : type(type) {
    if (type == DType::kF32) f32 = Guarded<float>(wild ? nasty_floats(count, seed, true) : random_floats(count, seed, 3.0f));
    if (type == DType::kI16) {
      i16 = Guarded<int16_t>(count);
      for (int64_t i = 0; i < count; ++i) i16[i] = int16_t(splitmix64(seed, uint64_t(i)) >> (wild ? 48 : 54)) - (wild ? 0 : 512);
    }
    if (type == DType::kI32) {
      i32 = Guarded<int32_t>(count);
      // wild: up to 2^24, so that 10,000 rows of squares stay below 2^63 and each is exact as a float
      for (int64_t i = 0; i < count; ++i)
        i32[i] = int32_t(splitmix64(seed, uint64_t(i)) >> (wild ? 39 : 50)) - (wild ? 1 << 24 : 8192);
    }
  }
  const void* data() const {
    return type == DType::kF32   ? static_cast<const void*>(f32.data())
           : type == DType::kI16 ? static_cast<const void*>(i16.data())
                                 : static_cast<const void*>(i32.data());
  }
  double at(int64_t i) const {
    return type == DType::kF32 ? double(f32[i]) : type == DType::kI16 ? double(i16[i]) : double(i32[i]);
  }
};

const char* type_name(DType type) { return type == DType::kF32 ? "f32" : type == DType::kI16 ? "i16" : "i32"; }

const std::vector<DType> kTypes = {DType::kF32, DType::kI16, DType::kI32};
const std::vector<int64_t> kRows = {2, 3, 17, 1031};
const std::vector<int64_t> kChannels = {1, 3, 31, 32, 33, 63, 64, 65, 200};

// Calls body(context, type, rows, C) for all of them.
void for_all(const std::function<void(cpu::Context&, DType, int64_t, int64_t)>& body) {
  for (auto& context : all_contexts())
    for (DType type : kTypes)
      for (int64_t rows : kRows)
        for (int64_t C : kChannels) {
          SCOPED_TRACE(context_name(*context) + " " + type_name(type) + "_rows" + std::to_string(rows) + "_C" +
                       std::to_string(C));
          body(*context, type, rows, C);
          if (::testing::Test::HasFatalFailure()) return;
        }
}

// Same bits, or a NaN on both sides: which of two NaN operands survives an addition is the compiler's choice.
template <class T>
void expect_same(const Guarded<T>& got, const Guarded<T>& expected, const char* what) {
  ASSERT_EQ(got.count(), expected.count());
  for (int64_t i = 0; i < got.count(); ++i)
    ASSERT_TRUE(std::memcmp(&got[i], &expected[i], sizeof(T)) == 0 || (got[i] != got[i] && expected[i] != expected[i]))
        << what << "[" << i << "]: got " << got[i] << ", expected " << expected[i];
  got.expect_guards(what);
}

// One normalisation as the layer does it, by the reference.
struct Forward {
  int64_t rows, C;
  Guarded<double> float_sums, stats, running_sums;
  Guarded<int64_t> integer_sums;
  Guarded<float> affine, y;

  Forward(const Values& v, int64_t rows, int64_t C, const float* alpha, const float* gamma, const float* beta)
      : rows(rows),
        C(C),
        float_sums(2 * C),
        stats(3 * C),
        running_sums(std::vector<double>(size_t(2 * C), 0.0)),
        integer_sums(2 * C),
        affine(2 * C),
        y(rows * C) {
    bool integer = v.type != DType::kF32;
    void* sums = integer ? static_cast<void*>(integer_sums.data()) : static_cast<void*>(float_sums.data());
    ref::batch_norm_sums(sums, v.data(), v.type, rows, C);
    ref::batch_norm_statistics(stats.data(), affine.data(), running_sums.data(), sums, integer, alpha, gamma, beta, rows, C,
                               kEps);
    ref::batch_norm_apply(y.data(), nullptr, {v.data(), v.type, affine.data(), nullptr, nullptr, nullptr}, rows, C);
    stats.expect_guards("stats"), affine.expect_guards("affine"), running_sums.expect_guards("running_sums");
  }
};

}  // namespace

TEST(BatchNormSums, HandWorked) {
  // Two channels, three rows: (1,-1), (2,0), (4,-3).
  Guarded<int16_t> v(std::vector<int16_t>{1, -1, 2, 0, 4, -3});
  Guarded<int64_t> sums(4);
  ref::batch_norm_sums(sums.data(), v.data(), DType::kI16, 3, 2);
  EXPECT_EQ(sums.values(), (std::vector<int64_t>{7, -4, 21, 10}));
  Guarded<float> x(std::vector<float>{1, -1, 2, 0, 4, -3});
  Guarded<double> real(4);
  ref::batch_norm_sums(real.data(), x.data(), DType::kF32, 3, 2);
  EXPECT_EQ(real.values(), (std::vector<double>{7, -4, 21, 10}));
}

TEST(BatchNormSums, EveryIsaMatchesRefToTheBit) {
  for_all([](cpu::Context& context, DType type, int64_t rows, int64_t C) {
    for (bool wild : {false, true}) {
      Values v(type, rows * C, 31, wild);
      Guarded<double> workspace(batch_norm_workspace_bytes(C) / 8), expected(2 * C), got(2 * C);
      if (type == DType::kF32) {
        ref::batch_norm_sums(expected.data(), v.data(), type, rows, C);
        cpu::batch_norm_sums(context, got.data(), v.data(), type, rows, C, workspace.data());
        expect_same(got, expected, "sums");
      } else {
        Guarded<int64_t> exact(2 * C), got_exact(2 * C);
        ref::batch_norm_sums(exact.data(), v.data(), type, rows, C);
        cpu::batch_norm_sums(context, got_exact.data(), v.data(), type, rows, C, workspace.data());
        expect_same_bits(got_exact, exact, "sums");
        got_exact.expect_guards("sums");
      }
      workspace.expect_guards("workspace");
    }
  });
}

TEST(BatchNormSums, ManyChannelsMatchRef) {
  for (auto& context : all_contexts())
    for (int64_t C : {2047, 2048}) {
      Values v(DType::kF32, 40 * C, 32);
      Guarded<double> workspace(batch_norm_workspace_bytes(C) / 8), expected(2 * C), got(2 * C);
      ref::batch_norm_sums(expected.data(), v.data(), v.type, 40, C);
      cpu::batch_norm_sums(*context, got.data(), v.data(), v.type, 40, C, workspace.data());
      expect_same(got, expected, "sums");
    }
}

TEST(BatchNormSums, TheMostNegativeInt16IsSummedExactly) {
  Guarded<int16_t> v(std::vector<int16_t>(size_t(5000 * 9), int16_t(-32768)));
  for (auto& context : all_contexts()) {
    Guarded<int64_t> sums(18), workspace(batch_norm_workspace_bytes(9) / 8);
    cpu::batch_norm_sums(*context, sums.data(), v.data(), DType::kI16, 5000, 9, workspace.data());
    for (int c = 0; c < 9; ++c) {
      EXPECT_EQ(sums[c], -5000ll * 32768);
      EXPECT_EQ(sums[9 + c], 5000ll * 32768 * 32768);
    }
  }
}

TEST(BatchNormStatistics, HandWorked) {
  // v = 1, 2, 6: mean 3, var 14/3; alpha 0.5, gamma 2, beta 1, by the formula of the header.
  Guarded<int64_t> sums(std::vector<int64_t>{9, 41});
  Guarded<double> stats(3), running(std::vector<double>{10, 20});
  Guarded<float> affine(2);
  float alpha = 0.5f, gamma = 2, beta = 1;
  ref::batch_norm_statistics(stats.data(), affine.data(), running.data(), sums.data(), true, &alpha, &gamma, &beta, 3, 1, 0.0);
  double invstd = 1 / std::sqrt(0.25 * 14 / 3);
  EXPECT_EQ(stats[0], 3);
  EXPECT_EQ(stats[1], 14.0 / 3);
  EXPECT_NEAR(stats[2], invstd, 1e-15);
  EXPECT_FLOAT_EQ(affine[0], float(invstd));
  EXPECT_FLOAT_EQ(affine[1], float(1 - 3 * invstd));
  EXPECT_DOUBLE_EQ(running[0], 10 + 0.5 * 3);
  EXPECT_DOUBLE_EQ(running[1], 20 + 0.25 * 7);  // 14/3 * 3/2
}

TEST(BatchNormStatistics, IntegerVarianceIsRoundedOnce) {
  // Oracle: 113-bit division, then one rounding (a double rounding would need 59 equal bits in a row).
  for (uint64_t k = 0; k < 20000; ++k) {
    int64_t m = 2 + int64_t(splitmix64(33, 3 * k) >> (33 + splitmix64(34, k) % 29));
    int most = 0;  // largest b with m (2^b)^2 < 2^62
    while (most < 20 && m < int64_t(1) << (62 - 2 * (most + 1))) ++most;
    int64_t limit = int64_t(1) << (splitmix64(35, k) % uint64_t(most + 1));  // |v| <= limit
    // Feasible sums: m S2 >= S1^2. S2 between S1^2/m (rounded up) and m limit^2.
    int64_t S1 = int64_t(splitmix64(33, 3 * k + 1) % uint64_t(2 * m * limit + 1)) - m * limit;
    __extension__ typedef __int128 int128;
    int64_t least = int64_t((int128(S1) * S1 + m - 1) / m);
    int64_t S2 = least + int64_t(splitmix64(33, 3 * k + 2) % uint64_t(m * limit * limit - least + 1));
    if (k % 3 == 0) S2 = least + int64_t(k % 2);
    Guarded<int64_t> sums(std::vector<int64_t>{S1, S2});
    Guarded<double> stats(3), running(std::vector<double>{0, 0});
    Guarded<float> affine(2);
    float one = 1;
    ref::batch_norm_statistics(stats.data(), affine.data(), running.data(), sums.data(), true, nullptr, &one, &one, m, 1, kEps);
    double expected = double(__float128(int128(m) * S2 - int128(S1) * S1) / __float128(int128(m) * m));
    ASSERT_EQ(stats[1], expected) << "m " << m << " S1 " << S1 << " S2 " << S2;
  }
}

TEST(BatchNormStatistics, ConstantInputHasNoNegativeVariance) {
  float one = 1, zero = 0;
  for (float constant : {0.1f, -3.3f, 1e6f, 1e-20f}) {
    Guarded<float> v(std::vector<float>(1000, constant)), affine(2);
    Guarded<double> sums(2), stats(3), running(std::vector<double>{0, 0});
    ref::batch_norm_sums(sums.data(), v.data(), DType::kF32, 1000, 1);
    ref::batch_norm_statistics(stats.data(), affine.data(), running.data(), sums.data(), false, nullptr, &one, &zero, 1000, 1,
                               kEps);
    EXPECT_GE(stats[1], 0);
    EXPECT_TRUE(std::isfinite(affine[0]) && std::isfinite(affine[1]));
  }
}

TEST(BatchNormStatistics, AnAllZeroFilterGivesBetaAndStillAGradient) {
  // alpha 0: z = 0 everywhere, y = beta; a = gamma/sqrt(eps), so dz = a (dy - mean dy): nothing divides by alpha.
  Values v(DType::kI16, 50, 36);
  float alpha = 0, gamma = 2, beta = -0.75f;
  Forward run(v, 50, 1, &alpha, &gamma, &beta);
  EXPECT_EQ(run.affine[0], 0);
  EXPECT_EQ(run.running_sums[0], 0);
  EXPECT_EQ(run.running_sums[1], 0);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(run.y[i], beta);
  Guarded<float> dy(random_floats(50, 37)), coefficients(3), dgamma(1), dbeta(1), dz(50);
  Guarded<double> sums(2);
  ref::batch_norm_bwd_sums(sums.data(), dy.data(), v.data(), v.type, 50, 1);
  ref::batch_norm_bwd_coefficients(coefficients.data(), dgamma.data(), dbeta.data(), sums.data(), run.stats.data(), &alpha,
                                   &gamma, 50, 1, GradMode::kOverwrite);
  ref::batch_norm_bwd_apply(dz.data(), dy.data(), v.data(), v.type, coefficients.data(), 50, 1);
  EXPECT_EQ(dgamma[0], 0);
  double a = 2 / std::sqrt(kEps);
  for (int i = 0; i < 50; ++i) EXPECT_NEAR(dz[i], a * (double(dy[i]) - sums[0] / 50), a * 1e-6) << i;
}

TEST(BatchNormStatistics, IntegerInputWithAlphaEqualsRealInputTimesAlpha) {
  // The sums of alpha * v round at 2^-24 an element, which moves mean and deviation by that much; y is then a product and a sum
  // of numbers up to |y| + |shift|: 4 roundings of 2^-24 times (|y| + |scale v| + |shift|) < 8 * 2^-24 * 20 < 1e-5.
  int64_t rows = 300, C = 33;
  Values v(DType::kI16, rows * C, 38);
  Guarded<float> alpha(C), gamma(random_floats(C, 39, 2.0f)), beta(random_floats(C, 40));
  for (int64_t c = 0; c < C; ++c) alpha[c] = 0.01f + 0.003f * float(c);
  Values z(DType::kF32, rows * C, 0);
  for (int64_t i = 0; i < rows * C; ++i) z.f32[i] = alpha[i % C] * float(v.at(i));
  Forward integer(v, rows, C, alpha.data(), gamma.data(), beta.data()), real(z, rows, C, nullptr, gamma.data(), beta.data());
  expect_within(integer.y, real.y, {1e-5}, "y");
  for (int64_t c = 0; c < 2 * C; ++c) {
    double tolerance = 1e-6 * (1 + std::fabs(real.running_sums[c]));
    EXPECT_NEAR(integer.running_sums[c], real.running_sums[c], tolerance) << c;
  }
}

TEST(BatchNormStatistics, RunningStatisticsEqualPyTorch) {
  // PyTorch: running = (1 - momentum) running + momentum batch, with var m/(m-1); here over three steps, in double beside it.
  int64_t rows = 20, C = 5;
  std::vector<float> ones(5, 1.0f), zeros(5, 0.0f);
  Guarded<float> mean(zeros), var(ones);
  std::vector<double> expected_mean(5, 0.0), expected_var(5, 1.0);
  double finite = 0;
  for (uint64_t step = 0; step < 3; ++step) {
    Values v(DType::kF32, rows * C, 41 + step);
    Forward run(v, rows, C, nullptr, ones.data(), zeros.data());
    ref::batch_norm_commit(mean.data(), var.data(), run.running_sums.data(), &finite, C, 1, 0.1);
    for (int64_t c = 0; c < C; ++c) {
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < rows; ++i) sum += v.at(i * C + c);
      for (int64_t i = 0; i < rows; ++i) squares += std::pow(v.at(i * C + c) - sum / double(rows), 2);
      expected_mean[size_t(c)] = 0.9 * expected_mean[size_t(c)] + 0.1 * sum / double(rows);
      expected_var[size_t(c)] = 0.9 * expected_var[size_t(c)] + 0.1 * squares / double(rows - 1);
      EXPECT_NEAR(mean[c], expected_mean[size_t(c)], 3e-7);  // a rounding to float each step, values below 4
      EXPECT_NEAR(var[c], expected_var[size_t(c)], 6e-7);
      EXPECT_EQ(run.running_sums[c], 0);
      EXPECT_EQ(run.running_sums[C + c], 0);
    }
  }
  mean.expect_guards("running_mean"), var.expect_guards("running_var");
}

TEST(BatchNormCommit, TakesTheMeanOverMicroBatches) {
  Guarded<float> mean(std::vector<float>{1}), var(std::vector<float>{2});
  Guarded<double> sums(std::vector<double>{8, 12});  // of 4 micro-batches: means 2 and 3
  double finite = 0;
  ref::batch_norm_commit(mean.data(), var.data(), sums.data(), &finite, 1, 4, 0.1);
  EXPECT_FLOAT_EQ(mean[0], 1.1f);
  EXPECT_FLOAT_EQ(var[0], 2.1f);
}

TEST(BatchNormCommit, IsSkippedWhileNonFiniteAndForgetsTheStep) {
  for (double flag : {1.0, -3.0, double(kNaN)}) {
    Guarded<float> mean(std::vector<float>{1}), var(std::vector<float>{2});
    Guarded<double> sums(std::vector<double>{double(kNaN), 12});
    ref::batch_norm_commit(mean.data(), var.data(), sums.data(), &flag, 1, 4, 0.1);
    EXPECT_EQ(mean[0], 1);
    EXPECT_EQ(var[0], 2);
    EXPECT_EQ(sums[0], 0);
    EXPECT_EQ(sums[1], 0);
  }
}

TEST(BatchNormInference, EqualsTheFormulaWithAndWithoutAlpha) {
  Guarded<float> mean(std::vector<float>{1, -2}), var(std::vector<float>{4, 9}), affine(4);
  Guarded<float> alpha(std::vector<float>{0.5f, 0}), gamma(std::vector<float>{3, 6}), beta(std::vector<float>{10, 20});
  ref::batch_norm_inference(affine.data(), mean.data(), var.data(), nullptr, gamma.data(), beta.data(), 2, 0.0);
  EXPECT_EQ(affine.values(), (std::vector<float>{1.5f, 2, 8.5f, 24}));
  ref::batch_norm_inference(affine.data(), mean.data(), var.data(), alpha.data(), gamma.data(), beta.data(), 2, 0.0);
  EXPECT_EQ(affine.values(), (std::vector<float>{0.75f, 0, 8.5f, 24}));
  affine.expect_guards("affine");
}

TEST(BatchNormRequireRows, OneValuePerChannelIsAnError) {
  EXPECT_NO_THROW(batch_norm_require_rows(2, "layer4.1.bn1"));
  try {
    batch_norm_require_rows(1, "layer4.1.bn1");
    ADD_FAILURE() << "accepted";
  } catch (const InvalidArgument& e) {
    EXPECT_STREQ(e.what(), "batch_norm: layer4.1.bn1 needs at least 2 values per channel for its statistics, got 1");
  }
}

TEST(BatchNormApply, HandWorkedWithShortcutAndSigns) {
  // Two channels, two rows; y = 2 v - 1 and -v + 0.5, plus the shortcut.
  Guarded<int16_t> v(std::vector<int16_t>{1, 1, -1, 0});
  Guarded<float> affine(std::vector<float>{2, -1, -1, 0.5f}), shortcut(std::vector<float>{-1, 0.5f, 3, -0.75f}), y(4);
  Guarded<float> shortcut_affine(std::vector<float>{2, 4, 1, 0}), threshold(std::vector<float>{-1, 0});
  Guarded<word_t> bits(2);
  BatchNormApply in{v.data(), DType::kI16, affine.data(), shortcut.data(), nullptr, nullptr};
  ref::batch_norm_apply(y.data(), bits.data(), in, 2, 2);
  EXPECT_EQ(y.values(), (std::vector<float>{0, 0, 0, -0.25f}));
  EXPECT_EQ(bits.values(), (std::vector<word_t>{0, 2}));
  in.threshold = threshold.data();
  ref::batch_norm_apply(y.data(), bits.data(), in, 2, 2);
  EXPECT_EQ(bits.values(), (std::vector<word_t>{1, 3}));
  in.shortcut_affine = shortcut_affine.data();
  ref::batch_norm_apply(y.data(), bits.data(), in, 2, 2);
  EXPECT_EQ(y.values(), (std::vector<float>{0, 1.5f, 4, -2.5f}));
}

TEST(BatchNormApply, EveryIsaMatchesRefForEveryCombination) {
  for_all([](cpu::Context& context, DType type, int64_t rows, int64_t C) {
    Values v(type, rows * C, 51, true);
    Guarded<float> affine(nasty_floats(2 * C, 52)), shortcut(nasty_floats(rows * C, 53, true));
    Guarded<float> shortcut_affine(nasty_floats(2 * C, 54)), threshold(nasty_floats(C, 55));
    Guarded<float> bias1(nasty_floats(C, 56)), slope(nasty_floats(C, 57)), bias2(nasty_floats(C, 58));
    for (int shortcut_kind : {0, 1, 2})
      for (int bits_kind : {0, 1, 2}) {
        bool rprelu = (shortcut_kind + bits_kind) % 2 == 0;  // each with and without in some combination
        BatchNormApply in{v.data(),
                          type,
                          affine.data(),
                          shortcut_kind > 0 ? shortcut.data() : nullptr,
                          shortcut_kind > 1 ? shortcut_affine.data() : nullptr,
                          bits_kind > 1 ? threshold.data() : nullptr,
                          rprelu ? bias1.data() : nullptr,
                          rprelu ? slope.data() : nullptr,
                          rprelu ? bias2.data() : nullptr};
        Guarded<float> expected(rows * C), got(rows * C);
        Guarded<word_t> expected_bits(rows * word_count(C)), got_bits(rows * word_count(C));
        ref::batch_norm_apply(expected.data(), bits_kind ? expected_bits.data() : nullptr, in, rows, C);
        cpu::batch_norm_apply(context, got.data(), bits_kind ? got_bits.data() : nullptr, in, rows, C);
        expect_same(got, expected, "y");
        expect_same_bits(got_bits, expected_bits, "bits");
        got_bits.expect_guards("bits");
        if (shortcut_kind > 0 && bits_kind == 1) {  // y in place of the shortcut
          Guarded<float> in_place(shortcut.values());
          in.shortcut = in_place.data();
          cpu::batch_norm_apply(context, in_place.data(), got_bits.data(), in, rows, C);
          expect_same(in_place, expected, "y in place of the shortcut");
          expect_same_bits(got_bits, expected_bits, "bits of y in place of the shortcut");
        }
        if (HasFatalFailure()) return;
      }
  });
}

TEST(BatchNormApply, HandWorkedRPReluThenSigns) {
  // One channel; z = 2 v + shortcut = 3, 0, -4; w = z - 1 = 2, -1, -5; y = w or w / 4, + 0.5; sign of y - 0.125.
  Guarded<int16_t> v(std::vector<int16_t>{1, 0, -1});
  Guarded<float> affine(std::vector<float>{2, 0}), shortcut(std::vector<float>{1, 0, -2}), y(3);
  float threshold = -0.25f, bias1 = -1, slope = 0.25f, bias2 = 0.5f;
  Guarded<word_t> bits(3);
  BatchNormApply in{v.data(), DType::kI16, affine.data(), shortcut.data(), nullptr, &threshold, &bias1, &slope, &bias2};
  ref::batch_norm_apply(y.data(), bits.data(), in, 3, 1);
  EXPECT_EQ(y.values(), (std::vector<float>{2.5f, 0.25f, -0.75f}));
  EXPECT_EQ(bits.values(), (std::vector<word_t>{0, 0, 1}));
}

TEST(BatchNormRPReluBwd, HandWorkedAlsoAccumulating) {
  // As above, dy = 4, 8, 12: dz = 4, 2, 3; B1 = 9, B2 = 4 - 3 = 1; dslope = 8 (-1) + 12 (-5); dbias2 = 24.
  Guarded<int16_t> v(std::vector<int16_t>{1, 0, -1});
  Guarded<float> affine(std::vector<float>{2, 0}), shortcut(std::vector<float>{1, 0, -2}), dy(std::vector<float>{4, 8, 12}),
      dz(3);
  float bias1 = -1, slope = 0.25f, bias2 = 0.5f, dbias1 = 100, dslope = 200, dbias2 = 300;
  Guarded<double> sums(2);
  BatchNormApply in{v.data(), DType::kI16, affine.data(), shortcut.data(), nullptr, nullptr, &bias1, &slope, &bias2};
  ref::batch_norm_rprelu_bwd(dz.data(), sums.data(), &dbias1, &dslope, &dbias2, dy.data(), in, 3, 1, GradMode::kAccumulate);
  EXPECT_EQ(dz.values(), (std::vector<float>{4, 2, 3}));
  EXPECT_EQ(sums.values(), (std::vector<double>{9, 1}));
  EXPECT_EQ(std::vector<float>({dbias1, dslope, dbias2}), (std::vector<float>{109, 132, 324}));
  ref::batch_norm_rprelu_bwd(dz.data(), sums.data(), &dbias1, &dslope, &dbias2, dy.data(), in, 3, 1, GradMode::kOverwrite);
  EXPECT_EQ(std::vector<float>({dbias1, dslope, dbias2}), (std::vector<float>{9, -68, 24}));
}

TEST(BatchNormRPReluBwd, EveryIsaMatchesRefToTheBitAlsoInPlace) {
  for_all([](cpu::Context& context, DType type, int64_t rows, int64_t C) {
    Values v(type, rows * C, 81, true);
    bool non_finite = rows == 17;
    Guarded<float> affine(nasty_floats(2 * C, 82)), shortcut(nasty_floats(rows * C, 83, non_finite));
    Guarded<float> shortcut_affine(nasty_floats(2 * C, 84)), dy(nasty_floats(rows * C, 85, non_finite));
    Guarded<float> bias1(nasty_floats(C, 86)), slope(nasty_floats(C, 87)), bias2(nasty_floats(C, 88));
    for (int shortcut_kind : {0, 1, 2}) {
      BatchNormApply in{v.data(),
                        type,
                        affine.data(),
                        shortcut_kind > 0 ? shortcut.data() : nullptr,
                        shortcut_kind > 1 ? shortcut_affine.data() : nullptr,
                        nullptr,
                        bias1.data(),
                        slope.data(),
                        bias2.data()};
      GradMode mode = shortcut_kind == 1 ? GradMode::kAccumulate : GradMode::kOverwrite;
      Guarded<float> dz[2] = {Guarded<float>(rows * C), Guarded<float>(dy.values())};
      Guarded<float> small[2] = {random_floats(3 * C, 89), random_floats(3 * C, 89)};
      Guarded<double> workspace(batch_norm_workspace_bytes(C) / 8), expected(2 * C), got(2 * C);
      ref::batch_norm_rprelu_bwd(dz[0].data(), expected.data(), small[0].data(), small[0].data() + C, small[0].data() + 2 * C,
                                 dy.data(), in, rows, C, mode);
      cpu::batch_norm_rprelu_bwd(context, dz[1].data(), got.data(), small[1].data(), small[1].data() + C, small[1].data() + 2 * C,
                                 dz[1].data(), in, rows, C, mode, workspace.data());
      expect_same(dz[1], dz[0], "dz in place of dy");
      expect_same(got, expected, "sums");
      expect_same(small[1], small[0], "dbias1, dslope, dbias2");
      workspace.expect_guards("workspace");
      if (HasFatalFailure()) return;
    }
  });
}

TEST(BatchNormRPReluBwd, MatchesFiniteDifferencesOfTheFormulaInDouble) {
  // loss = sum dy y(z, bias1, slope, bias2), y written out in double; z moves through the shortcut. Piecewise linear in each, and
  // no w is within h of the kink, so only rounding remains: sums of 8 products below 2 in float, 8 * 2 * 2^-24 < 1e-6.
  const int64_t rows = 8, C = 3;
  Values v(DType::kF32, rows * C, 91);
  Guarded<float> affine(random_floats(2 * C, 92)), shortcut(random_floats(rows * C, 93)), dy(random_floats(rows * C, 94));
  Guarded<float> bias1(random_floats(C, 95)), slope(random_floats(C, 96)), bias2(random_floats(C, 97)), dz(rows * C);
  std::vector<double> t, b1, s, b2;
  for (int64_t j = 0; j < rows * C; ++j) t.push_back(double(shortcut[j]));
  for (int64_t c = 0; c < C; ++c) b1.push_back(double(bias1[c])), s.push_back(double(slope[c])), b2.push_back(double(bias2[c]));
  const double h = 1e-5;
  auto difference = [&](std::vector<double>& of, size_t at) {
    double was = of[at], loss[2] = {0, 0};
    for (int side = 0; side < 2; ++side) {
      of[at] = side ? was + h : was - h;
      for (int64_t j = 0; j < rows * C; ++j) {
        size_t c = size_t(j % C);
        double w = double(affine[j % C]) * v.at(j) + double(affine[C + j % C]) + t[size_t(j)] + b1[c];
        EXPECT_GT(std::fabs(w), 2 * h) << "at the kink";
        loss[side] += double(dy[j]) * ((w > 0 ? w : s[c] * w) + b2[c]);
      }
    }
    of[at] = was;
    return (loss[1] - loss[0]) / (2 * h);
  };
  Guarded<double> sums(2 * C);
  Guarded<float> dbias1(C), dslope(C), dbias2(C);
  BatchNormApply in{v.data(), v.type, affine.data(), shortcut.data(), nullptr, nullptr, bias1.data(), slope.data(), bias2.data()};
  ref::batch_norm_rprelu_bwd(dz.data(), sums.data(), dbias1.data(), dslope.data(), dbias2.data(), dy.data(), in, rows, C,
                             GradMode::kOverwrite);
  for (int64_t j = 0; j < rows * C; ++j) EXPECT_NEAR(dz[j], difference(t, size_t(j)), 1e-6) << j;
  for (int64_t c = 0; c < C; ++c) {
    EXPECT_NEAR(dbias1[c], difference(b1, size_t(c)), 1e-6) << c;
    EXPECT_NEAR(dslope[c], difference(s, size_t(c)), 5e-6) << c;  // w up to 5
    EXPECT_NEAR(dbias2[c], difference(b2, size_t(c)), 1e-6) << c;
  }
}

TEST(BatchNormBwdSums, HandWorked) {
  Guarded<float> dy(std::vector<float>{1, 2, 3, -4}), v(std::vector<float>{0.5f, -1, 2, 0.25f});
  Guarded<double> sums(4);
  ref::batch_norm_bwd_sums(sums.data(), dy.data(), v.data(), DType::kF32, 2, 2);
  EXPECT_EQ(sums.values(), (std::vector<double>{4, -2, 6.5, -3}));
}

TEST(BatchNormBwdSums, EveryIsaMatchesRefToTheBit) {
  for_all([](cpu::Context& context, DType type, int64_t rows, int64_t C) {
    Values v(type, rows * C, 61, true);
    Guarded<float> dy(nasty_floats(rows * C, 62));
    Guarded<double> workspace(batch_norm_workspace_bytes(C) / 8), expected(2 * C), got(2 * C);
    ref::batch_norm_bwd_sums(expected.data(), dy.data(), v.data(), type, rows, C);
    cpu::batch_norm_bwd_sums(context, got.data(), dy.data(), v.data(), type, rows, C, workspace.data());
    expect_same(got, expected, "sums");
    workspace.expect_guards("workspace");
  });
}

TEST(BatchNormBwdApply, EveryIsaMatchesRefAlsoInPlace) {
  for_all([](cpu::Context& context, DType type, int64_t rows, int64_t C) {
    Values v(type, rows * C, 63, true);
    Guarded<float> dy(nasty_floats(rows * C, 64, true)), coefficients(nasty_floats(3 * C, 65));
    Guarded<float> expected(rows * C), got(rows * C), in_place(dy.values());
    ref::batch_norm_bwd_apply(expected.data(), dy.data(), v.data(), type, coefficients.data(), rows, C);
    cpu::batch_norm_bwd_apply(context, got.data(), dy.data(), v.data(), type, coefficients.data(), rows, C);
    cpu::batch_norm_bwd_apply(context, in_place.data(), in_place.data(), v.data(), type, coefficients.data(), rows, C);
    expect_same(got, expected, "dz");
    expect_same(in_place, expected, "dz in place of dy");
  });
}

TEST(BatchNormBwdCoefficients, AccumulateAddsTheCompleteGradientOnce) {
  Guarded<double> sums(std::vector<double>{3, 5}), stats(std::vector<double>{0.5, 2, 0.25});
  Guarded<float> coefficients(3), dgamma(std::vector<float>{10}), dbeta(std::vector<float>{20});
  float gamma = 2;
  auto run = [&](GradMode mode) {
    ref::batch_norm_bwd_coefficients(coefficients.data(), dgamma.data(), dbeta.data(), sums.data(), stats.data(), nullptr, &gamma,
                                     4, 1, mode);
  };
  // G = 0.25 (5 - 0.5 3) = 0.875; a = 0.5, b = -0.5 0.25 0.875 / 4, c = -0.5 3 / 4 - b 0.5
  run(GradMode::kAccumulate);
  EXPECT_EQ(dgamma[0], 10.875f);
  EXPECT_EQ(dbeta[0], 23);
  run(GradMode::kOverwrite);
  EXPECT_EQ(dgamma[0], 0.875f);
  EXPECT_EQ(dbeta[0], 3);
  EXPECT_EQ(coefficients.values(), (std::vector<float>{0.5f, -0.02734375f, -0.361328125f}));
}

TEST(BatchNormGradient, MatchesFiniteDifferencesOfTheFormulaInDouble) {
  // loss = sum dy y(v, gamma, beta), with y written out in double here: an oracle of the forward pass as well.
  int64_t rows = 7, C = 3;
  for (bool with_alpha : {false, true}) {
    Guarded<float> alpha(std::vector<float>{0.5f, 0.02f, 1.5f}), gamma(std::vector<float>{1, -0.5f, 2}),
        beta(random_floats(C, 71));
    Values v(DType::kF32, rows * C, 72);
    Guarded<float> dy(random_floats(rows * C, 73));
    const float* al = with_alpha ? alpha.data() : nullptr;

    auto forward = [&](const std::vector<double>& x, const std::vector<double>& g, const std::vector<double>& b, int64_t j) {
      int64_t c = j % C;
      double mean = 0, var = 0, a = al ? double(al[c]) : 1;
      for (int64_t i = 0; i < rows; ++i) mean += a * x[size_t(i * C + c)] / double(rows);
      for (int64_t i = 0; i < rows; ++i) var += std::pow(a * x[size_t(i * C + c)] - mean, 2) / double(rows);
      return g[size_t(c)] * (a * x[size_t(j)] - mean) / std::sqrt(var + kEps) + b[size_t(c)];
    };
    std::vector<double> x, g, b;
    for (int64_t i = 0; i < rows * C; ++i) x.push_back(v.at(i));
    for (int64_t c = 0; c < C; ++c) g.push_back(double(gamma[c])), b.push_back(double(beta[c]));
    auto difference = [&](std::vector<double>& of, size_t at) {
      double was = of[at], h = 1e-4, loss[2] = {0, 0};
      for (int side = 0; side < 2; ++side) {
        of[at] = side ? was + h : was - h;
        for (int64_t j = 0; j < rows * C; ++j) loss[side] += double(dy[j]) * forward(x, g, b, j);
      }
      of[at] = was;
      return (loss[1] - loss[0]) / (2 * h);
    };

    Forward run(v, rows, C, al, gamma.data(), beta.data());
    for (int64_t j = 0; j < rows * C; ++j) EXPECT_NEAR(run.y[j], forward(x, g, b, j), 2e-6) << j;  // |y| < 6: 5 roundings
    Guarded<double> sums(2 * C);
    Guarded<float> coefficients(3 * C), dgamma(C), dbeta(C), dz(rows * C);
    ref::batch_norm_bwd_sums(sums.data(), dy.data(), v.data(), v.type, rows, C);
    ref::batch_norm_bwd_coefficients(coefficients.data(), dgamma.data(), dbeta.data(), sums.data(), run.stats.data(), al,
                                     gamma.data(), rows, C, GradMode::kOverwrite);
    ref::batch_norm_bwd_apply(dz.data(), dy.data(), v.data(), v.type, coefficients.data(), rows, C);
    coefficients.expect_guards("coefficients"), dgamma.expect_guards("dgamma"), dbeta.expect_guards("dbeta");
    for (int64_t c = 0; c < C; ++c) {
      EXPECT_NEAR(dgamma[c], difference(g, size_t(c)), 1e-6) << c;  // linear in both; |G| < 7 rounded to float
      EXPECT_NEAR(dbeta[c], difference(b, size_t(c)), 1e-6) << c;
    }
    for (int64_t j = 0; j < rows * C; ++j) {
      double a = al ? double(al[j % C]) : 1;  // dv = alpha dz
      // h^2/6 times a third derivative of about |gamma| (alpha invstd)^3 < 30, and float roundings of a, b, c, dz.
      EXPECT_NEAR(a * double(dz[j]), difference(x, size_t(j)), 1e-6 * (1 + std::fabs(a * double(coefficients[j % C])))) << j;
    }
  }
}

}  // namespace bireal
