#include "ops/batch_norm/batch_norm_max_pool.h"

#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool_rows.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

static const float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

static void expect_same(const Guarded<float>& got, const Guarded<float>& expected, const char* what) {
  ASSERT_EQ(got.count(), expected.count());
  for (int64_t i = 0; i < got.count(); ++i)
    ASSERT_TRUE(std::memcmp(&got[i], &expected[i], 4) == 0 || (std::isnan(got[i]) && std::isnan(expected[i])))
        << what << "[" << i << "]: got " << got[i] << ", expected " << expected[i];
  got.expect_guards(what);
}

namespace {

struct Window {
  int64_t n, H, W, R, S, stride, pad;
};

// The stem's window, overlapping and gapped ones, odd sizes with unused last rows, one row, mostly padding.
constexpr Window kWindows[] = {{2, 8, 8, 3, 3, 2, 1}, {1, 7, 9, 3, 3, 2, 1}, {2, 17, 33, 3, 3, 2, 1}, {3, 6, 4, 2, 2, 2, 0},
                               {1, 1, 1, 1, 1, 1, 0}, {2, 5, 6, 3, 2, 1, 1}, {1, 9, 8, 2, 1, 3, 0},   {1, 1, 40, 1, 5, 2, 0},
                               {2, 4, 4, 4, 4, 1, 3}, {1, 9, 7, 7, 5, 2, 3}, {5, 7, 7, 7, 7, 7, 0},   {1, 17, 15, 15, 15, 2, 7}};
constexpr int64_t kChannels[] = {1, 3, 8, 15, 16, 31, 32, 33, 40, 63, 64, 65};

// Of both signs, with 0, -0 and NaN.
std::vector<float> gamma_of(int64_t C) {
  std::vector<float> gamma = random_floats(C, 71);
  for (int64_t c = 0; c < C; ++c) {
    if (c % 5 == 1) gamma[size_t(c)] = 0;
    if (c % 5 == 2) gamma[size_t(c)] = -std::fabs(gamma[size_t(c)]);
    if (c % 13 == 7) gamma[size_t(c)] = -0.0f;
    if (c % 17 == 4) gamma[size_t(c)] = kNaN;
  }
  return gamma;
}

// One window of `v`, each channel its own gamma, on the reference and on every instruction set, which has the channels 16 times.
void expect_winners(const std::vector<float>& v, const std::vector<float>& gamma, const std::vector<float>& vmax,
                    const std::vector<int>& index) {
  const int64_t taps = int64_t(v.size()), C = int64_t(gamma.size()), many = 16 * C;
  std::vector<float> wide_v, wide_gamma;
  for (float value : v) wide_v.insert(wide_v.end(), size_t(many), value);
  for (float value : gamma) wide_gamma.insert(wide_gamma.end(), 16, value);
  const Conv2dShape shape{1, 1, taps, many, many, 1, taps, 1, 0};
  for (auto& context : all_contexts())
    for (bool reference : {true, false}) {
      SCOPED_TRACE(reference ? "reference" : context_name(*context));
      Guarded<float> got(many);
      Guarded<uint8_t> where(many);
      if (reference)
        ref::batch_norm_max_pool_fwd(got.data(), where.data(), nullptr, wide_v.data(), wide_gamma.data(), shape, 1);
      else
        cpu::batch_norm_max_pool_fwd(*context, got.data(), where.data(), nullptr, wide_v.data(), wide_gamma.data(), shape, 1,
                                     nullptr);
      for (int64_t c = 0; c < many; ++c) {
        SCOPED_TRACE("gamma " + std::to_string(wide_gamma[size_t(c)]));
        const float expected = vmax[size_t(c / 16)];
        EXPECT_TRUE(std::memcmp(&got[c], &expected, 4) == 0 || (std::isnan(got[c]) && std::isnan(expected)))
            << got[c] << " instead of " << expected;
        EXPECT_EQ(where[c], index[size_t(c / 16)]);
      }
    }
}

}  // namespace

