#include "ops/image/image.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class ImageNormalizeCuda : public CudaTest {};

TEST_F(ImageNormalizeCuda, EveryCropAndFlipIsRefRoundedOnce) {
  // One pixel; a crop as large as the padded image; CIFAR's; more rows than a block and more columns than a warp; 256 channels.
  for (const ImageShape& shape :
       {ImageShape{1, 1, 1, 1, 1, 1, 0}, ImageShape{2, 5, 3, 3, 9, 7, 2}, ImageShape{3, 8, 8, 3, 8, 8, 4},
        ImageShape{2, 13, 40, 1, 11, 37, 0}, ImageShape{1, 3, 2, 256, 2, 3, 1}})
    for (DType type : kStoredTypes) {
      SCOPED_TRACE("H0 " + std::to_string(shape.H0) + " W " + std::to_string(shape.W) + " C " + std::to_string(shape.C) + " " +
                   cuda::type_suffix(type));
      shape.check();
      std::vector<uint8_t> pixels;
      for (int64_t i = 0; i < shape.N * shape.H0 * shape.W0 * shape.C; ++i)
        pixels.push_back(uint8_t(splitmix64(51, uint64_t(i))));
      std::vector<double> mean, std;
      for (int64_t c = 0; c < shape.C; ++c) mean.push_back(0.1 + 0.2 * double(c % 4)), std.push_back(0.2 + 0.05 * double(c % 5));
      for (uint64_t seed = 0; seed < 4; ++seed) {
        std::vector<ImageCrop> crops;
        for (int64_t i = 0; i < shape.N; ++i)
          crops.push_back({int32_t(splitmix64(seed, uint64_t(3 * i)) % uint64_t(shape.H0 + 2 * shape.pad - shape.H + 1)),
                           int32_t(splitmix64(seed, uint64_t(3 * i + 1)) % uint64_t(shape.W0 + 2 * shape.pad - shape.W + 1)),
                           int32_t((seed + uint64_t(i)) % 2)});
        std::vector<float> x(size_t(shape.N * shape.H * shape.W * shape.C));
        ref::image_normalize(x.data(), pixels.data(), crops.data(), mean.data(), std.data(), shape, shape.N);
        in_both_orders([&] {
          StoredArray gpu_x(type, int64_t(x.size()));
          DeviceArray<uint8_t> gpu_pixels(pixels);
          DeviceArray<ImageCrop> gpu_crops(crops);
          DeviceArray<double> gpu_mean(mean), gpu_std(std);
          cuda::image_normalize(cuda_device(), gpu_x.data(), type, gpu_pixels.data(), gpu_crops.data(), gpu_mean.data(),
                                gpu_std.data(), shape, shape.N, cuda_stream());
          expect_same_or_nan(gpu_x.values(), as_stored(type, x), "x");
        });
      }
    }
}

TEST_F(ImageNormalizeCuda, ACropOutsideItsImageReadsPaddingOnly) {
  const ImageShape shape{1, 4, 4, 1, 2, 2, 0};
  for (const ImageCrop& crop : {ImageCrop{-3, 0, 0}, ImageCrop{4, 0, 1}, ImageCrop{0, -2, 0}, ImageCrop{0, 1000000, 0}}) {
    DeviceArray<float> x(4);
    DeviceArray<uint8_t> pixels(std::vector<uint8_t>(16, 255));
    DeviceArray<ImageCrop> crops(std::vector<ImageCrop>{crop});
    DeviceArray<double> mean(std::vector<double>{0.5}), std(std::vector<double>{1.0});
    cuda::image_normalize(cuda_device(), x.data(), DType::kF32, pixels.data(), crops.data(), mean.data(), std.data(), shape, 1,
                          cuda_stream());
    EXPECT_EQ(x.values().values(), std::vector<float>(4, -0.5f));
  }
}

}  // namespace bireal
