#include "cuda/launch.h"
#include "ops/cast/cast.h"
#include "ops/cast/cast_params.h"

namespace bireal::cuda {

void cast_narrow(const Device& device, void* out, DType type, const float* x, int64_t count, Stream stream) {
  const CastParams params{out, x, count, false};
  launch(device, storage_kernel("cast_narrow", type), LaunchShape(256, ceil_div(count, 1024)), params, stream);
}

void cast_widen(const Device& device, float* out, const void* x, DType type, int64_t count, GradMode mode, Stream stream) {
  const CastParams params{out, x, count, mode == GradMode::kAccumulate};
  launch(device, storage_kernel("cast_widen", type), LaunchShape(256, ceil_div(count, 1024)), params, stream);
}

}  // namespace bireal::cuda
