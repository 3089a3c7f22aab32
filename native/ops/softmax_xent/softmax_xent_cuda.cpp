#include <string>

#include "cuda/launch.h"
#include "ops/softmax_xent/softmax_xent.h"
#include "ops/softmax_xent/softmax_xent_params.h"

namespace bireal::cuda {

void softmax_xent(const Device& device, double* metrics, void* dlogits, const SoftmaxXentCuda& in, int64_t n, int64_t K,
                  GradMode mode, void* workspace, Stream stream) {
  require(K < (int64_t(1) << 31), "softmax_xent: " + std::to_string(K) + " classes are beyond 2^31");
  const SoftmaxXentParams params{metrics,
                                 static_cast<double*>(workspace),
                                 dlogits,
                                 in.logits,
                                 in.labels,
                                 in.teacher_logits,
                                 in.scale,
                                 in.smoothing,
                                 in.temperature,
                                 in.gradient_scale,
                                 in.smoothing / double(K),
                                 n,
                                 int32_t(K),
                                 mode == GradMode::kAccumulate};
  launch(device, storage_kernel("softmax_xent_rows", in.type), LaunchShape(128, ceil_div(n, 4)), params, stream);
  launch(device, "softmax_xent_metrics_f64_kernel", LaunchShape(32, 1), params, stream);
}

}  // namespace bireal::cuda
