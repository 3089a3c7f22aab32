// monitor: settings, findings, records and injected faults of the emulator (control.h is its face to tests).
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "emulator/platform/control.h"
#include "emulator/ptx/interpreter.h"

namespace bireal::emulator {

struct Record {
  bireal_emulator_record values{};
  ptx::Counters counters;  ///< of kernels
};

class Monitor {
 public:
  Monitor();
  /// Back to defaults and BIREAL_EMULATOR; findings and records are forgotten.
  void reset();
  void clear();

  /// "" or why not.
  std::string set(const std::string& key, int64_t value);
  bool has(const std::string& key) const { return settings_.count(key) > 0; }
  int64_t get(const std::string& key) const { return settings_.at(key); }
  bool flag(const std::string& key) const { return get(key) != 0; }
  /// What is wrong with BIREAL_EMULATOR; "" if nothing. cuInit fails with it.
  const std::string& environment_error() const { return environment_error_; }

  /// Something that a real device would do wrong without a word. Printed at once; repeats are counted once.
  void find(const std::string& text);
  const std::deque<std::string>& findings() const { return findings_; }

  Record& add_record() { return records_.emplace_back(); }
  std::deque<Record>& records() { return records_; }

  /// Counts down fail_allocation and fail_launch; true for the call that shall fail.
  bool allocation_fails() { return countdown("fail_allocation"); }
  bool launch_fails() { return countdown("fail_launch"); }

 private:
  bool countdown(const char* key);
  std::map<std::string, int64_t> settings_;
  std::deque<std::string> findings_;
  std::set<std::string> known_;
  std::deque<Record> records_;
  std::string environment_error_;
};

}  // namespace bireal::emulator
