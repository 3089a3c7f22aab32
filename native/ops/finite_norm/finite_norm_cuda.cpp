#include "cuda/launch.h"
#include "ops/finite_norm/finite_norm.h"
#include "ops/finite_norm/finite_norm_params.h"

namespace bireal::cuda {

int64_t finite_norm_workspace_bytes(int64_t item_count) { return item_count * int64_t(sizeof(double)); }

void finite_norm(const Device& device, StepState* state, LossScale* scale, const float* g, const float* p,
                 const UpdateItem* items, int64_t item_count, const double* metrics, void* workspace, Stream stream) {
  const FiniteNormParams params{state, scale, g, p, items, item_count, metrics, static_cast<double*>(workspace)};
  launch(device, "finite_norm_items_f32_kernel", LaunchShape(256, item_count), params, stream);
  launch(device, "finite_norm_total_f64_kernel", LaunchShape(256, 1), params, stream);
}

}  // namespace bireal::cuda
