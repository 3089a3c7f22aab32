// weight_binarize: bits and scale of the binary weights, and the gradient rules of their float masters.
//
//   alpha[k] = sum_i round(|w[k,i]| 2^40) / (n 2^40),   n = taps*C       bits[k, tap, c] = sign(w[k, tap, c])
//     round is to nearest, ties to even; the quotient is float(double(sum) / (double(n) * 2^40))
//   weight_gradient, in place on g = dL/dWb (Wb = alpha sign(w) is what the convolution used):
//     kClipped            g 1[|w| <= 1]                       (PyTorch code, default)
//     kMagnitudeAware     alpha g 1[|w| < 1]                  (paper)
//     kStraightThrough    g                                   (Caffe code)
//     kXnor               g (1/n + alpha 1[|w| <= 1])         (Rastegari et al. 2016)
//     float32, not fused, 1/n rounded once; where an indicator is 0 (also for w = NaN) its term is +0, whatever g is
//
// Shapes    w, g [K, taps, C] float (taps = R*S), bits [K, taps, Cw] word_t, alpha [K] float
// Range     finite |w| < 2^9; larger or not finite gives alpha = NaN for that filter (so the loss is not finite and the step
//           is refused); the integer sum is exact (at most 2^49 * n, n < 2^14 asked for by check())
// Aliasing  none for fwd; weight_gradient works in place.  Allocates nothing.  Workspace  none
// Order     integer sums: the same bits on every ISA, thread count and device. All-zero filter: alpha 0
// Throws    InvalidArgument from check() only
// Source    docs/decisions.md, rows 3 and 5; networks.md 0.2, 1A.3
#pragma once
#include "core/bits.h"
#include "cuda/forward.h"

namespace bireal {
/// Wire codes of bireal.backend.WeightGradient.
enum class WeightGradient : int32_t { kClipped = 0, kMagnitudeAware = 1, kStraightThrough = 2, kXnor = 3 };
/// Throws InvalidArgument unless K, taps, C >= 1 and taps*C < 2^14.
void weight_binarize_check(int64_t K, int64_t taps, int64_t C);
}  // namespace bireal
namespace bireal::ref {
void weight_binarize_fwd(word_t* bits, float* alpha, const float* w, int64_t K, int64_t taps, int64_t C);
void weight_gradient(float* g, const float* w, const float* alpha, int64_t K, int64_t taps, int64_t C, WeightGradient rule);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
void weight_binarize_fwd(Context& context, word_t* bits, float* alpha, const float* w, int64_t K, int64_t taps, int64_t C);
void weight_gradient(Context& context, float* g, const float* w, const float* alpha, int64_t K, int64_t taps, int64_t C,
                     WeightGradient rule);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// One parameter tensor of a launch over all of them; addresses on the device. g: weight_gradient only; bits: fwd only.
struct WeightTensor {
  const float* w;
  float* g;
  word_t* bits;
  float* alpha;
  int64_t K, taps, C;
};
/// `tensors` is on the host and not kept. Every shape has passed weight_binarize_check().
void weight_binarize_fwd(const Device& device, const WeightTensor* tensors, int64_t count, Stream stream);
void weight_gradient(const Device& device, const WeightTensor* tensors, int64_t count, WeightGradient rule, Stream stream);
}  // namespace bireal::cuda
