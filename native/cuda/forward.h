// What the header of an op needs to declare its CUDA launchers.
#pragma once

namespace bireal::cuda {
class Device;
using Stream = struct CUstream_st*;  // CUstream
}  // namespace bireal::cuda
