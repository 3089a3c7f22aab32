// driver: the exported functions of the stand-in libcuda.so.1 but for modules and launches (driver_launch.cpp). Signatures:
// cuda.h of CUDA 12, with handles as 64-bit numbers and enums as int. Functions that are not here or there are generated stubs
// (stubs.cpp in the build folder): they return CUDA_ERROR_NOT_SUPPORTED and are reported.
#include <dlfcn.h>

#include <algorithm>
#include <cstring>

#include "emulator/platform/driver_state.h"

using namespace bireal::emulator;

namespace {

constexpr int kDevice = 0;

struct DeviceModel {
  int sm, multiprocessors, shared_per_multiprocessor, shared_optin, threads_per_multiprocessor, blocks_per_multiprocessor;
  int l2_bytes, bus_bits;
  const char* name;
};

// Of one card of each capability; shared memory limits: CUDA programming guide, "Technical specifications per compute
// capability".
const DeviceModel kModels[] = {
    {75, 40, 65536, 65536, 1024, 16, 4 << 20, 256, "Emulated device of compute capability 7.5"},
    {80, 108, 167936, 166912, 2048, 32, 40 << 20, 5120, "Emulated device of compute capability 8.0"},
    {86, 82, 102400, 101376, 1536, 16, 6 << 20, 384, "Emulated device of compute capability 8.6"},
    {89, 128, 102400, 101376, 1536, 24, 72 << 20, 384, "Emulated device of compute capability 8.9"},
    {90, 132, 233472, 232448, 2048, 32, 50 << 20, 5120, "Emulated device of compute capability 9.0"},
    {100, 148, 233472, 232448, 2048, 32, 126 << 20, 8192, "Emulated device of compute capability 10.0"},
    {120, 170, 102400, 101376, 1536, 24, 96 << 20, 512, "Emulated device of compute capability 12.0"},
};

const DeviceModel& model() {
  int64_t sm = driver().monitor.get("compute_capability");
  for (const DeviceModel& candidate : kModels)
    if (candidate.sm == sm) return candidate;
  return kModels[1];
}

void require_device(Driver& d, int device) {
  require(device == kDevice && d.monitor.get("device_count") > 0, kInvalidDevice, "no device " + std::to_string(device));
}

template <class T>
void require_pointer(T* pointer, const char* what) {
  require(pointer != nullptr, kInvalidValue, std::string(what) + " is null");
}

/// The device attributes that are modelled; -1 for others.
int64_t attribute(int id) {
  const DeviceModel& m = model();
  switch (id) {
    case 1: return 1024;  // MAX_THREADS_PER_BLOCK
    case 2:
    case 3: return 1024;        // MAX_BLOCK_DIM_X, Y
    case 4: return 64;          // MAX_BLOCK_DIM_Z
    case 5: return 2147483647;  // MAX_GRID_DIM_X
    case 6:
    case 7: return 65535;        // MAX_GRID_DIM_Y, Z
    case 8: return 49152;        // MAX_SHARED_MEMORY_PER_BLOCK
    case 9: return 65536;        // TOTAL_CONSTANT_MEMORY
    case 10: return 32;          // WARP_SIZE
    case 11: return 2147483647;  // MAX_PITCH
    case 12: return 65536;       // MAX_REGISTERS_PER_BLOCK
    case 13: return 1500000;     // CLOCK_RATE, kHz
    case 14: return 512;         // TEXTURE_ALIGNMENT
    case 15: return 1;           // GPU_OVERLAP
    case 16: {
      const int64_t set = driver().monitor.get("multiprocessors");
      return set ? set : m.multiprocessors;
    }
    case 17:
    case 18: return 0;  // KERNEL_EXEC_TIMEOUT, INTEGRATED
    case 19: return 1;  // CAN_MAP_HOST_MEMORY
    case 20: return 0;  // COMPUTE_MODE
    case 31: return 1;  // CONCURRENT_KERNELS
    case 32: return 0;  // ECC_ENABLED
    case 33: return 1;  // PCI_BUS_ID
    case 34:
    case 35: return 0;           // PCI_DEVICE_ID, TCC_DRIVER
    case 36: return 1000000;     // MEMORY_CLOCK_RATE, kHz
    case 37: return m.bus_bits;  // GLOBAL_MEMORY_BUS_WIDTH
    case 38: return m.l2_bytes;  // L2_CACHE_SIZE
    case 39: return m.threads_per_multiprocessor;
    case 40: return 2;          // ASYNC_ENGINE_COUNT
    case 41: return 1;          // UNIFIED_ADDRESSING
    case 50: return 0;          // PCI_DOMAIN_ID
    case 75: return m.sm / 10;  // COMPUTE_CAPABILITY_MAJOR
    case 76: return m.sm % 10;  // COMPUTE_CAPABILITY_MINOR
    case 78:
    case 79:
    case 80: return 1;  // STREAM_PRIORITIES_SUPPORTED, GLOBAL_L1_CACHE, LOCAL_L1_CACHE
    case 81: return m.shared_per_multiprocessor;
    case 82: return 65536;  // MAX_REGISTERS_PER_MULTIPROCESSOR
    case 83:
    case 84:
    case 85:
    case 86: return 0;  // MANAGED_MEMORY, MULTI_GPU_BOARD and group, HOST_NATIVE_ATOMIC
    case 88:
    case 89: return 0;               // PAGEABLE_MEMORY_ACCESS, CONCURRENT_MANAGED_ACCESS
    case 90: return 1;               // COMPUTE_PREEMPTION_SUPPORTED
    case 91: return 1;               // CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM
    case 95: return 0;               // COOPERATIVE_LAUNCH
    case 97: return m.shared_optin;  // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    case 99: return 1;               // HOST_REGISTER_SUPPORTED
    case 106: return m.blocks_per_multiprocessor;
    case 111: return m.sm >= 80 ? 1024 : 0;  // RESERVED_SHARED_MEMORY_PER_BLOCK
    case 115: return 0;                      // MEMORY_POOLS_SUPPORTED
    case 120: return 0;                      // CLUSTER_LAUNCH
    default: return -1;
  }
}

// ---- Copies

enum class Side { kDevice, kHost };

struct Place {
  Range range;
  bool pinned = false;    // host memory that the driver knows
  bool pageable = false;  // host memory that it does not
};

Place locate(Driver& d, Side side, uint64_t address, uint64_t bytes, const char* what) {
  require(address != 0, kInvalidValue, std::string(what) + " is null");
  Place place{{address, bytes}};
  std::string why;
  Block* block = d.memory->find(address);
  if (side == Side::kHost && block == nullptr) {
    place.pageable = true;
    return place;
  }
  Block* live = d.memory->find_live(place.range, &why);
  require(live != nullptr, kInvalidValue, std::string(what) + ": " + why);
  require(side == Side::kDevice || live->host(), kInvalidValue,
          std::string(what) + " is device memory, not host memory: " + live->text());
  place.pinned = live->host();
  return place;
}

/// One copy as work. A pageable source is read now, as CUDA does; a pinned one when the copy runs.
Work copy_work(const char* name, const Place& target, const Place& source) {
  Work work;
  work.name = name;
  work.kind = BIREAL_EMULATOR_COPY;
  if (source.pinned) work.pinned_source = source.range;
  if (target.pinned) work.pinned_target = target.range;
  Range to = target.range, from = source.range;
  if (source.pageable && target.pageable)
    throw Refused(kInvalidValue, "neither side of the copy is memory that the driver knows");
  if (source.pageable) {
    const auto* first = reinterpret_cast<const unsigned char*>(from.address);
    auto staged = std::make_shared<std::vector<unsigned char>>(first, first + from.bytes);
    work.run = [to, staged](Execution& e) {
      e.write(to, "target");
      std::memcpy(reinterpret_cast<void*>(to.address), staged->data(), staged->size());
    };
  } else if (target.pageable) {
    work.run = [to, from](Execution& e) {
      e.read(from, "source");
      std::memcpy(reinterpret_cast<void*>(to.address), reinterpret_cast<void*>(from.address), to.bytes);
    };
  } else if (source.pinned || target.pinned) {
    work.run = [to, from](Execution& e) {
      e.read(from, "source");
      e.write(to, "target");
      std::memmove(reinterpret_cast<void*>(to.address), reinterpret_cast<void*>(from.address), to.bytes);
    };
  } else {
    require(to.address + to.bytes <= from.address || from.address + from.bytes <= to.address, kInvalidValue,
            "source and target of the copy overlap");
    work.run = [to, from](Execution& e) { e.copy(to.address, from.address, to.bytes); };
  }
  return work;
}

int copy_now(const char* name, Side to_side, Side from_side, uint64_t to, uint64_t from, uint64_t bytes) {
  return call(name, Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture(name);
    if (bytes == 0) return;
    Place target = locate(d, to_side, to, bytes, "target"), source = locate(d, from_side, from, bytes, "source");
    // "API synchronization behavior" of the driver API: only copies with a host side that the device itself reads or writes are
    // over when the call returns; a pageable source has merely been staged.
    bool host_waits = target.pageable || target.pinned || source.pinned;
    d.scheduler->submit_legacy(copy_work(name, target, source), host_waits);
  });
}

