#include <cmath>
#include <string>

#include "core/error.h"
#include "ops/image/image.h"

namespace bireal {

void ImageShape::check() const {
  auto at_least = [](int64_t v, int64_t least, const char* name) {
    require(v >= least, [&] {
      return "image: " + std::string(name) + " must be >= " + std::to_string(least) + ", got " + std::to_string(v);
    });
  };
  at_least(N, 1, "N"), at_least(H0, 1, "H0"), at_least(W0, 1, "W0"), at_least(C, 1, "C");
  at_least(H, 1, "H"), at_least(W, 1, "W"), at_least(pad, 0, "pad");
  require(C <= 256, [&] { return "image: C must be <= 256, got " + std::to_string(C); });
  require(H <= H0 + 2 * pad && W <= W0 + 2 * pad, [&] {
    return "image: a crop of " + std::to_string(H) + "x" + std::to_string(W) + " is larger than the image of " +
           std::to_string(H0) + "x" + std::to_string(W0) + " padded by " + std::to_string(pad);
  });
}

void ImageShape::check_crops(const ImageCrop* crops, int64_t n) const {
  for (int64_t i = 0; i < n; ++i) {
    const ImageCrop& crop = crops[i];
    require(crop.top >= 0 && crop.top <= H0 + 2 * pad - H && crop.left >= 0 && crop.left <= W0 + 2 * pad - W, [&] {
      return "image: crop " + std::to_string(i) + " starts at row " + std::to_string(crop.top) + ", column " +
             std::to_string(crop.left) + "; the last possible one is row " + std::to_string(H0 + 2 * pad - H) + ", column " +
             std::to_string(W0 + 2 * pad - W);
    });
    require(crop.flip == 0 || crop.flip == 1,
            [&] { return "image: flip of crop " + std::to_string(i) + " must be 0 or 1, got " + std::to_string(crop.flip); });
  }
}

}  // namespace bireal

namespace bireal::ref {

void image_normalize(float* x, const uint8_t* pixels, const ImageCrop* crops, const double* mean, const double* std,
                     const ImageShape& shape, int64_t n) {
  shape.check_crops(crops, n);
  int64_t H0 = shape.H0, W0 = shape.W0, C = shape.C, H = shape.H, W = shape.W;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t w = 0; w < W; ++w)
        for (int64_t c = 0; c < C; ++c) {
          int64_t row = crops[i].top + h - shape.pad;
          int64_t column = crops[i].left + (crops[i].flip ? W - 1 - w : w) - shape.pad;
          bool inside = row >= 0 && row < H0 && column >= 0 && column < W0;
          float pixel = inside ? float(pixels[((i * H0 + row) * W0 + column) * C + c]) : 0.0f;
          float scale = float(1 / (255 * std[c])), shift = float(-mean[c] / std[c]);
          x[((i * H + h) * W + w) * C + c] = std::fma(pixel, scale, shift);
        }
}

}  // namespace bireal::ref
