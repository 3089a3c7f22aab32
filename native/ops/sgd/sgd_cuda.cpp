#include "cuda/launch.h"
#include "ops/sgd/sgd.h"
#include "ops/sgd/sgd_params.h"

namespace bireal::cuda {

void sgd(const Device& device, float* p, float* b, const float* g, const UpdateItem* items, int64_t item_count,
         const StepState* state, const LossScale* scale, double momentum, SgdForm form, Stream stream) {
  const SgdParams params{p, b, g, items, state, scale, momentum};
  launch(device, form == SgdForm::kPyTorch ? "sgd_pytorch_f32_kernel" : "sgd_caffe_f32_kernel", LaunchShape(256, item_count),
         params, stream);
}

}  // namespace bireal::cuda
