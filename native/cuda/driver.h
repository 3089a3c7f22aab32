// The CUDA driver API, resolved at run time: one native library loads with and without CUDA, and no CUDA header is needed to
// build it. Only what our own code calls; everything else of the API is JCuda's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/error.h"
#include "cuda/forward.h"

namespace bireal::cuda {

/// Handles of the driver, as it hands them out.
using ContextHandle = struct CUctx_st*;
using ModuleHandle = struct CUmod_st*;
using FunctionHandle = struct CUfunc_st*;
using EventHandle = struct CUevent_st*;
using DevicePointer = unsigned long long;

/// Numbers of cuda.h (CUdevice_attribute, CUfunction_attribute, CUjit_option) that our code passes.
enum DeviceAttribute : int {
  kMultiprocessorCount = 16,
  kComputeCapabilityMajor = 75,
  kComputeCapabilityMinor = 76,
};
enum FunctionAttribute : int { kMaxDynamicSharedBytes = 8 };
enum JitOption : int { kJitErrorLogBuffer = 5, kJitErrorLogBytes = 6 };

/// The functions of one driver library. Every one returns a CUresult; 0 is success.
struct Driver {
  /// Opens the library, by name or path, and resolves every function; the library stays loaded. Does not call cuInit.
  /// Throws DeviceError that names the library, what the loader said, and how to get it.
  explicit Driver(const std::string& library);

  std::string library;
  int (*cuInit)(unsigned);
  int (*cuDriverGetVersion)(int*);
  int (*cuGetErrorName)(int, const char**);
  int (*cuGetErrorString)(int, const char**);
  int (*cuDeviceGetCount)(int*);
  int (*cuDeviceGet)(int*, int);
  int (*cuDeviceGetName)(char*, int, int);
  int (*cuDeviceGetAttribute)(int*, int, int);
  int (*cuDevicePrimaryCtxRetain)(ContextHandle*, int);
  int (*cuDevicePrimaryCtxRelease)(int);
  int (*cuCtxSetCurrent)(ContextHandle);
  int (*cuModuleLoadDataEx)(ModuleHandle*, const void*, unsigned, int*, void**);
  int (*cuModuleUnload)(ModuleHandle);
  int (*cuModuleGetFunction)(FunctionHandle*, ModuleHandle, const char*);
  int (*cuFuncSetAttribute)(FunctionHandle, int, int);
  int (*cuLaunchKernel)(FunctionHandle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**,
                        void**);
  int (*cuStreamCreate)(Stream*, unsigned);
  int (*cuStreamDestroy)(Stream);
  int (*cuStreamSynchronize)(Stream);
  int (*cuStreamIsCapturing)(Stream, int*);
  int (*cuEventCreate)(EventHandle*, unsigned);
  int (*cuEventDestroy)(EventHandle);
  int (*cuEventRecord)(EventHandle, Stream);
  int (*cuEventSynchronize)(EventHandle);
  int (*cuEventElapsedTime)(float*, EventHandle, EventHandle);
  int (*cuMemAlloc)(DevicePointer*, size_t);
  int (*cuMemFree)(DevicePointer);
  int (*cuMemcpyHtoDAsync)(DevicePointer, const void*, size_t, Stream);
  int (*cuMemcpyDtoHAsync)(void*, DevicePointer, size_t, Stream);
  int (*cuMemsetD8Async)(DevicePointer, unsigned char, size_t, Stream);

  /// Throws DeviceError(op, result, name and text of the driver, is_fatal(result)) unless `result` is 0.
  void check(int result, const char* op) const;
};

/// True for results after which nothing works any more in this process: the context is lost (an illegal address, a timeout, an
/// uncorrectable memory error, ...), so a caller must save what it has on the host and end.
bool is_fatal(int result);

}  // namespace bireal::cuda
