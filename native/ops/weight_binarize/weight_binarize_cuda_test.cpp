#include "ops/weight_binarize/weight_binarize.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class WeightBinarizeCuda : public CudaTest {};

namespace {

struct Shape {
  int64_t K, taps, C;
  int64_t count() const { return K * taps * C; }
  int64_t words() const { return K * taps * word_count(C); }
};

std::vector<Shape> shapes() {
  std::vector<Shape> list = {{1, 1, 4}, {17, 49, 31}, {3, 1, (1 << 14) - 1}};
  for (int64_t C : nasty_channels()) list.push_back({5, 9, C});
  return list;
}

}  // namespace

TEST_F(WeightBinarizeCuda, AllTensorsInOneLaunchMatchRefToTheBit) {
  in_both_orders([] {
    // More tensors than one table holds, so that a second launch is made too.
    std::vector<Shape> list = shapes();
    while (list.size() < 70) list.push_back({2, 1, int64_t(list.size())});
    int64_t weights = 0, words = 0, filters = 0;
    for (const Shape& s : list) weights += s.count(), words += s.words(), filters += s.K;
    std::vector<float> w = nasty_floats(weights, 7);
    for (float& v : w) v = std::fmax(-511.0f, std::fmin(511.0f, v));
    w[0] = 0x1p-41f, w[1] = 0x3p-41f, w[2] = -0x5p-41f, w[3] = 0x7p-41f;  // ties, alone in their filter
    const float bad[] = {512.0f, -512.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};
    for (size_t i = 0; i < 4; ++i) w[4 + 49 * 31 * i + 40 * i] = bad[i];  // in the first filters of the second tensor
    Guarded<word_t> expected(words);
    Guarded<float> expected_alpha(filters);
    DeviceArray<float> device_w(w), alpha(filters);
    DeviceArray<word_t> bits(words);
    std::vector<cuda::WeightTensor> tensors;
    int64_t at = 0, word = 0, filter = 0;
    for (const Shape& s : list) {
      ref::weight_binarize_fwd(expected.data() + word, expected_alpha.data() + filter, w.data() + at, s.K, s.taps, s.C);
      tensors.push_back({device_w.data() + at, nullptr, bits.data() + word, alpha.data() + filter, s.K, s.taps, s.C});
      at += s.count(), word += s.words(), filter += s.K;
    }
    cuda::weight_binarize_fwd(cuda_device(), tensors.data(), int64_t(tensors.size()), cuda_stream());
    expect_same_bits(bits.values(), expected, "bits");
    expect_same_or_nan(alpha.values(), expected_alpha, "alpha");
    EXPECT_TRUE(std::isnan(expected_alpha[1])) << "the weights out of range are not where the test wants them";
  });
}

TEST_F(WeightBinarizeCuda, GradientRulesMatchRefToTheBit) {
  in_both_orders([] {
    for (int rule = 0; rule < 4; ++rule) {
      SCOPED_TRACE("rule " + std::to_string(rule));
      std::vector<Shape> list = shapes();
      int64_t weights = 0, filters = 0;
      for (const Shape& s : list) weights += s.count(), filters += s.K;
      const std::vector<float> w = nasty_floats(weights, 1, true), alpha = random_floats(filters, 2);
      Guarded<float> expected(nasty_floats(weights, 3));
      DeviceArray<float> device_w(w), g(expected.values()), device_alpha(alpha);
      std::vector<cuda::WeightTensor> tensors;
      int64_t at = 0, filter = 0;
      for (const Shape& s : list) {
        ref::weight_gradient(expected.data() + at, w.data() + at, alpha.data() + filter, s.K, s.taps, s.C, WeightGradient(rule));
        tensors.push_back({device_w.data() + at, g.data() + at, nullptr, device_alpha.data() + filter, s.K, s.taps, s.C});
        at += s.count(), filter += s.K;
      }
      cuda::weight_gradient(cuda_device(), tensors.data(), int64_t(tensors.size()), WeightGradient(rule), cuda_stream());
      expect_same_bits(g.values(), expected, "g");
    }
  });
}

}  // namespace bireal
