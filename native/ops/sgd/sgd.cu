// sgd: one block updates one item (a filter, or 4096 elements); limited by memory, 20 bytes an element.
#include "ops/adam/update.cuh"
#include "ops/sgd/sgd.h"
#include "ops/sgd/sgd_params.h"

namespace bireal::cuda {

// Skipped while the step is not finite: the flag is the same for every block, so all of them leave.
template <SgdForm kForm>
__device__ __forceinline__ void sgd(const SgdParams& k) {
  if (k.state->nonfinite != 0) return;
  const UpdateItem item = k.items[blockIdx.x];
  if (item.frozen) return;
  const float lr = float(k.state->lr), momentum = float(k.momentum);
  update_item(item, k.p, k.g, unscale_factor(k.scale), [&](int64_t i, float gradient) {
    gradient = fmaf(item.decay, k.p[i], gradient);
    const float b = fmaf(momentum, k.b[i], kForm == SgdForm::kPyTorch ? gradient : lr * gradient);
    const float p = k.p[i] - (kForm == SgdForm::kPyTorch ? lr * b : b);
    k.b[i] = b;
    k.p[i] = p;
    return p;
  });
}

extern "C" __global__ void __launch_bounds__(kUpdateThreads) sgd_pytorch_f32_kernel(SgdParams k) { sgd<SgdForm::kPyTorch>(k); }

extern "C" __global__ void __launch_bounds__(kUpdateThreads) sgd_caffe_f32_kernel(SgdParams k) { sgd<SgdForm::kCaffe>(k); }

}  // namespace bireal::cuda
