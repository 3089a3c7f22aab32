#include "ops/softmax_xent/softmax_xent.h"

#include "testing/testing.h"

namespace bireal {
using namespace testing;

static const float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

namespace {
struct Result {
  double loss, top1, top5, count;
  std::vector<float> dlogits;
};
}  // namespace

// Runs the reference and every context; all must agree to the bit.
static Result run_all(const std::vector<float>& logits, const std::vector<int32_t>& labels, const std::vector<float>& teacher,
                      double smoothing, double gradient_scale, double temperature = 1) {
  int64_t n = int64_t(labels.size()), K = int64_t(logits.size()) / n;
  Guarded<float> x(logits), teacher_logits(teacher), expected(n * K);
  Guarded<double> expected_metrics(4);
  SoftmaxXent in{x.data(),  labels.data(), teacher.empty() ? nullptr : teacher_logits.data(),
                 smoothing, temperature,   gradient_scale};
  ref::softmax_xent(expected_metrics.data(), expected.data(), in, n, K, GradMode::kOverwrite);
  for (auto& context : all_contexts()) {
    SCOPED_TRACE(context_name(*context));
    Guarded<float> got(n * K);
    Guarded<double> metrics(4), only_metrics(4), workspace(softmax_xent_workspace_bytes(n) / 8);
    cpu::softmax_xent(*context, metrics.data(), got.data(), in, n, K, GradMode::kOverwrite, workspace.data());
    cpu::softmax_xent(*context, only_metrics.data(), nullptr, in, n, K, GradMode::kOverwrite, workspace.data());
    expect_same_bits(got, expected, "dlogits");
    expect_same_bits(metrics, expected_metrics, "metrics");
    expect_same_bits(only_metrics, expected_metrics, "metrics without dlogits");
    got.expect_guards("dlogits"), metrics.expect_guards("metrics"), workspace.expect_guards("workspace");
  }
  return {expected_metrics[0], expected_metrics[1], expected_metrics[2], expected_metrics[3], expected.values()};
}

static const std::vector<float> kStudent = {1, -2, .5f, 3, 0, 0, -1, 2};

TEST(SoftmaxXent, LabelSmoothingEqualsThePublishedCode) {
  // networks.md 7.3, measured in float32: a mean of two rows, 8 digits.
  Result r = run_all(kStudent, {2, 3}, {}, 0.1, 0.5);
  EXPECT_NEAR(r.loss / 2, 1.57136595, 3e-7);
  const double expected[] = {0.042776864,  -0.00974792615, -0.42897287,   0.39594391,
                             0.0387455933, 0.0387455933,   0.00635219924, -0.0838434324};
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(r.dlogits[i], expected[i], 1e-7) << i;
}

TEST(SoftmaxXent, TeacherEqualsThePublishedDistributionLoss) {
  const std::vector<float> teacher = {2, -1, 0, 1, .3f, .2f, .1f, 0};
  Result r = run_all(kStudent, {2, 3}, teacher, 0.1, 0.5);
  EXPECT_NEAR(r.loss / 2, 1.97743273, 4e-7);
  const double expected[] = {-0.266680241,  -0.0132772261, -0.010045046,  0.290002495,
                             -0.0930801034, -0.0793457031, -0.0993116796, 0.271737456};
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(r.dlogits[i], expected[i], 1e-7) << i;
}

TEST(SoftmaxXent, TemperatureDividesTheLogitsOfBoth) {
  std::vector<float> teacher = {2, -1, 0, 1, 3, 2, 1, 0}, student4 = kStudent, teacher4 = teacher;
  for (float& v : student4) v /= 4;
  for (float& v : teacher4) v /= 4;
  Result at4 = run_all(kStudent, {2, 3}, teacher, 0, 1, 4), divided = run_all(student4, {2, 3}, teacher4, 0, 4, 1);
  EXPECT_EQ(at4.loss, divided.loss);  // quarters are exact
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(at4.dlogits[i], divided.dlogits[i] / 16) << i;
}

TEST(SoftmaxXent, NonFiniteTeacherGivesANaNLoss) {
  for (float bad : {kNaN, kInf, -kInf}) EXPECT_TRUE(std::isnan(run_all({1, 2, 3}, {1}, {0, bad, 1}, 0, 1).loss)) << bad;
}

TEST(SoftmaxXent, HandWorkedUniformLogits) {
  Result r = run_all({7, 7, 7, 7}, {1}, {}, 0, 1);
  EXPECT_NEAR(r.loss, std::log(4.0), 1e-15);
  EXPECT_EQ(r.dlogits, (std::vector<float>{.25f, -.75f, .25f, .25f}));
  EXPECT_EQ(r.top1, 0);  // class 0 has the same logit and a lower index
  EXPECT_EQ(r.top5, 1);
  EXPECT_EQ(r.count, 1);
}

TEST(SoftmaxXent, HitsBreakTiesByTheLowerIndexAndIgnoreNaNLabels) {
  std::vector<float> row = {3, 9, 9, 1, 5, 5, 4, 8};
  const int top1[] = {0, 1, 0, 0, 0, 0, 0, 0}, top5[] = {0, 1, 1, 0, 1, 1, 0, 1};
  for (int32_t label = 0; label < 8; ++label) {
    Result r = run_all(row, {label}, {}, 0, 1);
    EXPECT_EQ(r.top1, top1[label]) << label;
    EXPECT_EQ(r.top5, top5[label]) << label;
  }
  Result nan_label = run_all({1, kNaN}, {1}, {}, 0, 1), nan_other = run_all({1, kNaN}, {0}, {}, 0, 1);
  EXPECT_EQ(nan_label.top1 + nan_label.top5, 0);
  EXPECT_EQ(nan_other.top1 + nan_other.top5, 2);
}

TEST(SoftmaxXent, NonFiniteLogitsGiveANaNLoss) {
  for (float bad : {kNaN, kInf, -kInf})
    for (int at : {0, 1, 2})
      for (double smoothing : {0.0, 0.1}) {
        std::vector<float> row = {1, 2, 3};
        row[size_t(at)] = bad;
        EXPECT_TRUE(std::isnan(run_all(row, {1}, {}, smoothing, 1).loss)) << bad << " at " << at;
      }
}

TEST(SoftmaxXent, HugeFiniteLogitsStayFinite) {
  Result r = run_all({3e38f, -3e38f, 0}, {0}, {}, 0.1, 1);
  EXPECT_TRUE(std::isfinite(r.loss));
  EXPECT_EQ(r.top1, 1);
  EXPECT_NEAR(r.dlogits[0], 0.1 * 2 / 3, 1e-7);
}

TEST(SoftmaxXent, GradientMatchesFiniteDifferencesOfTheLoss) {
  for (double temperature : {0.0, 1.0, 3.0}) {  // 0: no teacher
    int64_t n = 3, K = 7;
    const double T = temperature == 0 ? 1 : temperature;
    std::vector<float> logits = random_floats(n * K, 11, 3.0f), teacher;
    if (temperature > 0) teacher = random_floats(n * K, 12, 3.0f);
    std::vector<int32_t> labels = {0, 3, 6};
    Result r = run_all(logits, labels, teacher, 0.1, 1, T);
    for (size_t i = 0; i < logits.size(); ++i) {
      // Central difference of a double loss: error h^2/6 |third derivative| < 1e-6 / 6, and 2^-24 of the float result and step.
      std::vector<float> up = logits, down = logits;
      up[i] += 0x1p-10f, down[i] -= 0x1p-10f;
      double difference = (run_all(up, labels, teacher, 0.1, 1, T).loss - run_all(down, labels, teacher, 0.1, 1, T).loss) /
                          (double(up[i]) - double(down[i]));
      EXPECT_NEAR(r.dlogits[i], difference, 4e-7) << i << " temperature " << temperature;
    }
  }
}

TEST(SoftmaxXent, EveryContextMatchesRefAtOddSizes) {
  for (int64_t K : {1, 2, 5, 31, 33, 1000})
    for (int64_t n : {1, 2, 17, 143}) {
      SCOPED_TRACE("n" + std::to_string(n) + "_K" + std::to_string(K));
      std::vector<int32_t> labels;
      for (int64_t i = 0; i < n; ++i) labels.push_back(int32_t(splitmix64(12, uint64_t(i)) % uint64_t(K)));
      Result r = run_all(random_floats(n * K, 13, 20.0f), labels, {}, 0.1, 1.0 / 512);
      EXPECT_EQ(r.count, double(n));
      if (K <= 5) {
        EXPECT_EQ(r.top5, double(n));
      }
    }
}

TEST(SoftmaxXent, AccumulateAddsTheCompleteSumsAndNoRowsAddNothing) {
  Guarded<float> x(kStudent);
  std::vector<int32_t> labels = {2, 3};
  SoftmaxXent in{x.data(), labels.data(), nullptr, 0.1, 1, 0.5};
  Guarded<double> once(4), twice(4), workspace(softmax_xent_workspace_bytes(2) / 8);
  ref::softmax_xent(once.data(), nullptr, in, 2, 4, GradMode::kOverwrite);
  for (auto& context : all_contexts()) {
    twice = Guarded<double>(once.values());
    cpu::softmax_xent(*context, twice.data(), nullptr, in, 2, 4, GradMode::kAccumulate, workspace.data());
    cpu::softmax_xent(*context, twice.data(), nullptr, in, 0, 4, GradMode::kAccumulate, workspace.data());
    for (int j = 0; j < 4; ++j) EXPECT_EQ(twice[j], once[j] + once[j]) << j;
  }
}

}  // namespace bireal