int copy_on_stream(const char* name, Side to_side, Side from_side, uint64_t to, uint64_t from, uint64_t bytes, uint64_t stream) {
  return call(name, Needs::kContext, [&](Driver& d) {
    Stream& queue = d.scheduler->get(stream);
    if (bytes == 0) return;
    Place target = locate(d, to_side, to, bytes, "target"), source = locate(d, from_side, from, bytes, "source");
    if (source.pageable || target.pageable)
      d.scheduler->forbid_capturing(queue, std::string(name) + " with pageable host memory during a capture; use pinned memory");
    d.scheduler->submit(queue, copy_work(name, target, source));
    if (target.pageable) d.scheduler->synchronize(queue);  // such a copy returns when it is complete
  });
}

// Where both sides may be either (unified addressing), the address says which.
Side side_of(uint64_t address) {
  Driver& d = driver();
  std::lock_guard<std::recursive_mutex> lock(d.mutex);
  return d.memory->find(address) == nullptr ? Side::kHost : Side::kDevice;
}

// ---- Memset

Work memset_work(Driver& d, const char* name, uint64_t address, uint32_t value, uint64_t count, int width) {
  require(address % uint64_t(width) == 0, kInvalidValue, "the address is no multiple of " + std::to_string(width));
  Place target = locate(d, Side::kDevice, address, count * uint64_t(width), "target");
  Work work;
  work.name = name;
  work.kind = BIREAL_EMULATOR_MEMSET;
  if (target.pinned) work.pinned_target = target.range;
  work.run = [target, value, count, width](Execution& e) {
    e.write(target.range, "target");
    auto* to = reinterpret_cast<unsigned char*>(target.range.address);
    if (width == 1 || value == 0) {
      std::memset(to, int(value & 0xff), size_t(count) * size_t(width));
      return;
    }
    for (uint64_t i = 0; i < count; ++i) std::memcpy(to + i * uint64_t(width), &value, size_t(width));
  };
  return work;
}