TEST(BatchNormMaxPoolFwd, HandWorkedWindowsWithPadding) {
  // 3x3 stride 2 pad 1 over 3x3: four corners of 2x2 taps. Padding is skipped, so all-negative windows stay negative.
  const Conv2dShape shape{1, 3, 3, 1, 1, 3, 3, 2, 1};
  const std::vector<float> v = {-5, -2, -7, -2, -9, -4, -1, -6, -3};
  float vmax[4], gamma = 1;
  uint8_t index[4];
  double sums[2];
  ref::batch_norm_max_pool_fwd(vmax, index, sums, v.data(), &gamma, shape, 1);
  EXPECT_EQ(std::vector<float>(vmax, vmax + 4), (std::vector<float>{-2, -2, -1, -3}));
  // Taps r*3+s inside each window; the tie of the first (-2 at (0,1) and at (1,0)) goes to the earlier.
  EXPECT_EQ(std::vector<int>(index, index + 4), (std::vector<int>{5, 3, 4, 4}));
  EXPECT_EQ(std::vector<double>(sums, sums + 2), (std::vector<double>{-39, 225}));
}

TEST(BatchNormMaxPoolFwd, TheSignOfGammaPicksTheGreatestTheLeastOrTheFirst) {
  const std::vector<float> gamma = {1, -1, 0, -0.0f, 0x1p-149f, -0x1p-149f, kNaN};
  expect_winners({2, 1, 3}, gamma, {3, 1, 2, 2, 3, 1, 3}, {2, 1, 0, 0, 2, 1, 2});
  // Of equals the first, of either sign; -0 and +0 are equal.
  expect_winners({1, 3, 3, 1}, gamma, {3, 1, 1, 1, 3, 1, 3}, {1, 0, 0, 0, 1, 0, 1});
  expect_winners({-0.0f, 0.0f, -0.0f}, gamma, std::vector<float>(7, -0.0f), std::vector<int>(7, 0));
  expect_winners({0.0f, -0.0f}, gamma, std::vector<float>(7, 0.0f), std::vector<int>(7, 0));
  // Values that a normalisation with a small scale rounds to the same y are not equal here: the greater v wins, not the first.
  expect_winners({1, 1 + 0x1p-23f, 1}, gamma, {1 + 0x1p-23f, 1, 1, 1, 1 + 0x1p-23f, 1, 1 + 0x1p-23f}, {1, 0, 0, 0, 1, 0, 1});
}

TEST(BatchNormMaxPoolFwd, TheFirstNaNWinsButOfGammaZero) {
  const std::vector<float> gamma = {1, -1, 0};
  expect_winners({1, kNaN, kInf, kNaN, -kInf}, gamma, {kNaN, kNaN, 1}, {1, 1, 0});
  expect_winners({kNaN, 5, -6, kNaN}, gamma, {kNaN, kNaN, kNaN}, {0, 0, 0});
  expect_winners({2, kInf, kInf, -kInf, -kInf}, gamma, {kInf, -kInf, 2}, {1, 3, 0});
  expect_winners({-kInf, -kInf}, gamma, {-kInf, -kInf, -kInf}, {0, 0, 0});
}

