#include "ops/softmax_xent/softmax_xent.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

static const float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

namespace {
struct Batch {
  std::vector<float> logits;
  std::vector<int32_t> labels;
  std::vector<float> teacher;
  double smoothing = 0.1, temperature = 1, gradient_scale = 1.0 / 512, loss_scale = 0;  // 0: none
  int64_t n() const { return int64_t(labels.size()); }
  int64_t K() const { return int64_t(logits.size()) / n(); }
};
}  // namespace

static Batch random_batch(int64_t n, int64_t K, bool taught, float range) {
  Batch b;
  b.logits = random_floats(n * K, 13, range);
  for (float& x : b.logits) x = std::round(x * 4) / 4;  // many ties, and the same in every stored type
  for (int64_t i = 0; i < n; ++i) b.labels.push_back(int32_t(splitmix64(12, uint64_t(i)) % uint64_t(K)));
  for (int64_t i = 0; taught && i < n * K; ++i) b.teacher.push_back(float(i * 7 % 23) / 4 - 3);
  if (taught) b.temperature = 2.5;
  return b;
}

// sum_i sum_k t_k |log p_k| is at most this: what the bound of the loss is relative to.
static double loss_magnitude(const Batch& b) {
  double sum = 0;
  for (int64_t i = 0; i < b.n(); ++i) {
    const float* x = b.logits.data() + i * b.K();
    auto [low, high] = std::minmax_element(x, x + b.K());
    sum += double(*high) - double(*low) + std::log(double(b.K()));
  }
  return sum;
}

// Units in the last place of a stored value near x.
static double ulp(float x, DType type) {
  const int digits = type == DType::kF32 ? 24 : type == DType::kF16 ? 11 : 8, lowest = type == DType::kF16 ? -24 : -133;
  return std::ldexp(1.0, std::max(x == 0 ? lowest : std::ilogb(x) - digits + 1, lowest));
}

namespace {
class SoftmaxXentCuda : public CudaTest {
 protected:
  static void expect_ref(const Batch& b, DType type) {
    const int64_t n = b.n(), K = b.K();
    const double scale = b.gradient_scale * (b.loss_scale > 0 ? b.loss_scale : 1);
    std::vector<double> metrics(4);
    std::vector<float> dlogits(b.logits.size());
    const SoftmaxXent in{b.logits.data(), b.labels.data(), b.teacher.empty() ? nullptr : b.teacher.data(),
                         b.smoothing,     b.temperature,   scale};
    ref::softmax_xent(metrics.data(), dlogits.data(), in, n, K, GradMode::kOverwrite);
    std::vector<double> first;
    in_both_orders([&] {
      StoredArray x(type, b.logits), teacher(type, b.teacher), dx(type, n * K);
      DeviceArray<int32_t> labels(b.labels);
      DeviceArray<LossScale> loss_scale(std::vector<LossScale>{{b.loss_scale, 1, 0, 2000}});
      DeviceArray<double> got_metrics(4), again(std::vector<double>(4, 0.5)), workspace(softmax_xent_workspace_bytes(n) / 8);
      const cuda::SoftmaxXentCuda on_device{x.data(),
                                            type,
                                            labels.data(),
                                            b.teacher.empty() ? nullptr : teacher.data(),
                                            b.loss_scale > 0 ? loss_scale.data() : nullptr,
                                            b.smoothing,
                                            b.temperature,
                                            b.gradient_scale};
      cuda::softmax_xent(cuda_device(), got_metrics.data(), dx.data(), on_device, n, K, GradMode::kOverwrite, workspace.data(),
                         cuda_stream());
      cuda::softmax_xent(cuda_device(), again.data(), nullptr, on_device, n, K, GradMode::kAccumulate, workspace.data(),
                         cuda_stream());
      const std::vector<double> got = got_metrics.values().values(), accumulated = again.values().values();
      for (size_t j = 1; j < 4; ++j) EXPECT_EQ(got[j], metrics[j]) << "metrics[" << j << "]";
      if (std::isnan(metrics[0]))
        EXPECT_TRUE(std::isnan(got[0]));
      else
        EXPECT_NEAR(got[0], metrics[0], double(n + K + 8) * 0x1p-52 * loss_magnitude(b));
      for (size_t j = 0; j < 4; ++j)
        EXPECT_TRUE(accumulated[j] == 0.5 + got[j] || std::isnan(got[j])) << "accumulated[" << j << "] " << accumulated[j];
      if (first.empty()) first = got;
      expect_same_bits(Guarded<double>(got), Guarded<double>(first), "metrics in the other order of threads");

      // Correctly rounded but where the value before rounding lies within 2^-44 of a tie: at most one in a thousand.
      const std::vector<float> gradient = dx.values().values();
      int64_t off = 0;
      for (size_t i = 0; i < gradient.size(); ++i) {
        const float expected = rounded_to(type, dlogits[i]);
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(gradient[i])) << "dlogits[" << i << "]";
          continue;
        }
        ASSERT_NEAR(gradient[i], expected, ulp(expected, type) + 0x1p-44 * scale) << "dlogits[" << i << "]";
        off += std::fabs(double(gradient[i]) - double(expected)) > 0x1p-44 * scale;
      }
      EXPECT_LE(off, int64_t(gradient.size()) / 1000) << "gradients that are not correctly rounded";
    });
  }
};
}  // namespace