int memset_now(const char* name, uint64_t address, uint32_t value, uint64_t count, int width) {
  return call(name, Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture(name);
    if (count == 0) return;
    Work work = memset_work(d, name, address, value, count, width);
    bool host_waits = work.pinned_target.bytes > 0;
    d.scheduler->submit_legacy(std::move(work), host_waits);
  });
}

int memset_on_stream(const char* name, uint64_t address, uint32_t value, uint64_t count, int width, uint64_t stream) {
  return call(name, Needs::kContext, [&](Driver& d) {
    Stream& queue = d.scheduler->get(stream);
    if (count > 0) d.scheduler->submit(queue, memset_work(d, name, address, value, count, width));
  });
}

int allocate_host(const char* name, uint64_t* result, uint64_t bytes, unsigned flags) {
  return call(name, Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture(name);
    require_pointer(result, "result");
    require(bytes > 0, kInvalidValue, "0 bytes");
    require((flags & ~7u) == 0, kInvalidValue, "unknown flags " + std::to_string(flags));
    Block& block = d.memory->allocate(Block::Kind::kPinned, bytes);
    block.flags = flags;
    *result = block.address;
  });
}

}  // namespace

// ---- Start, errors, devices

API int cuInit(unsigned flags) {
  Driver& d = driver();
  std::lock_guard<std::recursive_mutex> lock(d.mutex);
  if (flags != 0) return refuse("cuInit", kInvalidValue, "flags must be 0");
  if (!d.monitor.environment_error().empty()) {
    d.monitor.find(d.monitor.environment_error());
    return refuse("cuInit", kUnknown, d.monitor.environment_error());
  }
  if (d.monitor.get("device_count") == 0) return refuse("cuInit", kNoDevice, "device_count is 0");
  d.initialised = true;
  return kSuccess;
}

API int cuDriverGetVersion(int* version) {
  if (version == nullptr) return refuse("cuDriverGetVersion", kInvalidValue, "version is null");
  *version = int(setting("driver_version"));
  return kSuccess;
}

API int cuGetErrorName(int result, const char** text) {
  if (text == nullptr) return kInvalidValue;
  *text = result_name(result);
  return *text == nullptr ? kInvalidValue : kSuccess;
}

API int cuGetErrorString(int result, const char** text) {
  if (text == nullptr) return kInvalidValue;
  *text = result_text(result);
  return *text == nullptr ? kInvalidValue : kSuccess;
}

