#include "cuda/launch.h"
#include "ops/adam/adam.h"
#include "ops/adam/adam_params.h"

namespace bireal::cuda {

void adam(const Device& device, float* p, float* m, float* v, const float* g, const UpdateItem* items, int64_t item_count,
          const StepState* state, const LossScale* scale, const AdamSpec& spec, Stream stream) {
  const AdamParams params{p, m, v, g, items, state, scale, spec};
  launch(device, "adam_f32_kernel", LaunchShape(256, item_count), params, stream);
}

}  // namespace bireal::cuda
