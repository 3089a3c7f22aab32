#include <string>

#include "core/error.h"
#include "cuda/launch.h"
#include "ops/cast/cast.h"
#include "ops/cast/cast_params.h"

namespace bireal::cuda {

/// One launch for each kTensors tensors; `item(i)` describes the i-th.
template <class Item>
static void launch_over_all(const Device& device, const char* pass, int64_t count, DType type, bool accumulate, Stream stream,
                            const Item& item) {
  for (int64_t begin = 0; begin < count; begin += CastParams::kTensors) {
    CastParams params{};
    params.accumulate = accumulate;
    int64_t blocks = 0;
    for (int64_t i = begin; i < count && params.tensor_count < CastParams::kTensors; ++i) {
      CastParams::Tensor tensor = item(i);
      tensor.first_block = uint32_t(blocks);
      blocks += ceil_div(tensor.count, CastParams::kBlockElements);
      params.tensors[params.tensor_count++] = tensor;
    }
    launch(device, storage_kernel(pass, type), LaunchShape(256, blocks), params, stream);
  }
}

static uint32_t checked(const char* pass, int64_t count) {
  require(count < int64_t(1) << 31,
          [&] { return std::string(pass) + ": a tensor of " + std::to_string(count) + " elements is beyond 32-bit indices"; });
  return uint32_t(count);
}

void cast_weights(const Device& device, const CastWeights* tensors, int64_t count, DType type, Stream stream) {
  launch_over_all(device, "cast_weights", count, type, false, stream, [&](int64_t i) {
    const CastWeights& t = tensors[i];
    return CastParams::Tensor{t.out, t.w, t.alpha, checked("cast_weights", t.count), uint32_t(t.filter_weights), 0};
  });
}

void cast_gradients(const Device& device, const CastGradient* tensors, int64_t count, DType type, GradMode mode, Stream stream) {
  launch_over_all(device, "cast_gradients", count, type, mode == GradMode::kAccumulate, stream, [&](int64_t i) {
    const CastGradient& t = tensors[i];
    return CastParams::Tensor{t.out, t.x, nullptr, checked("cast_gradients", t.count), 1, 0};
  });
}

}  // namespace bireal::cuda