API int cuDeviceGetCount(int* count) {
  return call("cuDeviceGetCount", Needs::kInit, [&](Driver& d) {
    require_pointer(count, "count");
    *count = int(d.monitor.get("device_count"));
  });
}

API int cuDeviceGet(int* device, int ordinal) {
  return call("cuDeviceGet", Needs::kInit, [&](Driver& d) {
    require_pointer(device, "device");
    require_device(d, ordinal);
    *device = ordinal;
  });
}

API int cuDeviceGetName(char* name, int length, int device) {
  return call("cuDeviceGetName", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    require(name != nullptr && length > 0, kInvalidValue, "no room for the name");
    std::snprintf(name, size_t(length), "%s", model().name);
  });
}

API int cuDeviceTotalMem_v2(size_t* bytes, int device) {
  return call("cuDeviceTotalMem", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    require_pointer(bytes, "bytes");
    *bytes = size_t(d.monitor.get("memory_limit"));
  });
}

API int cuDeviceGetUuid(char* uuid, int device) {
  return call("cuDeviceGetUuid", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    require_pointer(uuid, "uuid");
    std::memcpy(uuid, "bireal-emulator0", 16);
  });
}

API int cuDeviceGetUuid_v2(char* uuid, int device) { return cuDeviceGetUuid(uuid, device); }

API int cuDeviceGetPCIBusId(char* text, int length, int device) {
  return call("cuDeviceGetPCIBusId", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    require(text != nullptr && length >= 13, kInvalidValue, "no room for 13 characters");
    std::snprintf(text, size_t(length), "0000:01:00.0");
  });
}

API int cuDeviceGetAttribute(int* value, int id, int device) {
  return call("cuDeviceGetAttribute", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    require_pointer(value, "value");
    int64_t result = attribute(id);
    require(result >= 0, kInvalidValue, "attribute " + std::to_string(id) + " does not exist or is not modelled (driver.cpp)");
    *value = int(result);
  });
}

API int cuDeviceComputeCapability(int* major, int* minor, int device) {
  return call("cuDeviceComputeCapability", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    *major = model().sm / 10;
    *minor = model().sm % 10;
  });
}

// ---- Contexts: the primary one only

API int cuDevicePrimaryCtxRetain(uint64_t* context, int device) {
  return call("cuDevicePrimaryCtxRetain", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    require_pointer(context, "context");
    ++d.context_users;
    *context = kPrimaryContext;
  });
}

API int cuDevicePrimaryCtxRelease_v2(int device) {
  return call("cuDevicePrimaryCtxRelease", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    require(d.context_users > 0, kInvalidContext, "released more often than retained");
    --d.context_users;
  });
}

API int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
  return call("cuDevicePrimaryCtxGetState", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    *flags = d.context_flags;
    *active = d.context_users > 0;
  });
}

API int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
  return call("cuDevicePrimaryCtxSetFlags", Needs::kInit, [&](Driver& d) {
    require_device(d, device);
    require((flags & ~0x1fu) == 0, kInvalidValue, "unknown flags " + std::to_string(flags));
    d.context_flags = flags;
  });
}

API int cuCtxSetCurrent(uint64_t context) {
  return call("cuCtxSetCurrent", Needs::kInit, [&](Driver& d) {
    require(context == 0 || (context == kPrimaryContext && d.context_users > 0), kInvalidContext,
            "no such context: only a retained primary context can be current");
    std::vector<uint64_t>& stack = context_stack();
    if (stack.empty()) stack.push_back(0);
    stack.back() = context;
  });
}

API int cuCtxGetCurrent(uint64_t* context) {
  return call("cuCtxGetCurrent", Needs::kInit, [&](Driver&) {
    require_pointer(context, "context");
    *context = context_stack().empty() ? 0 : context_stack().back();
  });
}

API int cuCtxPushCurrent_v2(uint64_t context) {
  return call("cuCtxPushCurrent", Needs::kInit, [&](Driver& d) {
    require(context == kPrimaryContext && d.context_users > 0, kInvalidContext, "no such context");
    context_stack().push_back(context);
  });
}

API int cuCtxPopCurrent_v2(uint64_t* context) {
  return call("cuCtxPopCurrent", Needs::kContext, [&](Driver&) {
    if (context != nullptr) *context = context_stack().back();
    context_stack().pop_back();
  });
}

API int cuCtxGetDevice(int* device) {
  return call("cuCtxGetDevice", Needs::kContext, [&](Driver&) {
    require_pointer(device, "device");
    *device = kDevice;
  });
}

