// finite_norm: one block sums the squares of one item, then one block adds these sums in a fixed order; limited by memory, 4
// bytes an element (8 for binary weights, whose rule looks at the weight).
#include "ops/adam/update.cuh"
#include "ops/finite_norm/finite_norm_params.h"

namespace bireal::cuda {

extern "C" __global__ void __launch_bounds__(kUpdateThreads) finite_norm_items_f32_kernel(FiniteNormParams k) {
  const UpdateItem item = k.items[blockIdx.x];
  const bool filter = item.bits != nullptr;
  const int count = item.taps * item.C;
  const float alpha = filter ? *item.alpha : 0.0f, inverse_n = 1.0f / float(count);
  __shared__ double scratch[kUpdateThreads / 32];
  double sum = 0;
  for (int j = threadIdx.x; j < count; j += kUpdateThreads) {
    float gradient = k.g[item.begin + j];
    if (filter) gradient = ruled_gradient(gradient, k.p[item.begin + j], alpha, inverse_n, item.rule);
    sum += double(gradient) * double(gradient);
  }
  sum = block_sum<kUpdateThreads>(sum, scratch);
  if (threadIdx.x == 0) k.sums[blockIdx.x] = sum;
}

// One block. With a loss scale it also sets the factor for the optimizers of this step and the scale of the next (step_state.h).
extern "C" __global__ void __launch_bounds__(kUpdateThreads) finite_norm_total_f64_kernel(FiniteNormParams k) {
  __shared__ double scratch[kUpdateThreads / 32];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < k.item_count; i += kUpdateThreads) sum += k.sums[i];
  sum = block_sum<kUpdateThreads>(sum, scratch);
  if (threadIdx.x != 0) return;
  const double unscale = k.scale ? 1 / k.scale->scale : 1;
  const double norm = sqrt(sum) * unscale;
  const bool loss_finite = isfinite(k.metrics[0]), finite = isfinite(norm) && loss_finite;
  k.state->grad_norm = norm;
  k.state->nonfinite = finite ? 0 : 1;
  if (!k.scale) return;
  k.scale->unscale = unscale;
  if (finite) {
    k.scale->good_steps += 1;
    if (k.scale->good_steps >= k.scale->growth_interval) {
      k.scale->scale = fmin(2 * k.scale->scale, 0x1p24);
      k.scale->good_steps = 0;
    }
  } else if (loss_finite) {
    k.scale->scale = fmax(k.scale->scale / 2, 1.0);
    k.scale->good_steps = 0;
  }
}

}  // namespace bireal::cuda
