// adam: one block updates one item (a filter, or 4096 elements); limited by memory, 28 bytes an element.
#include "ops/adam/adam_params.h"
#include "ops/adam/update.cuh"

namespace bireal::cuda {

// base^exponent for an exponent that is a whole number >= 0, by squaring in pairs of doubles: the error is far below that of a
// double, so that the result is the correctly rounded one, as std::pow's almost always is.
__device__ __forceinline__ double whole_power(double base, double exponent) {
  double high = 1, low = 0, base_low = 0;
  for (long long n = (long long)exponent; n > 0; n /= 2) {
    if (n % 2) {
      double product = high * base, error = fma(high, base, -product) + (high * base_low + low * base);
      high = product + error;
      low = error - (high - product);
    }
    double square = base * base, error = fma(base, base, -square) + 2 * base * base_low;
    base = square + error;
    base_low = error - (base - square);
  }
  return high;
}

// Skipped while the step is not finite: the flag is the same for every block, so all of them leave.
extern "C" __global__ void __launch_bounds__(kUpdateThreads) adam_f32_kernel(AdamParams k) {
  if (k.state->nonfinite != 0 || k.items[blockIdx.x].frozen) return;

  // One thread each, then shared, because consumer GPUs are slow in double.
  __shared__ float step_size, root_correction;
  if (threadIdx.x == 0) step_size = float(k.state->lr / (1 - whole_power(k.spec.beta1, k.state->step)));
  if (threadIdx.x == 32) root_correction = float(sqrt(1 - whole_power(k.spec.beta2, k.state->step)));
  __syncthreads();
  const UpdateItem item = k.items[blockIdx.x];
  const float beta1 = float(k.spec.beta1), beta2 = float(k.spec.beta2), eps = float(k.spec.eps);
  const float rest1 = float(1 - k.spec.beta1), rest2 = float(1 - k.spec.beta2);
  update_item(item, k.p, k.g, unscale_factor(k.scale), [&](int64_t i, float gradient) {
    gradient = fmaf(item.decay, k.p[i], gradient);
    const float m = fmaf(beta1, k.m[i], rest1 * gradient);
    const float v = fmaf(beta2, k.v[i], (rest2 * gradient) * gradient);
    const float p = k.p[i] - step_size * (m / (sqrtf(v) / root_correction + eps));
    k.m[i] = m;
    k.v[i] = v;
    k.p[i] = p;
    return p;
  });
}

}  // namespace bireal::cuda