API int cuCtxGetFlags(unsigned* flags) {
  return call("cuCtxGetFlags", Needs::kContext, [&](Driver& d) {
    require_pointer(flags, "flags");
    *flags = d.context_flags;
  });
}

API int cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return call("cuCtxGetStreamPriorityRange", Needs::kContext, [&](Driver&) {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
  });
}

API int cuCtxSynchronize() {
  return call("cuCtxSynchronize", Needs::kContext, [&](Driver& d) { d.scheduler->synchronize_all(); });
}

API int cuProfilerStart() { return kSuccess; }
API int cuProfilerStop() { return kSuccess; }

// ---- Memory

API int cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  return call("cuMemGetInfo", Needs::kContext, [&](Driver& d) {
    uint64_t limit = uint64_t(d.monitor.get("memory_limit")), live = d.memory->live_bytes();
    if (free_bytes != nullptr) *free_bytes = limit > live ? limit - live : 0;
    if (total_bytes != nullptr) *total_bytes = limit;
  });
}

API int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  return call("cuMemAlloc", Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture("cuMemAlloc");
    require_pointer(address, "address");
    require(bytes > 0, kInvalidValue, "0 bytes");
    uint64_t limit = uint64_t(d.monitor.get("memory_limit")), live = d.memory->live_bytes();
    if (d.monitor.allocation_fails()) throw Refused(kOutOfMemory, "injected: fail_allocation");
    require(bytes <= limit && live <= limit - bytes, kOutOfMemory,
            std::to_string(bytes) + " bytes wanted, " + std::to_string(limit > live ? limit - live : 0) + " of " +
                std::to_string(limit) + " free");
    *address = d.memory->allocate(Block::Kind::kDevice, bytes).address;
  });
}

API int cuMemFree_v2(uint64_t address) {
  return call("cuMemFree", Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture("cuMemFree");
    if (address == 0) return;
    Block* block = d.memory->find(address);
    require(block != nullptr && block->address == address && block->kind == Block::Kind::kDevice && !block->freed, kInvalidValue,
            block != nullptr && block->freed ? "freed twice: " + block->text() : "the address is no start of an allocation");
    d.scheduler->before_free(*block, "cuMemFree");
    std::string damage = d.memory->release(*block);
    if (!damage.empty()) d.monitor.find("seen at cuMemFree: " + damage);
  });
}

API int cuMemGetAddressRange_v2(uint64_t* base, size_t* bytes, uint64_t address) {
  return call("cuMemGetAddressRange", Needs::kContext, [&](Driver& d) {
    Block* block = d.memory->find(address);
    require(block != nullptr && !block->freed, kNotFound, "the address lies in no allocation");
    if (base != nullptr) *base = block->address;
    if (bytes != nullptr) *bytes = block->bytes;
  });
}

API int cuMemAllocHost_v2(uint64_t* result, size_t bytes) { return allocate_host("cuMemAllocHost", result, bytes, 0); }

API int cuMemHostAlloc(uint64_t* result, size_t bytes, unsigned flags) {
  return allocate_host("cuMemHostAlloc", result, bytes, flags);
}

API int cuMemFreeHost(uint64_t address) {
  return call("cuMemFreeHost", Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture("cuMemFreeHost");
    Block* block = d.memory->find(address);
    require(block != nullptr && block->address == address && block->kind == Block::Kind::kPinned && !block->freed, kInvalidValue,
            "the address is no start of memory from cuMemHostAlloc");
    d.scheduler->before_free(*block, "cuMemFreeHost");
    std::string damage = d.memory->release(*block);
    if (!damage.empty()) d.monitor.find("seen at cuMemFreeHost: " + damage);
  });
}

API int cuMemHostRegister_v2(uint64_t address, size_t bytes, unsigned flags) {
  return call("cuMemHostRegister", Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture("cuMemHostRegister");
    require(address != 0 && bytes > 0, kInvalidValue, "null or 0 bytes");
    require((flags & ~0xfu) == 0, kInvalidValue, "unknown flags " + std::to_string(flags));
    require(d.memory->find(address) == nullptr && d.memory->find(address + bytes - 1) == nullptr, kHostMemoryAlreadyRegistered,
            "the memory is known to the driver already");
    d.memory->adopt(Block::Kind::kRegistered, address, bytes).flags = flags;
  });
}

