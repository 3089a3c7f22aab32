// linear: fully connected layer with bias, on the CPU through oneDNN and, for bwd_weight, a loop of our own.
//
//   fwd         y[n,k] = bias[k] + sum_c x[n,c] * w[k,c]
//   bwd_input   dx[n,c] = sum_k dy[n,k] * w[k,c]
//   bwd_weight  dw[k,c] = sum_n dy[n,k] * x[n,c],   dbias[k] = sum_n dy[n,k]
//
// Shapes    x, dx [n,C], w, dw [K,C], bias, dbias [K], y, dy [n,K], all float; 1 <= n <= N of the plan
// Aliasing  none.  Allocates nothing in a run.  Workspace  plan.workspace_bytes, 64-byte aligned
// Order     fixed slices or rows, each on one thread: the same bits for any thread count; dbias in double, rounded once;
//           against the reference within (terms + 4) * 2^-24 * sum|terms|
// Throws    InvalidArgument from plan(); DeviceError if oneDNN fails
// Source    PyTorch Linear; library: oneDNN 3.11
#pragma once
#include <memory>

#include "core/shapes.h"

namespace bireal::ref {
void linear_fwd(float* y, const float* x, const float* w, const float* bias, int64_t n, int64_t C, int64_t K);
void linear_bwd_input(float* dx, const float* dy, const float* w, int64_t n, int64_t C, int64_t K);
void linear_bwd_weight(float* dw, float* dbias, const float* x, const float* dy, int64_t n, int64_t C, int64_t K, GradMode mode);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
struct LinearPlan {
  int64_t N = 0, C = 0, K = 0;
  int64_t workspace_bytes = 0;
  struct Primitives;
  std::shared_ptr<const Primitives> primitives;
};
LinearPlan linear_plan(Context& context, int64_t N, int64_t C, int64_t K);
void linear_fwd(Context& context, const LinearPlan& plan, float* y, const float* x, const float* w, const float* bias, int64_t n,
                void* workspace);
void linear_bwd_input(Context& context, const LinearPlan& plan, float* dx, const float* dy, const float* w, int64_t n,
                      void* workspace);
void linear_bwd_weight(Context& context, const LinearPlan& plan, float* dw, float* dbias, const float* x, const float* dy,
                       int64_t n, GradMode mode, void* workspace);
}  // namespace bireal::cpu
