// driver_state: the one emulated device, and the frame around every call of the driver.
#pragma once
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "emulator/platform/library.h"
#include "emulator/platform/memory.h"
#include "emulator/platform/monitor.h"
#include "emulator/platform/results.h"
#include "emulator/platform/scheduler.h"
#include "emulator/ptx/interpreter.h"

namespace bireal::emulator {

/// A loaded module: code, and its variables as memory that copies may name.
struct LoadedModule {
  std::shared_ptr<const ptx::Module> code;
  std::vector<uint64_t> variables;
};

struct Function {
  std::shared_ptr<LoadedModule> module;
  const ptx::Kernel* kernel = nullptr;
  uint64_t module_handle = 0;
  uint32_t dynamic_shared_limit = 0;  ///< CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
};

struct Driver {
  std::recursive_mutex mutex;
  Monitor monitor;
  std::unique_ptr<Memory> memory = std::make_unique<Memory>();
  std::unique_ptr<Scheduler> scheduler = std::make_unique<Scheduler>(*memory, monitor);
  std::map<uint64_t, std::shared_ptr<LoadedModule>> modules;
  std::map<uint64_t, std::shared_ptr<Function>> functions;
  uint64_t next_handle = 1;
  bool initialised = false;
  int context_users = 0;
  unsigned context_flags = 0;
  void reset();
};

Driver& driver();
std::string& last_error();
std::vector<uint64_t>& context_stack();

constexpr uint64_t kPrimaryContext = uint64_t(0x50) << 40;

enum class Needs { kNothing, kInit, kContext };

/// Runs the body of a driver call: lock, state checks, sticky errors, and Refused as its code.
template <class Body>
int call(const char* name, Needs needs, Body&& body) {
  Driver& d = driver();
  std::lock_guard<std::recursive_mutex> lock(d.mutex);
  if (needs != Needs::kNothing && !d.initialised) return refuse(name, kNotInitialized, "cuInit was not called");
  if (needs == Needs::kContext && (context_stack().empty() || context_stack().back() == 0))
    return refuse(name, kInvalidContext, "this thread has no current context; call cuCtxSetCurrent");
  if (d.scheduler->sticky() != 0) return refuse(name, d.scheduler->sticky(), "earlier fault: " + d.scheduler->sticky_text());
  try {
    body(d);
  } catch (const Refused& refused) {
    return refuse(name, refused.code(), refused.what());
  } catch (const std::bad_alloc&) {
    return refuse(name, kOutOfMemory, "the host has no memory left");
  }
  if (d.scheduler->sticky() != 0) return refuse(name, d.scheduler->sticky(), d.scheduler->sticky_text());
  return kSuccess;
}

inline void require(bool condition, int code, const std::string& why) {
  if (!condition) throw Refused(code, why);
}

}  // namespace bireal::emulator