API int cuMemHostUnregister(uint64_t address) {
  return call("cuMemHostUnregister", Needs::kContext, [&](Driver& d) {
    Block* block = d.memory->find(address);
    require(block != nullptr && block->address == address && block->kind == Block::Kind::kRegistered, kHostMemoryNotRegistered,
            "the address is no start of registered memory");
    d.scheduler->before_free(*block, "cuMemHostUnregister");
    d.memory->release(*block);
  });
}

API int cuMemHostGetDevicePointer_v2(uint64_t* device_address, uint64_t address, unsigned flags) {
  return call("cuMemHostGetDevicePointer", Needs::kContext, [&](Driver& d) {
    require_pointer(device_address, "device_address");
    require(flags == 0, kInvalidValue, "flags must be 0");
    Block* block = d.memory->find(address);
    require(block != nullptr && block->host() && !block->freed, kInvalidValue, "the address lies in no pinned memory");
    *device_address = address;
  });
}

API int cuMemHostGetFlags(unsigned* flags, uint64_t address) {
  return call("cuMemHostGetFlags", Needs::kContext, [&](Driver& d) {
    Block* block = d.memory->find(address);
    require(block != nullptr && block->host() && !block->freed, kInvalidValue, "the address lies in no pinned memory");
    *flags = block->flags;
  });
}

API int cuMemcpyHtoD_v2(uint64_t to, uint64_t from, size_t bytes) {
  return copy_now("cuMemcpyHtoD", Side::kDevice, Side::kHost, to, from, bytes);
}
API int cuMemcpyDtoH_v2(uint64_t to, uint64_t from, size_t bytes) {
  return copy_now("cuMemcpyDtoH", Side::kHost, Side::kDevice, to, from, bytes);
}
API int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) {
  return copy_now("cuMemcpyDtoD", Side::kDevice, Side::kDevice, to, from, bytes);
}
API int cuMemcpy(uint64_t to, uint64_t from, size_t bytes) {
  return copy_now("cuMemcpy", side_of(to), side_of(from), to, from, bytes);
}
API int cuMemcpyHtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  return copy_on_stream("cuMemcpyHtoDAsync", Side::kDevice, Side::kHost, to, from, bytes, stream);
}
API int cuMemcpyDtoHAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  return copy_on_stream("cuMemcpyDtoHAsync", Side::kHost, Side::kDevice, to, from, bytes, stream);
}
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  return copy_on_stream("cuMemcpyDtoDAsync", Side::kDevice, Side::kDevice, to, from, bytes, stream);
}
API int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  return copy_on_stream("cuMemcpyAsync", side_of(to), side_of(from), to, from, bytes, stream);
}

API int cuMemsetD8_v2(uint64_t address, unsigned char value, size_t count) {
  return memset_now("cuMemsetD8", address, value, count, 1);
}
API int cuMemsetD16_v2(uint64_t address, unsigned short value, size_t count) {
  return memset_now("cuMemsetD16", address, value, count, 2);
}
API int cuMemsetD32_v2(uint64_t address, unsigned value, size_t count) {
  return memset_now("cuMemsetD32", address, value, count, 4);
}
API int cuMemsetD8Async(uint64_t address, unsigned char value, size_t count, uint64_t stream) {
  return memset_on_stream("cuMemsetD8Async", address, value, count, 1, stream);
}
API int cuMemsetD16Async(uint64_t address, unsigned short value, size_t count, uint64_t stream) {
  return memset_on_stream("cuMemsetD16Async", address, value, count, 2, stream);
}
API int cuMemsetD32Async(uint64_t address, unsigned value, size_t count, uint64_t stream) {
  return memset_on_stream("cuMemsetD32Async", address, value, count, 4, stream);
}

// ---- Streams and events

API int cuStreamCreateWithPriority(uint64_t* stream, unsigned flags, int priority) {
  return call("cuStreamCreate", Needs::kContext, [&](Driver& d) {
    require_pointer(stream, "stream");
    require(flags <= 1, kInvalidValue,
            "flags " + std::to_string(flags) + " are neither CU_STREAM_DEFAULT nor CU_STREAM_NON_BLOCKING");
    *stream = d.scheduler->create_stream(flags, std::clamp(priority, -5, 0));
  });
}
API int cuStreamCreate(uint64_t* stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }

API int cuStreamDestroy_v2(uint64_t stream) {
  return call("cuStreamDestroy", Needs::kContext, [&](Driver& d) { d.scheduler->destroy_stream(stream); });
}

API int cuStreamSynchronize(uint64_t stream) {
  return call("cuStreamSynchronize", Needs::kContext, [&](Driver& d) { d.scheduler->synchronize(d.scheduler->get(stream)); });
}