TEST(BatchNormMaxPoolFwd, NormalisedItIsTheMaximumOfTheNormalisedValues) {
  // fma rounds monotonically, so y is the same to the bit.
  for (const Window& k : kWindows) {
    const int64_t C = 33;
    const Conv2dShape shape{k.n, k.H, k.W, C, C, k.R, k.S, k.stride, k.pad};
    SCOPED_TRACE(shape.text());
    std::vector<float> v = nasty_floats(shape.input_count(k.n), 43), affine = random_floats(2 * C, 44, 1.5f);
    for (int64_t c = 0; c < C; ++c)
      if (c % 5 == 1) affine[size_t(c)] = 0;
    std::vector<float> vmax(size_t(shape.output_count(k.n))), y(vmax.size()), z(v.size());
    std::vector<uint8_t> index(vmax.size());
    ref::batch_norm_max_pool_fwd(vmax.data(), index.data(), nullptr, v.data(), affine.data(), shape, k.n);
    ref::batch_norm_apply(y.data(), nullptr, {vmax.data(), DType::kF32, affine.data(), nullptr, nullptr, nullptr},
                          int64_t(y.size()) / C, C);
    ref::batch_norm_apply(z.data(), nullptr, {v.data(), DType::kF32, affine.data(), nullptr, nullptr, nullptr},
                          int64_t(z.size()) / C, C);
    for (int64_t j = 0; j < int64_t(y.size()); ++j) {
      const int64_t c = j % C, q = j / C % shape.Q(), p = j / C / shape.Q() % shape.P(), i = j / C / shape.Q() / shape.P();
      float greatest = -kInf;
      for (int64_t h = std::max<int64_t>(0, p * k.stride - k.pad); h < std::min(k.H, p * k.stride - k.pad + k.R); ++h)
        for (int64_t w = std::max<int64_t>(0, q * k.stride - k.pad); w < std::min(k.W, q * k.stride - k.pad + k.S); ++w)
          greatest = std::max(greatest, z[size_t(((i * k.H + h) * k.W + w) * C + c)]);
      ASSERT_EQ(y[size_t(j)], greatest) << "element " << j;
    }
  }
}

TEST(BatchNormMaxPoolBwdApply, HandWorkedSumsOfTheWindowsThatChose) {
  // The centre of 3x3 is the maximum of all four 2x2 windows of stride 1; of nothing else. dz = 2 du - v + 0.5.
  const Conv2dShape shape{1, 3, 3, 1, 1, 2, 2, 1, 0};
  const std::vector<float> v = {0, 0, 0, 0, 9, 0, 0, 0, 1}, dy = {1, 2, 4, 8}, coefficients = {2, -1, 0.5f};
  float vmax[4], gamma = 1, dz[9];
  uint8_t index[4];
  ref::batch_norm_max_pool_fwd(vmax, index, nullptr, v.data(), &gamma, shape, 1);
  ref::batch_norm_max_pool_bwd_apply(dz, dy.data(), index, v.data(), coefficients.data(), shape, 1);
  EXPECT_EQ(std::vector<float>(dz, dz + 9), (std::vector<float>{0.5f, 0.5f, 0.5f, 0.5f, 21.5f, 0.5f, 0.5f, 0.5f, -0.5f}));
}

TEST(BatchNormMaxPoolFwd, EveryIsaMatchesRefForValuesIndicesAndSums) {
  for (auto& context : all_contexts())
    for (const Window& k : kWindows)
      for (int64_t C : kChannels)
        for (bool with_sums : {false, true}) {
          const Conv2dShape shape{k.n + 1, k.H, k.W, C, C, k.R, k.S, k.stride, k.pad};
          batch_norm_max_pool_check(shape);
          SCOPED_TRACE(context_name(*context) + " " + shape.text() + (with_sums ? " sums" : ""));
          Guarded<float> v(nasty_floats(shape.input_count(k.n), 41, !with_sums)), gamma(gamma_of(C));
          const int64_t outputs = shape.output_count(k.n);
          Guarded<float> expected(outputs), got(outputs);
          Guarded<uint8_t> expected_index(outputs), got_index(outputs);
          Guarded<double> expected_sums(2 * C), got_sums(2 * C), workspace(batch_norm_workspace_bytes(C) / 8);
          ref::batch_norm_max_pool_fwd(expected.data(), expected_index.data(), with_sums ? expected_sums.data() : nullptr,
                                       v.data(), gamma.data(), shape, k.n);
          cpu::batch_norm_max_pool_fwd(*context, got.data(), got_index.data(), with_sums ? got_sums.data() : nullptr, v.data(),
                                       gamma.data(), shape, k.n, workspace.data());
          expect_same(got, expected, "vmax");
          expect_same_bits(got_index, expected_index, "index");
          got_index.expect_guards("index");
          if (with_sums) expect_same_bits(got_sums, expected_sums, "sums");
          got_sums.expect_guards("sums");
          workspace.expect_guards("workspace");
        }
}

