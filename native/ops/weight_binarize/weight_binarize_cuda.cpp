#include "cuda/launch.h"
#include "ops/weight_binarize/weight_binarize.h"
#include "ops/weight_binarize/weight_binarize_params.h"

namespace bireal::cuda {

// Launches once for every kTensors tensors: once for any network there is.
static void run(const Device& device, const char* kernel, const WeightTensor* tensors, int64_t count, int32_t rule,
                Stream stream) {
  for (int64_t begin = 0; begin < count; begin += WeightBinarizeParams::kTensors) {
    WeightBinarizeParams p{};
    p.rule = rule;
    int64_t blocks = 0;
    for (int64_t i = begin; i < count && p.tensor_count < WeightBinarizeParams::kTensors; ++i) {
      const WeightTensor& t = tensors[i];
      p.tensors[p.tensor_count++] = {t.w, t.g, t.bits, t.alpha, int32_t(t.K), int32_t(t.taps), int32_t(t.C), int32_t(blocks)};
      blocks += t.K;
    }
    launch(device, kernel, LaunchShape(128, blocks), p, stream);
  }
}

void weight_binarize_fwd(const Device& device, const WeightTensor* tensors, int64_t count, Stream stream) {
  run(device, "weight_binarize_fwd_kernel", tensors, count, 0, stream);
}

void weight_gradient(const Device& device, const WeightTensor* tensors, int64_t count, WeightGradient rule, Stream stream) {
  if (rule == WeightGradient::kStraightThrough) return;  // g stays as it is
  run(device, "weight_gradient_bwd_kernel", tensors, count, int32_t(rule), stream);
}

}  // namespace bireal::cuda
