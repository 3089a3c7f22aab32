#include <string>

#include "cuda/launch.h"
#include "ops/image/image.h"
#include "ops/image/image_params.h"

namespace bireal::cuda {

void image_normalize(const Device& device, void* x, DType type, const uint8_t* pixels, const ImageCrop* crops, const double* mean,
                     const double* std, const ImageShape& shape, int64_t n, Stream stream) {
  const int64_t limit = int64_t(1) << 31;
  require(
      shape.W0 * shape.C < limit && shape.W * shape.C < limit && shape.H0 < limit && shape.pad < limit / 4 && n * shape.H < limit,
      "image: rows of " + std::to_string(shape.W0) + " x " + std::to_string(shape.C) + " and " + std::to_string(n) +
          " images of " + std::to_string(shape.H) + " rows are beyond 2^31");
  const ImageParams params{x,
                           pixels,
                           crops,
                           mean,
                           std,
                           int32_t(shape.H0),
                           int32_t(shape.W0),
                           int32_t(shape.C),
                           int32_t(shape.H),
                           int32_t(shape.W),
                           int32_t(shape.pad),
                           uint32_t(n * shape.H)};
  launch(device, storage_kernel("image_normalize", type), LaunchShape(256, ceil_div(n * shape.H, 8)), params, stream);
}

}  // namespace bireal::cuda
