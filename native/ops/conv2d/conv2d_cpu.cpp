#include <algorithm>

#include "cpu/context.h"
#include "cpu/onednn.h"
#include "ops/conv2d/conv2d.h"

namespace bireal::cpu {
using onednn::ConvPass;
using onednn::SlicedConv;

struct Conv2dPlan::Primitives {
  SlicedConv fwd, bwd_input, bwd_weight;
};

Conv2dPlan conv2d_plan(Context& context, const Conv2dShape& shape) {
  shape.check("conv2d");
  int threads = context.thread_count();
  auto primitives = std::make_shared<const Conv2dPlan::Primitives>(
      Conv2dPlan::Primitives{SlicedConv("conv2d_fwd", ConvPass::kFwd, shape, threads),
                             SlicedConv("conv2d_bwd_input", ConvPass::kBwdInput, shape, threads),
                             SlicedConv("conv2d_bwd_weight", ConvPass::kBwdWeight, shape, threads)});
  Conv2dPlan plan;
  plan.shape = shape;
  plan.kernel_name = primitives->fwd.kernel_name().c_str();
  plan.workspace_bytes = std::max(
      {primitives->fwd.workspace_bytes(), primitives->bwd_input.workspace_bytes(), primitives->bwd_weight.workspace_bytes()});
  plan.primitives = std::move(primitives);
  return plan;
}

void conv2d_fwd(Context& context, const Conv2dPlan& plan, float* y, const float* x, const float* w, int64_t n, void* workspace) {
  plan.primitives->fwd.run(context, y, x, w, n, workspace);
}

void conv2d_bwd_input(Context& context, const Conv2dPlan& plan, float* dx, const float* dy, const float* w, int64_t n,
                      void* workspace) {
  plan.primitives->bwd_input.run(context, dx, dy, w, n, workspace);
}

void conv2d_bwd_weight(Context& context, const Conv2dPlan& plan, float* dw, const float* x, const float* dy, int64_t n,
                       GradMode mode, void* workspace) {
  const int64_t image_count = plan.shape.input_count(1);
  plan.primitives->bwd_weight.run_weight(
      context, dw, [&](int, int64_t begin, int64_t) { return x + begin * image_count; }, dy, n, mode, workspace);
}

}  // namespace bireal::cpu
