#include "ops/cast/cast.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class CastCuda : public CudaTest {
 protected:
  // More tensors than one launch takes, of sizes around a block's.
  static std::vector<int64_t> sizes() {
    std::vector<int64_t> counts = {1, 255, 256, 1023, 1024, 1025, 3000};
    while (counts.size() < 66) counts.push_back(int64_t(counts.size()));
    return counts;
  }
};

TEST_F(CastCuda, WeightsAreRoundedOnceAndBinaryOnesAreAlphaTimesTheSign) {
  const std::vector<int64_t> counts = sizes();
  for (DType type : kStoredTypes) {
    SCOPED_TRACE(cuda::type_suffix(type));
    in_both_orders([&] {
      std::vector<std::unique_ptr<DeviceArray<float>>> kept;
      std::vector<std::unique_ptr<StoredArray>> outs;
      std::vector<cuda::CastWeights> tensors;
      std::vector<std::vector<float>> expected;
      for (size_t i = 0; i < counts.size(); ++i) {
        const int64_t filter = i % 3 == 0 ? 0 : i % 7 + 1;  // 0: real weights
        const std::vector<float> w = nasty_floats(counts[i], i, true);
        const std::vector<float> alpha = random_floats(filter ? (counts[i] + filter - 1) / filter : 1, i + 100);
        std::vector<float> values = as_stored(type, w);
        for (size_t j = 0; filter && j < w.size(); ++j) {
          const float scale = rounded_to(type, alpha[j / size_t(filter)]);
          values[j] = w[j] < 0 ? -scale : scale;
        }
        expected.push_back(values);
        kept.push_back(std::make_unique<DeviceArray<float>>(w));
        const float* device_w = kept.back()->data();
        kept.push_back(std::make_unique<DeviceArray<float>>(alpha));
        outs.push_back(std::make_unique<StoredArray>(type, counts[i]));
        tensors.push_back(
            {outs.back()->data(), device_w, filter ? kept.back()->data() : nullptr, counts[i], std::max<int64_t>(filter, 1)});
      }
      cuda::cast_weights(cuda_device(), tensors.data(), int64_t(tensors.size()), type, cuda_stream());
      for (size_t i = 0; i < counts.size(); ++i) {
        SCOPED_TRACE("tensor " + std::to_string(i));
        expect_same_or_nan(outs[i]->values(), expected[i], "operand");
      }
    });
  }
}

TEST_F(CastCuda, GradientsAreWidenedOrAddedInFloat32) {
  const std::vector<int64_t> counts = sizes();
  for (DType type : kStoredTypes)
    for (GradMode mode : {GradMode::kOverwrite, GradMode::kAccumulate}) {
      SCOPED_TRACE(std::string(cuda::type_suffix(type)) + " mode " + std::to_string(int(mode)));
      in_both_orders([&] {
        std::vector<std::unique_ptr<StoredArray>> xs, outs;
        std::vector<cuda::CastGradient> tensors;
        std::vector<std::vector<float>> expected;
        for (size_t i = 0; i < counts.size(); ++i) {
          const std::vector<float> x = nasty_floats(counts[i], i, true), before = nasty_floats(counts[i], i + 100, true);
          std::vector<float> values = as_stored(type, x);
          for (size_t j = 0; mode == GradMode::kAccumulate && j < x.size(); ++j) values[j] = before[j] + values[j];
          expected.push_back(values);
          xs.push_back(std::make_unique<StoredArray>(type, as_stored(type, x)));
          outs.push_back(std::make_unique<StoredArray>(DType::kF32, before));
          tensors.push_back({static_cast<float*>(outs.back()->data()), xs.back()->data(), counts[i]});
        }
        cuda::cast_gradients(cuda_device(), tensors.data(), int64_t(tensors.size()), type, mode, cuda_stream());
        for (size_t i = 0; i < counts.size(); ++i) {
          SCOPED_TRACE("tensor " + std::to_string(i));
          expect_same_or_nan(outs[i]->values(), expected[i], "gradient");
        }
      });
    }
}

}  // namespace bireal
