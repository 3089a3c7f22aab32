#include "cuda/launch.h"
#include "ops/pool2d/pool2d.h"
#include "ops/pool2d/pool2d_params.h"

namespace bireal::cuda {

PoolShape pool_shape(const char* op, const Conv2dShape& shape, int64_t pixels_of_image, int64_t n) {
  const int64_t limit = int64_t(1) << 31;
  require(pixels_of_image * n < limit, std::string(op) + ": " + std::to_string(n) + " images of " +
                                           std::to_string(pixels_of_image) +
                                           " pixels are too many for one launch (2^31 pixels); use a smaller batch");
  for (int64_t v : {shape.H, shape.W, shape.C, shape.R, shape.S, shape.stride, shape.pad, shape.H * shape.W})
    require(v < limit / 4, std::string(op) + ": " + shape.text() + " has a size beyond 2^29");
  return {int32_t(shape.H),      int32_t(shape.W),   int32_t(shape.C),   int32_t(shape.R),   int32_t(shape.S),
          int32_t(shape.stride), int32_t(shape.pad), int32_t(shape.P()), int32_t(shape.Q()), uint32_t(pixels_of_image * n)};
}

static LaunchShape launch_shape(const PoolShape& shape) {
  return LaunchShape(256, ceil_div(shape.pixels, 8), ceil_div(shape.C, 32));
}

void avg_pool_fwd(const Device& device, void* y, const void* x, DType type, const Conv2dShape& shape, int64_t n, Stream stream) {
  const PoolFwdParams params{y, x, pool_shape("avg_pool_fwd", shape, shape.P() * shape.Q(), n)};
  launch(device, storage_kernel("avg_pool_fwd", type), launch_shape(params.shape), params, stream);
}

void avg_pool_bwd(const Device& device, void* dx, const void* dy, DType type, const Conv2dShape& shape, int64_t n,
                  Stream stream) {
  const PoolBwdParams params{dx, dy, pool_shape("avg_pool_bwd", shape, shape.H * shape.W, n)};
  launch(device, storage_kernel("avg_pool_bwd", type), launch_shape(params.shape), params, stream);
}

}  // namespace bireal::cuda
