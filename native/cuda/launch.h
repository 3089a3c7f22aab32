// One kernel launch with its check. Kernels take one struct of parameters by value (<op>_params.h), so that a launcher and its
// kernel cannot disagree about them.
#pragma once
#include <string>
#include <type_traits>

#include "core/shapes.h"
#include "cuda/device.h"

namespace bireal::cuda {

struct LaunchShape {
  int64_t blocks_x, blocks_y, blocks_z;
  int threads;  // of a block, in x
  int64_t dynamic_shared_bytes;
  explicit LaunchShape(int threads, int64_t blocks_x, int64_t blocks_y = 1, int64_t blocks_z = 1,
                       int64_t dynamic_shared_bytes = 0)
      : blocks_x(blocks_x),
        blocks_y(blocks_y),
        blocks_z(blocks_z),
        threads(threads),
        dynamic_shared_bytes(dynamic_shared_bytes) {}
};

/// Throws DeviceError(kernel, ...) if the driver refuses, or, where the device synchronizes, if the kernel fails.
/// Launches nothing if the grid is empty.
void launch_kernel(const Device& device, const std::string& kernel, const LaunchShape& shape, const void* params, Stream stream);

template <class Params>
void launch(const Device& device, const std::string& kernel, const LaunchShape& shape, const Params& params, Stream stream) {
  static_assert(std::is_trivially_copyable_v<Params> && !std::is_pointer_v<Params>);
  static_assert(sizeof(Params) <= 4096, "a kernel takes at most 4 KB of parameters");
  launch_kernel(device, kernel, shape, &params, stream);
}

/// "sign_pack_fwd" and kF16 give "sign_pack_fwd_f16_kernel". Throws InvalidArgument unless type is kF32, kF16 or kBf16.
std::string storage_kernel(const std::string& op_pass, DType type);

/// For kernels with a second type, v, which must be kI16, kI32 or `type`: "batch_norm_apply_f16_i16_kernel".
std::string storage_kernel(const std::string& op_pass, DType type, DType v_type);

/// "f32", "f16", "bf16", "i16" or "i32". Throws InvalidArgument for any other type.
const char* type_suffix(DType type);

inline int64_t ceil_div(int64_t count, int64_t by) { return (count + by - 1) / by; }

}  // namespace bireal::cuda
