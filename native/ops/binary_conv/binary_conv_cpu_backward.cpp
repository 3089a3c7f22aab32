// Backward passes of binary_conv: choice of the arithmetic, and float32 convolutions of oneDNN, whose +-1 operand is unpacked
// slice by slice.
#include <algorithm>
#include <cstring>

#include "cpu/context.h"
#include "cpu/onednn.h"
#include "ops/binary_conv/binary_conv_cpu.h"

namespace bireal::cpu {

using onednn::aligned64;
using onednn::ConvPass;

struct BinaryConvPlan::Backward {
  onednn::SlicedConv input, weight;
  int64_t weight_bytes;  // the +-alpha weights as floats
  int64_t slice_bytes;   // the +-1 activations of a slice, one such buffer for each worker
  int thread_count;

  Backward(const Conv2dShape& shape, int threads)
      : input("binary_conv_bwd_input", ConvPass::kBwdInput, shape, threads),
        weight("binary_conv_bwd_weight", ConvPass::kBwdWeight, shape, threads),
        weight_bytes(aligned64(shape.K * shape.taps() * shape.C * int64_t(sizeof(float)))),
        slice_bytes(aligned64(shape.input_count(weight.slice_images()) * int64_t(sizeof(float)))),
        thread_count(threads) {}
};

// values [rows, C] = scale * sign of bits [rows, Cw]. Four channels at a time from a table of the 16 nibbles: 1 % of the
// convolution that follows, without instructions beyond SSE2.
static void unpack_signs(float* values, const word_t* bits, int64_t rows, int64_t C, float scale) {
  float table[16][4];
  for (int nibble = 0; nibble < 16; ++nibble)
    for (int c = 0; c < 4; ++c) table[nibble][c] = nibble >> c & 1 ? -scale : scale;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t base = 0; base < C; base += kWordBits) {
      word_t word = *bits++;
      int64_t end = std::min<int64_t>(C, base + kWordBits), c = base;
      for (; c + 4 <= end; c += 4, word >>= 4) std::memcpy(values + row * C + c, table[word & 15], 4 * sizeof(float));
      for (int lane = 0; c < end; ++c, ++lane) values[row * C + c] = table[word & 15][lane];
    }
}

std::shared_ptr<const BinaryConvPlan::Backward> binary_conv_plan_backward(Context& context, const Conv2dShape& shape) {
  return std::make_shared<const BinaryConvPlan::Backward>(shape, context.thread_count());
}

int64_t binary_conv_backward_workspace_bytes(const BinaryConvPlan::Backward& backward) {
  return std::max(backward.weight_bytes + backward.input.workspace_bytes(),
                  backward.thread_count * backward.slice_bytes + backward.weight.workspace_bytes());
}

void binary_conv_bwd_input_float32(Context& context, const BinaryConvPlan& plan, float* dx, const float* dz, const float* alpha,
                                   const word_t* w, int64_t n, void* workspace) {
  const Conv2dShape& s = plan.shape;
  float* values = static_cast<float*>(workspace);
  const int64_t row = s.taps() * s.C, words = s.taps() * word_count(s.C);
  context.rows(s.K, row * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) unpack_signs(values + k * row, w + k * words, s.taps(), s.C, alpha[k]);
  });
  plan.backward->input.run(context, dx, dz, values, n, static_cast<char*>(workspace) + plan.backward->weight_bytes);
}

void binary_conv_bwd_weight_float32(Context& context, const BinaryConvPlan& plan, float* dw, const word_t* x, const float* dz,
                                    int64_t n, GradMode mode, void* workspace) {
  const Conv2dShape& s = plan.shape;
  const BinaryConvPlan::Backward& backward = *plan.backward;
  const int64_t pixels = s.H * s.W;
  auto x_of = [&](int worker, int64_t begin, int64_t count) {
    float* values = reinterpret_cast<float*>(static_cast<char*>(workspace) + worker * backward.slice_bytes);
    unpack_signs(values, x + begin * pixels * word_count(s.C), count * pixels, s.C, 1.0f);
    return static_cast<const float*>(values);
  };
  backward.weight.run_weight(context, dw, x_of, dz, n, mode,
                             static_cast<char*>(workspace) + backward.thread_count * backward.slice_bytes);
}

void binary_conv_bwd_input(Context& context, const BinaryConvPlan& plan, float* dx, const float* dz, const float* alpha,
                           const word_t* w, int64_t n, void* workspace) {
  require(plan.backward != nullptr, "binary_conv: this plan has no backward passes");
  if (plan.fixed16 && binary_conv_bwd_input_fixed16(context, plan, dx, dz, alpha, w, n, workspace)) return;
  binary_conv_bwd_input_float32(context, plan, dx, dz, alpha, w, n, workspace);
}

void binary_conv_bwd_weight(Context& context, const BinaryConvPlan& plan, float* dw, const word_t* x, const float* dz, int64_t n,
                            GradMode mode, void* workspace) {
  require(plan.backward != nullptr, "binary_conv: this plan has no backward passes");
  if (plan.fixed16 && binary_conv_bwd_weight_fixed16(context, plan, dw, x, dz, n, mode, workspace)) return;
  binary_conv_bwd_weight_float32(context, plan, dw, x, dz, n, mode, workspace);
}

}  // namespace bireal::cpu
