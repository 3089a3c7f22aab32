// Parameters of the image kernel. T: float, half or bfloat16.
#pragma once
#include "ops/image/image.h"

namespace bireal::cuda {
struct ImageParams {
  void* x;                // T [n,H,W,C]
  const uint8_t* pixels;  // [n,H0,W0,C]
  const ImageCrop* crops;
  const double *mean, *std;  // [C]
  int32_t H0, W0, C, H, W, pad;
  uint32_t rows;  // n*H
};
}  // namespace bireal::cuda
