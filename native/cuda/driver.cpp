#include "cuda/driver.h"

#include <dlfcn.h>

namespace bireal::cuda {

template <class Function>
static void resolve(void* handle, const std::string& library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, symbol));
  if (!function)
    throw DeviceError("load " + library, 0,
                      std::string("it has no ") + symbol + "; the NVIDIA driver is older than R450: update it", false);
}

Driver::Driver(const std::string& library_) : library(library_) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!handle) {
    const char* said = dlerror();
    throw DeviceError("load " + library, 0,
                      std::string(said ? said : "unknown error") + "; install the NVIDIA driver, or choose backend cpu", false);
  }
  // The names are those that cuda.h maps the plain names to.
  auto get = [&](const char* symbol, auto& function) { resolve(handle, library, symbol, function); };
  get("cuInit", cuInit);
  get("cuDriverGetVersion", cuDriverGetVersion);
  get("cuGetErrorName", cuGetErrorName);
  get("cuGetErrorString", cuGetErrorString);
  get("cuDeviceGetCount", cuDeviceGetCount);
  get("cuDeviceGet", cuDeviceGet);
  get("cuDeviceGetName", cuDeviceGetName);
  get("cuDeviceGetAttribute", cuDeviceGetAttribute);
  get("cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain);
  get("cuDevicePrimaryCtxRelease_v2", cuDevicePrimaryCtxRelease);
  get("cuCtxSetCurrent", cuCtxSetCurrent);
  get("cuModuleLoadDataEx", cuModuleLoadDataEx);
  get("cuModuleUnload", cuModuleUnload);
  get("cuModuleGetFunction", cuModuleGetFunction);
  get("cuFuncSetAttribute", cuFuncSetAttribute);
  get("cuLaunchKernel", cuLaunchKernel);
  get("cuStreamCreate", cuStreamCreate);
  get("cuStreamDestroy_v2", cuStreamDestroy);
  get("cuStreamSynchronize", cuStreamSynchronize);
  get("cuStreamIsCapturing", cuStreamIsCapturing);
  get("cuEventCreate", cuEventCreate);
  get("cuEventDestroy_v2", cuEventDestroy);
  get("cuEventRecord", cuEventRecord);
  get("cuEventSynchronize", cuEventSynchronize);
  get("cuEventElapsedTime", cuEventElapsedTime);
  get("cuMemAlloc_v2", cuMemAlloc);
  get("cuMemFree_v2", cuMemFree);
  get("cuMemcpyHtoDAsync_v2", cuMemcpyHtoDAsync);
  get("cuMemcpyDtoHAsync_v2", cuMemcpyDtoHAsync);
  get("cuMemsetD8Async", cuMemsetD8Async);
}

void Driver::check(int result, const char* op) const {
  if (result == 0) return;
  const char *name = nullptr, *text = nullptr;
  cuGetErrorName(result, &name);
  cuGetErrorString(result, &text);
  throw DeviceError(op, result, std::string(name ? name : "unknown CUDA error") + (text ? std::string(", ") + text : ""),
                    is_fatal(result));
}

bool is_fatal(int result) {
  switch (result) {
    case 4:    // DEINITIALIZED: the process is ending
    case 46:   // DEVICE_UNAVAILABLE
    case 214:  // ECC_UNCORRECTABLE
    case 220:  // NVLINK_UNCORRECTABLE
    case 226:  // CONTAINED
    case 700:  // ILLEGAL_ADDRESS
    case 702:  // LAUNCH_TIMEOUT
    case 709:  // CONTEXT_IS_DESTROYED
    case 710:  // ASSERT
    case 714:  // HARDWARE_STACK_ERROR
    case 715:  // ILLEGAL_INSTRUCTION
    case 716:  // MISALIGNED_ADDRESS
    case 717:  // INVALID_ADDRESS_SPACE
    case 718:  // INVALID_PC
    case 719:  // LAUNCH_FAILED
    case 721:  // TENSOR_MEMORY_LEAK
    case 999:  // UNKNOWN
      return true;
    default: return false;
  }
}

}  // namespace bireal::cuda
