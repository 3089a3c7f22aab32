// image: uint8 images to a normalised float batch, with zero padding, crop and horizontal flip.
//
//   The source is padded by `pad` pixels of value 0 on each side; the crop [H,W] starts at row crop[i].top, column crop[i].left
//   of the padded image; flip mirrors the crop left-right.
//   x[i,h,w,c] = fma(pixel, 1/(255 std[c]), -mean[c]/std[c])             (both constants computed in double, rounded once)
//
// Shapes    pixels [n,H0,W0,C] uint8, crops [n] of (top, left, flip) int32, x [n,H,W,C] float, mean, std [C] double; C <= 256
// Range     0 <= top <= H0 + 2 pad - H, likewise left; flip 0 or 1; check() rejects a crop larger than the padded image
// Aliasing  none.  Allocates nothing.  Workspace  none
// Order     elementwise: the same bits on every ISA and thread count
// Throws    InvalidArgument from check(), and from the run before it writes anything if a crop lies outside its image or flip is
//           neither 0 nor 1 (the loader made it: a bug, not a user's error)
// Source    torchvision RandomCrop(padding) + RandomHorizontalFlip + ToTensor + Normalize
#pragma once
#include <stdint.h>

#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal {
struct ImageCrop {
  int32_t top, left, flip;
};
struct ImageShape {
  int64_t N, H0, W0, C, H, W, pad;
  void check() const;
  void check_crops(const ImageCrop* crops, int64_t n) const;  // called by the run
};
}  // namespace bireal
namespace bireal::ref {
void image_normalize(float* x, const uint8_t* pixels, const ImageCrop* crops, const double* mean, const double* std,
                     const ImageShape& shape, int64_t n);
}
namespace bireal::cpu {
class Context;
void image_normalize(Context& context, float* x, const uint8_t* pixels, const ImageCrop* crops, const double* mean,
                     const double* std, const ImageShape& shape, int64_t n);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// x of `type` kF32, kF16 or kBf16, rounded once. crops, mean and std lie in device memory, so the caller checks the crops
/// (check_crops) before it copies them there; a wrong one reads padding, nothing outside the pixels.
void image_normalize(const Device& device, void* x, DType type, const uint8_t* pixels, const ImageCrop* crops, const double* mean,
                     const double* std, const ImageShape& shape, int64_t n, Stream stream);
}  // namespace bireal::cuda
