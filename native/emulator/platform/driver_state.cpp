#include "emulator/platform/driver_state.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace bireal::emulator {
namespace {

// Runs when the process ends: what is wrong only at the end, and the exit status that a test asked for.
void at_exit() {
  Driver& d = driver();
  std::lock_guard<std::recursive_mutex> lock(d.mutex);
  for (const std::string& message : d.memory->check_guards()) d.monitor.find(message);
  if (d.monitor.findings().empty() || d.monitor.get("exit_status") == 0) return;
  std::fprintf(stderr, "emulator: %zu findings, exit status %lld\n", d.monitor.findings().size(),
               static_cast<long long>(d.monitor.get("exit_status")));
  std::fflush(nullptr);
  _exit(int(d.monitor.get("exit_status")));
}

}  // namespace

Driver& driver() {
  // Never destroyed: threads may still call while the process ends.
  static Driver* const instance = [] {
    auto* created = new Driver;
    std::atexit(at_exit);
    return created;
  }();
  return *instance;
}

std::string& last_error() {
  thread_local std::string text;
  return text;
}

std::vector<uint64_t>& context_stack() {
  thread_local std::vector<uint64_t> stack;
  return stack;
}

void Driver::reset() {
  for (const std::string& message : memory->check_guards()) std::fprintf(stderr, "emulator: at reset: %s\n", message.c_str());
  monitor.reset();
  scheduler->reset();
  functions.clear();
  modules.clear();
  scheduler = nullptr;
  memory = std::make_unique<Memory>();
  scheduler = std::make_unique<Scheduler>(*memory, monitor);
  initialised = false;
  context_users = 0;
  context_flags = 0;
  context_stack().clear();
}

int submit_library_call(uint64_t stream, Work work) {
  return call(work.name.c_str(), Needs::kInit, [&](Driver& d) { d.scheduler->submit(d.scheduler->get(stream), work); });
}

bool device_memory(Range range, std::string* why) {
  Driver& d = driver();
  std::lock_guard<std::recursive_mutex> lock(d.mutex);
  return d.memory->find_live(range, why) != nullptr;
}

bool capturing(uint64_t stream) {
  Driver& d = driver();
  std::lock_guard<std::recursive_mutex> lock(d.mutex);
  try {
    return stream > 2 && d.scheduler->get(stream).capture != nullptr;
  } catch (const Refused&) {
    return false;
  }
}

int64_t setting(const char* key) { return bireal_emulator_get(key); }

int refuse(const char* name, int status, const std::string& why) {
  last_error() = std::string(name) + ": " + why;
  if (driver().monitor.flag("trace")) std::fprintf(stderr, "emulator: %s returns %d: %s\n", name, status, why.c_str());
  return status;
}

int missing_function(const char* name) {
  Driver& d = driver();
  std::lock_guard<std::recursive_mutex> lock(d.mutex);
  d.monitor.find(std::string(name) + " was called, which the emulator lacks");
  return refuse(name, kNotSupported, "the emulator lacks this function");
}

}  // namespace bireal::emulator

using bireal::emulator::driver;

extern "C" {

BIREAL_EXPORT int bireal_emulator_set(const char* key, int64_t value) {
  std::lock_guard<std::recursive_mutex> lock(driver().mutex);
  std::string error = driver().monitor.set(key, value);
  if (error.empty()) return 0;
  bireal::emulator::last_error() = error;
  return -1;
}

BIREAL_EXPORT int64_t bireal_emulator_get(const char* key_text) {
  bireal::emulator::Driver& d = driver();
  std::lock_guard<std::recursive_mutex> lock(d.mutex);
  std::string key = key_text;
  if (d.monitor.has(key)) return d.monitor.get(key);
  if (key == "live_bytes") return int64_t(d.memory->live_bytes());
  if (key == "peak_bytes") return int64_t(d.memory->peak_bytes());
  if (key == "live_allocations") return int64_t(d.memory->live_allocations());
  if (key == "pinned_bytes") return int64_t(d.memory->pinned_bytes());
  if (key == "pending") return int64_t(d.scheduler->pending());
  if (key == "findings") return int64_t(d.monitor.findings().size());
  if (key == "records") return int64_t(d.monitor.records().size());
  if (key == "sticky") return d.scheduler->sticky();
  bireal::emulator::last_error() = "unknown key '" + key + "'";
  return -1;
}

BIREAL_EXPORT const char* bireal_emulator_finding(int64_t i) {
  std::lock_guard<std::recursive_mutex> lock(driver().mutex);
  const auto& findings = driver().monitor.findings();
  return i >= 0 && size_t(i) < findings.size() ? findings[size_t(i)].c_str() : nullptr;
}

BIREAL_EXPORT const char* bireal_emulator_last_error() { return bireal::emulator::last_error().c_str(); }

BIREAL_EXPORT int bireal_emulator_get_record(int64_t i, bireal_emulator_record* record) {
  std::lock_guard<std::recursive_mutex> lock(driver().mutex);
  const auto& records = driver().monitor.records();
  if (i < 0 || size_t(i) >= records.size()) return -1;
  *record = records[size_t(i)].values;
  return 0;
}

BIREAL_EXPORT const char* bireal_emulator_record_text(int64_t i, int top_lines) {
  std::lock_guard<std::recursive_mutex> lock(driver().mutex);
  const auto& records = driver().monitor.records();
  if (i < 0 || size_t(i) >= records.size()) return nullptr;
  thread_local std::string text;
  text = std::string(records[size_t(i)].values.name) + "\n" + bireal::ptx::to_string(records[size_t(i)].counters, top_lines);
  return text.c_str();
}

BIREAL_EXPORT void bireal_emulator_clear() {
  std::lock_guard<std::recursive_mutex> lock(driver().mutex);
  driver().monitor.clear();
}

BIREAL_EXPORT void bireal_emulator_reset() {
  std::lock_guard<std::recursive_mutex> lock(driver().mutex);
  driver().reset();
}

}  // extern "C"
