// x[j] = fma(pixels[j], scale[j], shift[j]) over a stretch of bytes, one per instruction set.
#pragma once
#include <stdint.h>

namespace bireal::cpu {
using ImageScaleBytes = void(float* x, const uint8_t* pixels, const float* scale, const float* shift, int64_t count);
ImageScaleBytes image_scale_bytes_avx2, image_scale_bytes_avx512;
}  // namespace bireal::cpu
