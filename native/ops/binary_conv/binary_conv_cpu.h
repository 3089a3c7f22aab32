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
void binary_conv_bwd_input_float32(Context& context, const BinaryConvPlan& plan, float* dx, const float* dz, const float* alpha,
                                   const word_t* w, int64_t n, void* workspace);
void binary_conv_bwd_weight_float32(Context& context, const BinaryConvPlan& plan, float* dw, const word_t* x, const float* dz,
                                    int64_t n, GradMode mode, void* workspace);

/// `float32_bytes`: the workspace of the two functions above.
std::shared_ptr<const BinaryConvPlan::Fixed16> binary_conv_plan_fixed16(Context& context, const Conv2dShape& shape,
                                                                        int64_t float32_bytes);
int64_t binary_conv_fixed16_workspace_bytes(const BinaryConvPlan::Fixed16& fixed16);
/// Each returns false, and has done nothing, where the shape is not for it.
bool binary_conv_bwd_input_fixed16(Context& context, const BinaryConvPlan& plan, float* dx, const float* dz, const float* alpha,
                                   const word_t* w, int64_t n, void* workspace);
bool binary_conv_bwd_weight_fixed16(Context& context, const BinaryConvPlan& plan, float* dw, const word_t* x, const float* dz,
                                    int64_t n, GradMode mode, void* workspace);
}  // namespace bireal::cpu
