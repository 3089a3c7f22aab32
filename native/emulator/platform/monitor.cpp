#include "emulator/platform/monitor.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bireal::emulator {
namespace {

struct Setting {
  const char* key;
  int64_t initial, lowest, highest;
};

const Setting kSettings[] = {
    {"seed", 1, 0, INT64_MAX},
    {"reverse", 0, 0, 1},
    {"memory_limit", int64_t(8) << 30, 0, int64_t(1) << 40},
    {"device_count", 1, 0, 1},
    {"compute_capability", 80, 75, 120},
    {"multiprocessors", 0, 0, 1024},
    {"driver_version", 13000, 10000, 99999},
    {"cudnn_version", 90501, 8000, 99999},
    {"cublas_version", 120600, 110000, 129999},
    {"fail_allocation", 0, 0, INT64_MAX},
    {"fail_launch", 0, 0, INT64_MAX},
    {"fail_launch_code", 700, 1, 999},
    {"wrong_algorithm", -1, -1, 7},
    {"list_status", 0, 0, 19999},
    {"exit_status", 0, 0, 255},
    {"trace", 0, 0, 1},
    {"count_lines", 0, 0, 1},
    {"race_checks", 1, 0, 1},
    {"access_counters", 1, 0, 1},
};

}  // namespace

Monitor::Monitor() { reset(); }

void Monitor::reset() {
  clear();
  for (const Setting& setting : kSettings) settings_[setting.key] = setting.initial;
  environment_error_.clear();
  const char* environment = std::getenv("BIREAL_EMULATOR");
  std::string text = environment == nullptr ? "" : environment;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find(',', begin), text.size());
    std::string entry = text.substr(begin, end - begin);
    begin = end + 1;
    size_t equals = entry.find('=');
    char* rest = nullptr;
    int64_t value = equals == std::string::npos ? 0 : std::strtoll(entry.c_str() + equals + 1, &rest, 10);
    std::string error = rest == nullptr || *rest != 0 || rest == entry.c_str() + equals + 1 ? "'" + entry + "' is not key=number"
                                                                                            : set(entry.substr(0, equals), value);
    if (!error.empty()) environment_error_ = "BIREAL_EMULATOR: " + error;
  }
}

void Monitor::clear() {
  findings_.clear();
  known_.clear();
  records_.clear();
}

std::string Monitor::set(const std::string& key, int64_t value) {
  std::string keys;
  for (const Setting& setting : kSettings) {
    keys += std::string(keys.empty() ? "" : ", ") + setting.key;
    if (key != setting.key) continue;
    if (value < setting.lowest || value > setting.highest)
      return key + "=" + std::to_string(value) + " is outside " + std::to_string(setting.lowest) + " to " +
             std::to_string(setting.highest);
    if (key == "compute_capability" && value != 75 && value != 80 && value != 86 && value != 89 && value != 90 && value != 100 &&
        value != 120)
      return "compute_capability=" + std::to_string(value) + " is none of 75, 80, 86, 89, 90, 100, 120";
    settings_[key] = value;
    return "";
  }
  return "unknown key '" + key + "'; there are " + keys;
}

void Monitor::find(const std::string& text) {
  if (!known_.insert(text).second) return;
  findings_.push_back(text);
  std::fprintf(stderr, "emulator: finding: %s\n", text.c_str());
}

bool Monitor::countdown(const char* key) {
  int64_t& left = settings_.at(key);
  return left > 0 && --left == 0;
}

}  // namespace bireal::emulator