TEST_F(SoftmaxXentCuda, LossGradientAndHitsAreRefsAtOddSizes) {
  for (int64_t K : {1, 2, 5, 31, 32, 33, 257})
    for (int64_t n : {1, 4, 5, 35})
      for (DType type : kStoredTypes)
        for (bool taught : {false, true}) {
          SCOPED_TRACE("n" + std::to_string(n) + "_K" + std::to_string(K) + " " + cuda::type_suffix(type) +
                       (taught ? " taught" : ""));
          Batch b = random_batch(n, K, taught, 6.0f);
          if (n == 5) b.loss_scale = 1024;
          if (n == 4) b.smoothing = 0;
          expect_ref(b, type);
        }
}

TEST_F(SoftmaxXentCuda, TiesAndNonFiniteLogitsCountAsRefCountsThem) {
  for (int32_t label = 0; label < 8; ++label) {
    SCOPED_TRACE(label);
    expect_ref({{3, 9, 9, 1, 5, 5, 4, 8}, {label}, {}, 0, 1, 1, 0}, DType::kF32);
  }
  for (float bad : {kNaN, kInf, -kInf})
    for (size_t at : {0, 1, 33})
      for (int32_t label : {0, 1, 33}) {
        SCOPED_TRACE(std::to_string(bad) + " at " + std::to_string(at) + ", label " + std::to_string(label));
        Batch b = random_batch(1, 40, false, 6.0f);
        b.labels[0] = label;
        b.logits[at] = bad;
        expect_ref(b, DType::kF32);
        expect_ref(b, DType::kF16);
      }
  for (float bad : {kNaN, kInf, -kInf}) {  // -Inf is a probability of 0, so nothing else would show it
    Batch b = random_batch(2, 40, true, 6.0f);
    b.teacher[45] = bad;
    expect_ref(b, DType::kF32);
  }
  expect_ref({{-kInf, -kInf, -kInf}, {1}, {}, 0.1, 1, 1, 0}, DType::kF32);
}

TEST_F(SoftmaxXentCuda, HugeFiniteLogitsStayFinite) {
  expect_ref({{3e38f, -3e38f, 0}, {0}, {}, 0.1, 1, 1, 0}, DType::kF32);
  expect_ref({{65504, -65504, 0}, {1}, {}, 0.1, 1, 1, 0}, DType::kF16);
}

TEST_F(SoftmaxXentCuda, NoRowsAddNothing) {
  DeviceArray<double> metrics(std::vector<double>{1, 2, 3, 4});
  cuda::softmax_xent(cuda_device(), metrics.data(), nullptr, {nullptr, DType::kF16, nullptr, nullptr, nullptr, 0.1, 1, 1}, 0, 10,
                     GradMode::kAccumulate, nullptr, cuda_stream());
  EXPECT_EQ(metrics.values().values(), (std::vector<double>{1, 2, 3, 4}));
}

}  // namespace bireal
