#include "ops/image/image.h"

#include "core/error.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

// ImageNet's constants, then others so that any C has some.
static std::vector<double> image_mean(int64_t C) {
  std::vector<double> mean = {0.485, 0.456, 0.406};
  for (int64_t c = 3; c < C; ++c) mean.push_back(0.01 * double(c % 50));
  return mean;
}
static std::vector<double> image_std(int64_t C) {
  std::vector<double> std = {0.229, 0.224, 0.225};
  for (int64_t c = 3; c < C; ++c) std.push_back(0.1 + 0.01 * double(c % 50));
  return std;
}

template <class Body>
static void expect_refused(const Body& body, const char* part) {
  try {
    body();
    ADD_FAILURE() << "not refused: " << part;
  } catch (const InvalidArgument& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

TEST(ImageNormalize, HandWorkedPaddingCropAndFlip) {
  // A 2x2 image of one channel, padded by 1; mean 0.5, std 0.25: x = pixel/63.75 - 2, so 255 -> 2, 0 and padding -> -2.
  Guarded<uint8_t> pixels(std::vector<uint8_t>{255, 0, 51, 102});
  ImageShape shape{1, 2, 2, 1, 3, 3, 1};
  double mean = 0.5, std = 0.25;
  Guarded<float> x(9);
  auto expect = [&](ImageCrop crop, std::vector<float> expected) {
    ref::image_normalize(x.data(), pixels.data(), &crop, &mean, &std, shape, 1);
    for (int i = 0; i < 9; ++i) EXPECT_NEAR(x[i], expected[size_t(i)], 1e-6) << i;
  };
  expect({0, 0, 0}, {-2, -2, -2, -2, 2, -2, -2, -1.2f, -0.4f});
  expect({0, 0, 1}, {-2, -2, -2, -2, 2, -2, -0.4f, -1.2f, -2});
  expect({1, 1, 0}, {2, -2, -2, -1.2f, -0.4f, -2, -2, -2, -2});
}

TEST(ImageNormalize, EqualsToTensorAndNormalize) {
  // torchvision: (pixel/255 - mean)/std, here in double; two roundings of constants and one of the result: 3 * 2^-24 * 3 < 6e-7.
  std::vector<double> mean = image_mean(3), std = image_std(3);
  Guarded<uint8_t> pixels(256 * 3);
  for (int64_t i = 0; i < 768; ++i) pixels[i] = uint8_t(i / 3);
  ImageCrop crop{0, 0, 0};
  Guarded<float> x(256 * 3);
  ref::image_normalize(x.data(), pixels.data(), &crop, mean.data(), std.data(), {1, 16, 16, 3, 16, 16, 0}, 1);
  for (int64_t i = 0; i < 768; ++i)
    EXPECT_NEAR(x[i], (double(pixels[i]) / 255 - mean[size_t(i % 3)]) / std[size_t(i % 3)], 6e-7) << i;
}

TEST(ImageNormalize, EveryIsaMatchesRefForEveryCrop) {
  struct Case {
    int64_t H0, W0, C, H, W, pad;
  };
  for (auto& context : all_contexts())
    for (Case k : std::vector<Case>{{1, 1, 1, 1, 1, 0},
                                    {5, 4, 1, 3, 2, 0},
                                    {28, 28, 1, 32, 32, 2},
                                    {7, 9, 3, 7, 9, 4},
                                    {3, 2, 3, 5, 1, 3},
                                    {32, 32, 3, 32, 32, 4},
                                    {6, 131, 3, 5, 129, 2},
                                    {3, 5, 65, 2, 4, 1},
                                    {2, 2, 256, 3, 3, 1}}) {
      ImageShape shape{40, k.H0, k.W0, k.C, k.H, k.W, k.pad};
      shape.check();
      int64_t n = 37;
      SCOPED_TRACE(context_name(*context) + " H0" + std::to_string(k.H0) + "_W0" + std::to_string(k.W0) + "_C" +
                   std::to_string(k.C) + "_H" + std::to_string(k.H) + "_W" + std::to_string(k.W) + "_pad" +
                   std::to_string(k.pad));
      Guarded<uint8_t> pixels(n * k.H0 * k.W0 * k.C);
      for (int64_t i = 0; i < pixels.count(); ++i) pixels[i] = uint8_t(splitmix64(6, uint64_t(i)));
      std::vector<ImageCrop> crops(static_cast<size_t>(n));
      for (size_t i = 0; i < crops.size(); ++i) {
        uint64_t random = splitmix64(7, i);
        crops[i] = {int32_t((random >> 8) % uint64_t(k.H0 + 2 * k.pad - k.H + 1)),
                    int32_t((random >> 24) % uint64_t(k.W0 + 2 * k.pad - k.W + 1)), int32_t(random & 1)};
      }
      crops[0] = {0, 0, 1};
      crops[1] = {int32_t(k.H0 + 2 * k.pad - k.H), int32_t(k.W0 + 2 * k.pad - k.W), 0};
      std::vector<double> mean = image_mean(k.C), std = image_std(k.C);
      Guarded<float> expected(n * k.H * k.W * k.C), got(n * k.H * k.W * k.C);
      ref::image_normalize(expected.data(), pixels.data(), crops.data(), mean.data(), std.data(), shape, n);
      cpu::image_normalize(*context, got.data(), pixels.data(), crops.data(), mean.data(), std.data(), shape, n);
      expect_same_bits(got, expected, "x");
      got.expect_guards("x");
    }
}

TEST(ImageNormalize, RefusesACropOutsideTheImage) {
  ImageShape shape{1, 4, 4, 1, 3, 3, 1};
  Guarded<uint8_t> pixels(16);
  Guarded<float> x(9);
  double mean = 0, std = 1;
  for (auto& context : all_contexts())
    for (ImageCrop crop : {ImageCrop{4, 0, 0}, ImageCrop{-1, 0, 0}, ImageCrop{0, 4, 1}, ImageCrop{0, -1, 1}}) {
      expect_refused([&] { cpu::image_normalize(*context, x.data(), pixels.data(), &crop, &mean, &std, shape, 1); },
                     "the last possible one is row 3, column 3");
      expect_refused([&] { ref::image_normalize(x.data(), pixels.data(), &crop, &mean, &std, shape, 1); }, "crop 0");
    }
  ImageCrop crop{3, 3, 2};
  expect_refused([&] { ref::image_normalize(x.data(), pixels.data(), &crop, &mean, &std, shape, 1); }, "got 2");
}

TEST(ImageShape, CheckRefusesACropLargerThanThePaddedImage) {
  EXPECT_NO_THROW((ImageShape{1, 4, 4, 1, 6, 6, 1}.check()));
  expect_refused([] { ImageShape{1, 4, 4, 1, 7, 6, 1}.check(); }, "7x6 is larger than the image of 4x4 padded by 1");
  expect_refused([] { ImageShape{1, 4, 4, 0, 4, 4, 1}.check(); }, "C must be >= 1, got 0");
  expect_refused([] { ImageShape{1, 4, 4, 257, 4, 4, 1}.check(); }, "got 257");
  expect_refused([] { ImageShape{1, 4, 4, 1, 4, 4, -1}.check(); }, "pad must be >= 0, got -1");
}

}  // namespace bireal