TEST(BatchNormMaxPoolBand, BandByBandItIsThePoolingOfTheWhole) {
  for (auto& context : all_contexts())
    for (int64_t H = 1; H <= 9; ++H)
      for (int64_t W : {1, 2, 7, 8})
        for (int64_t C : kChannels)
          for (int zeros : {0, 1, 2}) {  // in gamma: none; some; some and NaN
            const Conv2dShape shape{1, H, W, C, C, 3, 3, 2, 1};
            SCOPED_TRACE(context_name(*context) + " " + shape.text() + " zeros " + std::to_string(zeros));
            // Many equal values, zeros of both signs; NaN in some.
            Guarded<float> v(nasty_floats(H * W * C, 51, H % 2 == 0)), gamma(zeros == 2 ? gamma_of(C) : random_floats(C, 52));
            if (zeros == 1) gamma[C / 2] = gamma[0] = 0;
            const int64_t row = shape.Q() * C;
            Guarded<float> expected(shape.P() * row), got(shape.P() * row), last[2] = {Guarded<float>(row), Guarded<float>(row)};
            Guarded<uint8_t> index(shape.P() * row);
            ref::batch_norm_max_pool_fwd(expected.data(), index.data(), nullptr, v.data(), gamma.data(), shape, 1);
            cpu::BatchNormMaxPoolBand band = {nullptr, 0, W, C, shape.Q(), gamma.data(), nullptr, nullptr, nullptr};
            for (int64_t h = 0; h < H; h += cpu::kBatchNormMaxPoolBandRows) {
              band.v = v.data() + h * W * C;
              band.rows = std::min<int64_t>(cpu::kBatchNormMaxPoolBandRows, H - h);
              band.last = last[h / 4 % 2].data();
              band.vmax = got.data() + h / 2 * row;
              cpu::batch_norm_max_pool_band(*context, band);
              band.above = band.last;
            }
            expect_same(got, expected, "vmax");
            last[0].expect_guards("last");
            last[1].expect_guards("last");
          }
}

TEST(BatchNormMaxPoolBwdApply, EveryIsaMatchesRefAndWritesEveryElement) {
  for (auto& context : all_contexts())
    for (const Window& k : kWindows)
      for (int64_t C : kChannels) {
        const Conv2dShape shape{k.n + 1, k.H, k.W, C, C, k.R, k.S, k.stride, k.pad};
        SCOPED_TRACE(context_name(*context) + " " + shape.text());
        Guarded<float> v(nasty_floats(shape.input_count(k.n), 22)), dy(nasty_floats(shape.output_count(k.n), 23));
        Guarded<float> gamma(gamma_of(C)), coefficients(random_floats(3 * C, 24));
        Guarded<float> vmax(shape.output_count(k.n)), expected(shape.input_count(k.n)), got(shape.input_count(k.n));
        Guarded<uint8_t> index(shape.output_count(k.n));
        ref::batch_norm_max_pool_fwd(vmax.data(), index.data(), nullptr, v.data(), gamma.data(), shape, k.n);
        ref::batch_norm_max_pool_bwd_apply(expected.data(), dy.data(), index.data(), v.data(), coefficients.data(), shape, k.n);
        cpu::batch_norm_max_pool_bwd_apply(*context, got.data(), dy.data(), index.data(), v.data(), coefficients.data(), shape,
                                           k.n);
        expect_same(got, expected, "dz");
      }
}