API int cuStreamQuery(uint64_t stream) {
  bool done = false;
  int result = call("cuStreamQuery", Needs::kContext, [&](Driver& d) { done = d.scheduler->query(d.scheduler->get(stream)); });
  return result == kSuccess && !done ? int(kNotReady) : result;
}

API int cuStreamGetFlags(uint64_t stream, unsigned* flags) {
  return call("cuStreamGetFlags", Needs::kContext, [&](Driver& d) {
    require_pointer(flags, "flags");
    *flags = d.scheduler->get(stream).flags;
  });
}

API int cuStreamGetPriority(uint64_t stream, int* priority) {
  return call("cuStreamGetPriority", Needs::kContext, [&](Driver& d) {
    require_pointer(priority, "priority");
    *priority = d.scheduler->get(stream).priority;
  });
}

API int cuStreamGetCtx(uint64_t stream, uint64_t* context) {
  return call("cuStreamGetCtx", Needs::kContext, [&](Driver& d) {
    d.scheduler->get(stream);
    require_pointer(context, "context");
    *context = kPrimaryContext;
  });
}

API int cuStreamWaitEvent(uint64_t stream, uint64_t event, unsigned flags) {
  return call("cuStreamWaitEvent", Needs::kContext, [&](Driver& d) {
    require(flags == 0, kInvalidValue, "flags must be 0");
    d.scheduler->wait(d.scheduler->get(stream), d.scheduler->event(event));
  });
}

API int cuLaunchHostFunc(uint64_t stream, void (*function)(void*), void* data) {
  return call("cuLaunchHostFunc", Needs::kContext, [&](Driver& d) {
    require(function != nullptr, kInvalidValue, "function is null");
    Work work;
    work.name = "cuLaunchHostFunc";
    work.kind = BIREAL_EMULATOR_HOST;
    work.run = [function, data](Execution&) { function(data); };
    d.scheduler->submit(d.scheduler->get(stream), std::move(work));
  });
}

API int cuEventCreate(uint64_t* event, unsigned flags) {
  return call("cuEventCreate", Needs::kContext, [&](Driver& d) {
    require_pointer(event, "event");
    require((flags & ~7u) == 0, kInvalidValue, "unknown flags " + std::to_string(flags));
    require((flags & 4u) == 0, kNotSupported, "events between processes are not emulated");
    *event = d.scheduler->create_event(flags);
  });
}

API int cuEventDestroy_v2(uint64_t event) {
  return call("cuEventDestroy", Needs::kContext, [&](Driver& d) { d.scheduler->destroy_event(event); });
}

API int cuEventRecord(uint64_t event, uint64_t stream) {
  return call("cuEventRecord", Needs::kContext,
              [&](Driver& d) { d.scheduler->record(d.scheduler->event(event), d.scheduler->get(stream)); });
}

API int cuEventRecordWithFlags(uint64_t event, uint64_t stream, unsigned flags) {
  if (flags != 0) return refuse("cuEventRecordWithFlags", kInvalidValue, "flags must be 0");
  return cuEventRecord(event, stream);
}

API int cuEventSynchronize(uint64_t event) {
  return call("cuEventSynchronize", Needs::kContext, [&](Driver& d) { d.scheduler->synchronize(d.scheduler->event(event)); });
}

API int cuEventQuery(uint64_t event) {
  bool done = false;
  int result = call("cuEventQuery", Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture("cuEventQuery");
    done = d.scheduler->query(d.scheduler->event(event));
  });
  return result == kSuccess && !done ? int(kNotReady) : result;
}

API int cuEventElapsedTime(float* milliseconds, uint64_t start, uint64_t end) {
  return call("cuEventElapsedTime", Needs::kContext, [&](Driver& d) {
    require_pointer(milliseconds, "milliseconds");
    Event &first = d.scheduler->event(start), &last = d.scheduler->event(end);
    require(!first.captured && !last.captured, kCapturedEvent, "an event was last recorded in a capture");
    require(first.point && last.point, kInvalidHandle, "an event was never recorded");
    require(((first.flags | last.flags) & 2u) == 0, kInvalidHandle, "an event was created with CU_EVENT_DISABLE_TIMING");
    require(first.point->complete && last.point->complete, kNotReady, "an event is not complete");
    *milliseconds = std::chrono::duration<float, std::milli>(last.point->time - first.point->time).count();
  });
}
API int cuEventElapsedTime_v2(float* milliseconds, uint64_t start, uint64_t end) {
  return cuEventElapsedTime(milliseconds, start, end);
}

