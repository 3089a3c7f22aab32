// What the files of binary_conv on the CPU, its test and its benchmark share beyond the contract.
#pragma once
#include <vector>

#include "ops/binary_conv/binary_conv.h"

namespace bireal::cpu {
/// The forward kernels that can run `shape` on this context, best first.
std::vector<const char*> binary_conv_kernel_names(const Context& context, const Conv2dShape& shape);
/// binary_conv_plan with the forward kernel chosen by the caller, so that tests reach those that this machine would not choose.
BinaryConvPlan binary_conv_plan_kernel(Context& context, const Conv2dShape& shape, const char* kernel_name);

std::shared_ptr<const BinaryConvPlan::Backward> binary_conv_plan_backward(Context& context, const Conv2dShape& shape);
int64_t binary_conv_backward_workspace_bytes(const BinaryConvPlan::Backward& backward);
}  // namespace bireal::cpu