TEST(BatchNormMaxPoolBwdApply, WithTheSumsOfPooledTensorsItMatchesFiniteDifferences) {
  // loss = sum(dy y). Inputs are distinct multiples of 1/64 and the step is 1/256, so no choice changes. What is left is the
  // rounding of 24 values y < 4 to 2^-23 each over the step 2^-7: at most 24 2^-23 2^7 |dy| < 4e-4, and the curvature: the third
  // derivative times 2^-16 / 6.
  const Conv2dShape shape{2, 5, 6, 2, 2, 3, 3, 2, 1};
  const int64_t C = 2, rows = 2 * 5 * 6, pooled = 2 * 3 * 3;
  std::vector<float> v(size_t(rows * C)), vmax(size_t(pooled * C)), y(vmax.size()), dy = random_floats(pooled * C, 26);
  std::vector<float> gamma = {1.5f, -0.5f}, beta = {0.25f, 0}, affine(size_t(2 * C)), dz(v.size()), coefficients(size_t(3 * C));
  std::vector<uint8_t> index(vmax.size());
  std::vector<double> sums(size_t(2 * C)), stats(size_t(3 * C)), running(size_t(2 * C)), backward_sums(size_t(2 * C));
  for (size_t i = 0; i < v.size(); ++i) v[i] = float(int64_t(i * 37 + 11) % int64_t(v.size()) - int64_t(v.size() / 2)) / 64;
  auto loss = [&] {
    ref::batch_norm_max_pool_fwd(vmax.data(), index.data(), sums.data(), v.data(), gamma.data(), shape, 2);
    ref::batch_norm_statistics(stats.data(), affine.data(), running.data(), sums.data(), false, nullptr, gamma.data(),
                               beta.data(), rows, C, 1e-5);
    ref::batch_norm_apply(y.data(), nullptr, {vmax.data(), DType::kF32, affine.data(), nullptr, nullptr, nullptr}, pooled, C);
    double total = 0;
    for (size_t j = 0; j < y.size(); ++j) total += double(dy[j]) * double(y[j]);
    return total;
  };
  loss();
  float dgamma[2], dbeta[2];
  ref::batch_norm_bwd_sums(backward_sums.data(), dy.data(), vmax.data(), DType::kF32, pooled, C);
  ref::batch_norm_bwd_coefficients(coefficients.data(), dgamma, dbeta, backward_sums.data(), stats.data(), nullptr, gamma.data(),
                                   rows, C, GradMode::kOverwrite);
  ref::batch_norm_max_pool_bwd_apply(dz.data(), dy.data(), index.data(), v.data(), coefficients.data(), shape, 2);
  auto expect_slope = [&](float& at, double slope, const std::string& what) {
    const float before = at;
    at = before + 0x1p-8f;
    double difference = loss();
    at = before - 0x1p-8f;
    difference -= loss();
    at = before;
    EXPECT_NEAR(slope, difference * 0x1p7, 1e-3) << what;
  };
  for (size_t i = 0; i < v.size(); ++i) expect_slope(v[i], double(dz[i]), "v[" + std::to_string(i) + "]");
  for (size_t c = 0; c < 2; ++c) {
    expect_slope(gamma[c], double(dgamma[c]), "gamma[" + std::to_string(c) + "]");
    expect_slope(beta[c], double(dbeta[c]), "beta[" + std::to_string(c) + "]");
  }
}

TEST(BatchNormMaxPoolCheck, RefusesWhatNoKernelTakesAndSaysWhy) {
  auto message = [](Conv2dShape shape) -> std::string {
    try {
      batch_norm_max_pool_check(shape);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({1, 15, 17, 4, 4, 15, 17, 1, 0}), "accepted");
  EXPECT_EQ(message({1, 16, 16, 4, 4, 16, 16, 1, 0}), "max_pool: R*S must be <= 255 (the index is one byte), got 16*16");
  EXPECT_EQ(message({1, 8, 8, 4, 5, 2, 2, 2, 0}), "max_pool: K must equal C, got 5 and 4");
  EXPECT_NE(message({1, 8, 8, 4, 4, 2, 2, 2, 2}).find("pad"), std::string::npos);
}

}  // namespace bireal
