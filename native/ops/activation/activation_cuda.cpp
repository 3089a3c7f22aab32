#include "cuda/launch.h"
#include "ops/activation/activation.h"
#include "ops/activation/activation_params.h"

namespace bireal::cuda {

void activation_fwd(const Device& device, void* y, const void* x, DType type, int64_t count, ActivationKind kind, float slope,
                    Stream stream) {
  const ActivationParams params{y, nullptr, x, nullptr, count, kind, slope};
  launch(device, storage_kernel("activation_fwd", type), LaunchShape(256, ceil_div(count, 1024)), params, stream);
}

void activation_bwd(const Device& device, void* dx, const void* dy, const void* x, const void* shortcut, DType type,
                    int64_t count, ActivationKind kind, float slope, Stream stream) {
  const ActivationParams params{dx, dy, x, shortcut, count, kind, slope};
  launch(device, storage_kernel("activation_bwd", type), LaunchShape(256, ceil_div(count, 1024)), params, stream);
}

}  // namespace bireal::cuda
