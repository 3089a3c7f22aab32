// library: how the stand-in libcublas and libcudnn queue work on streams of the stand-in libcuda.
#pragma once
#include <string>

#include "emulator/platform/scheduler.h"

namespace bireal::emulator {

/// Queues a library call; a CUresult. The null stream is refused, as everywhere.
BIREAL_EXPORT int submit_library_call(uint64_t stream, Work work);
/// Whether the stream is capturing; false for a stale handle.
BIREAL_EXPORT bool capturing(uint64_t stream);
/// Whether the range is live memory of the driver; `why` says what it is else.
BIREAL_EXPORT bool device_memory(Range range, std::string* why);
BIREAL_EXPORT int64_t setting(const char* key);
/// Notes why a call is refused (bireal_emulator_last_error) and returns `status`.
BIREAL_EXPORT int refuse(const char* call, int status, const std::string& why);
/// A function that the emulator lacks was called: a finding; returns CUDA_ERROR_NOT_SUPPORTED.
BIREAL_EXPORT int missing_function(const char* name);

}  // namespace bireal::emulator