// ---- Capture and graphs

API int cuStreamBeginCapture_v2(uint64_t stream, int mode) {
  return call("cuStreamBeginCapture", Needs::kContext,
              [&](Driver& d) { d.scheduler->begin_capture(d.scheduler->get(stream), mode); });
}

API int cuStreamEndCapture(uint64_t stream, uint64_t* graph) {
  return call("cuStreamEndCapture", Needs::kContext, [&](Driver& d) {
    require_pointer(graph, "graph");
    *graph = 0;
    *graph = d.scheduler->end_capture(d.scheduler->get(stream));
  });
}

API int cuStreamIsCapturing(uint64_t stream, int* status) {
  return call("cuStreamIsCapturing", Needs::kContext, [&](Driver& d) {
    require_pointer(status, "status");
    Stream& queue = d.scheduler->get(stream);
    *status = !queue.capture ? 0 : queue.capture->invalid ? 2 : 1;
  });
}

API int cuThreadExchangeStreamCaptureMode(int* mode) {
  return call("cuThreadExchangeStreamCaptureMode", Needs::kInit, [&](Driver& d) {
    require_pointer(mode, "mode");
    *mode = d.scheduler->exchange_capture_mode(*mode);
  });
}

API int cuGraphCreate(uint64_t* graph, unsigned flags) {
  return call("cuGraphCreate", Needs::kContext, [&](Driver& d) {
    require_pointer(graph, "graph");
    require(flags == 0, kInvalidValue, "flags must be 0");
    *graph = d.scheduler->create_graph();
  });
}

API int cuGraphDestroy(uint64_t graph) {
  return call("cuGraphDestroy", Needs::kContext, [&](Driver& d) { d.scheduler->destroy_graph(graph); });
}

// Nodes are their number in the graph, from 1.
API int cuGraphGetNodes(uint64_t graph, uint64_t* nodes, size_t* count) {
  return call("cuGraphGetNodes", Needs::kContext, [&](Driver& d) {
    require_pointer(count, "count");
    size_t available = d.scheduler->graph(graph)->nodes.size();
    if (nodes == nullptr) {
      *count = available;
      return;
    }
    for (size_t i = 0; i < *count; ++i) nodes[i] = i < available ? i + 1 : 0;
    *count = std::min(*count, available);
  });
}

API int cuGraphInstantiateWithFlags(uint64_t* exec, uint64_t graph, unsigned long long flags) {
  return call("cuGraphInstantiate", Needs::kContext, [&](Driver& d) {
    require_pointer(exec, "exec");
    require((flags & ~0xfull) == 0, kInvalidValue, "unknown flags " + std::to_string(flags));
    *exec = d.scheduler->instantiate(graph);
  });
}

API int cuGraphExecDestroy(uint64_t exec) {
  return call("cuGraphExecDestroy", Needs::kContext, [&](Driver& d) { d.scheduler->destroy_graph_exec(exec); });
}

API int cuGraphUpload(uint64_t exec, uint64_t stream) {
  return call("cuGraphUpload", Needs::kContext, [&](Driver& d) {
    d.scheduler->graph_exec(exec);
    d.scheduler->get(stream);
  });
}

API int cuGraphLaunch(uint64_t exec, uint64_t stream) {
  return call("cuGraphLaunch", Needs::kContext, [&](Driver& d) { d.scheduler->launch(exec, d.scheduler->get(stream)); });
}

// ---- Entry points by name, as the CUDA runtime asks for them

API int cuGetProcAddress_v2(const char* symbol, void** function, int, unsigned long long, int* status) {
  if (symbol == nullptr || function == nullptr) return refuse("cuGetProcAddress", kInvalidValue, "a pointer is null");
  Dl_info self;
  *function = nullptr;
  if (dladdr(reinterpret_cast<void*>(&cuInit), &self) != 0) {
    void* library = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    for (const char* suffix : {"_v2", "", "_v3"})
      if (*function == nullptr) *function = dlsym(library, (std::string(symbol) + suffix).c_str());
    dlclose(library);
  }
  if (status != nullptr) *status = *function != nullptr ? 0 : 1;
  return *function != nullptr ? kSuccess : refuse("cuGetProcAddress", kNotFound, std::string("no function ") + symbol);
}

API int cuGetProcAddress(const char* symbol, void** function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, nullptr);
}

// Private tables that the CUDA runtime asks for; this project does not use the runtime.
API int cuGetExportTable(const void** table, const void*) {
  *table = nullptr;
  return kNotFound;
}
