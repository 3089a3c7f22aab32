#include "cuda/launch.h"

namespace bireal::cuda {

void launch_kernel(const Device& device, const std::string& kernel, const LaunchShape& shape, const void* params, Stream stream) {
  if (shape.blocks_x <= 0 || shape.blocks_y <= 0 || shape.blocks_z <= 0) return;
  require(shape.blocks_x < (int64_t(1) << 31) && shape.blocks_y < 65536 && shape.blocks_z < 65536, [&] {
    return kernel + ": grid of " + std::to_string(shape.blocks_x) + " x " + std::to_string(shape.blocks_y) + " x " +
           std::to_string(shape.blocks_z) + " blocks is beyond 2^31 - 1 x 65535 x 65535";
  });
  const Driver& driver = device.driver();
  device.make_current();
  void* arguments[] = {const_cast<void*>(params)};
  driver.check(
      driver.cuLaunchKernel(device.function(kernel), unsigned(shape.blocks_x), unsigned(shape.blocks_y), unsigned(shape.blocks_z),
                            unsigned(shape.threads), 1, 1, unsigned(shape.dynamic_shared_bytes), stream, arguments, nullptr),
      kernel.c_str());
  if (!device.synchronizes()) return;
  int capturing = 0;  // a stream that is being captured runs nothing yet and must not be waited for
  driver.check(driver.cuStreamIsCapturing(stream, &capturing), kernel.c_str());
  if (!capturing) driver.check(driver.cuStreamSynchronize(stream), kernel.c_str());
}

const char* type_suffix(DType type) {
  switch (type) {
    case DType::kF32: return "f32";
    case DType::kF16: return "f16";
    case DType::kBf16: return "bf16";
    case DType::kI16: return "i16";
    case DType::kI32: return "i32";
    default: throw InvalidArgument("cuda: no kernel takes elements of type code " + std::to_string(int(type)));
  }
}

static void require_stored(const std::string& op_pass, DType type) {
  require(type == DType::kF32 || type == DType::kF16 || type == DType::kBf16,
          [&] { return op_pass + ": stored values must be f32, f16 or bf16, got type code " + std::to_string(int(type)); });
}

std::string storage_kernel(const std::string& op_pass, DType type) {
  require_stored(op_pass, type);
  return op_pass + "_" + type_suffix(type) + "_kernel";
}

std::string storage_kernel(const std::string& op_pass, DType type, DType v_type) {
  require_stored(op_pass, type);
  require(v_type == DType::kI16 || v_type == DType::kI32 || v_type == type, [&] {
    return op_pass + ": v must be i16, i32 or " + type_suffix(type) + ", got type code " + std::to_string(int(v_type));
  });
  return op_pass + "_" + type_suffix(type) + "_" + type_suffix(v_type) + "_kernel";
}

}  // namespace bireal::cuda
