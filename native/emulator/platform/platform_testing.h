// platform_testing: the stand-in libraries, opened by path as a program does, for their own tests.
#pragma once
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "emulator/platform/control.h"
#include "emulator/platform/results.h"

namespace bireal::emulator::testing {

/// A library whose functions are called by name. Integers are widened to 64 bits, which the x86-64 calling convention permits for
/// narrower parameters, so that a literal fits an int as well as a size_t.
class Library {
 private:
  template <class T>
  static auto widen(T value) {
    if constexpr (std::is_pointer_v<T> || std::is_null_pointer_v<T>)
      return value;
    else
      return int64_t(value);
  }

 public:
  explicit Library(const std::string& file) : handle_(dlopen((std::string(BIREAL_EMULATOR_DIR "/") + file).c_str(), RTLD_NOW)) {
    if (handle_ == nullptr) throw std::runtime_error(dlerror());
  }
  template <class Result = int, class... Arguments>
  Result call(const char* name, Arguments... arguments) const {
    void* function = dlsym(handle_, name);
    if (function == nullptr) throw std::runtime_error(std::string("no function ") + name);
    return reinterpret_cast<Result (*)(decltype(widen(arguments))...)>(function)(widen(arguments)...);
  }

 private:
  void* handle_;
};

inline Library& cuda() {
  static Library library("libcuda.so.1");
  return library;
}
inline Library& cublas() {
  static Library library("libcublas.so.12");
  return library;
}
inline Library& cudnn() {
  static Library library("libcudnn.so.9");
  return library;
}

template <class... Arguments>
int cu(const char* name, Arguments... arguments) {
  return cuda().call(name, arguments...);
}

inline void set(const char* key, int64_t value) { ASSERT_EQ(0, cuda().call("bireal_emulator_set", key, value)) << key; }
inline int64_t get(const char* key) { return cuda().call<int64_t>("bireal_emulator_get", key); }
inline std::string last_error() { return cuda().call<const char*>("bireal_emulator_last_error"); }

inline std::vector<std::string> findings() {
  std::vector<std::string> all;
  for (int64_t i = 0; const char* text = cuda().call<const char*>("bireal_emulator_finding", i); ++i) all.push_back(text);
  return all;
}

inline std::vector<bireal_emulator_record> records() {
  std::vector<bireal_emulator_record> all;
  bireal_emulator_record record;
  for (int64_t i = 0; cuda().call("bireal_emulator_get_record", i, &record) == 0; ++i) all.push_back(record);
  return all;
}

#define OK(expression) ASSERT_EQ(0, (expression)) << #expression << ": " << ::bireal::emulator::testing::last_error()

/// A fresh device with a current context; at the end there must be no findings but those that the test expected, and no memory.
class PlatformTest : public ::testing::Test {
 protected:
  void SetUp() override { start(); }
  void TearDown() override {
    EXPECT_EQ(std::vector<std::string>(), findings());
    cuda().call<void>("bireal_emulator_reset");
  }
  static void start() {
    cuda().call<void>("bireal_emulator_reset");
    OK(cu("cuInit", 0));
    uint64_t context = 0;
    OK(cu("cuDevicePrimaryCtxRetain", &context, 0));
    OK(cu("cuCtxSetCurrent", context));
  }
  /// Exactly the findings that contain `text` were made, at least one; they are forgotten.
  static void expect_finding(const std::string& text) {
    std::vector<std::string> all = findings();
    EXPECT_FALSE(all.empty()) << "nothing was found; expected: " << text;
    for (const std::string& finding : all) EXPECT_NE(std::string::npos, finding.find(text)) << finding << "\nexpected: " << text;
    cuda().call<void>("bireal_emulator_clear");
  }
  static uint64_t allocate(uint64_t bytes) {
    uint64_t address = 0;
    EXPECT_EQ(0, cu("cuMemAlloc_v2", &address, bytes)) << last_error();
    return address;
  }
  static float* pinned(uint64_t count) {
    float* memory = nullptr;
    EXPECT_EQ(0, cu("cuMemHostAlloc", &memory, count * 4, 0)) << last_error();
    return memory;
  }
  /// CU_STREAM_NON_BLOCKING = 1
  static uint64_t stream(unsigned flags = 1) {
    uint64_t handle = 0;
    EXPECT_EQ(0, cu("cuStreamCreate", &handle, flags)) << last_error();
    return handle;
  }
  static uint64_t event(unsigned flags = 2) {
    uint64_t handle = 0;
    EXPECT_EQ(0, cu("cuEventCreate", &handle, flags)) << last_error();
    return handle;
  }
  /// Uploads and waits.
  template <class T>
  static uint64_t upload(const std::vector<T>& values) {
    uint64_t address = allocate(values.size() * sizeof(T));
    EXPECT_EQ(0, cu("cuMemcpyHtoD_v2", address, values.data(), values.size() * sizeof(T))) << last_error();
    EXPECT_EQ(0, cu("cuCtxSynchronize")) << last_error();
    return address;
  }
  template <class T = float>
  static std::vector<T> download(uint64_t address, uint64_t count) {
    std::vector<T> values(count);
    EXPECT_EQ(0, cu("cuCtxSynchronize")) << last_error();
    EXPECT_EQ(0, cu("cuMemcpyDtoH_v2", values.data(), address, count * sizeof(T))) << last_error();
    return values;
  }
};

}  // namespace bireal::emulator::testing
