// Shared by the interpreter's tests: device memory with a shadow, parameters, modules from testdata.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>

#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "emulator/ptx/interpreter.h"

namespace bireal::ptx::testing {

inline std::string read_text(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// testdata/NAME.ptx, parsed once.
inline Module& module_of(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Module>> modules;
  std::unique_ptr<Module>& m = modules[name];
  if (!m) m = parse(read_text(std::string(PTX_TEST_FOLDER) + "/" + name + ".ptx"), name);
  return *m;
}

/// Allocations of exact size, each byte known as written or not.
class Memory {
 public:
  template <class T>
  T* put(const std::vector<T>& values) {
    T* p = get<T>(values.size());
    std::memcpy(p, values.data(), values.size() * sizeof(T));
    std::memset(blocks_.back().initialised.get(), 1, values.size() * sizeof(T));
    return p;
  }
  /// Room for `count` that nobody wrote.
  template <class T>
  T* get(size_t count) {
    Piece b;
    b.bytes = count * sizeof(T);
    b.data.reset(static_cast<uint8_t*>(std::aligned_alloc(256, (b.bytes + 255) / 256 * 256)));
    std::memset(b.data.get(), 0xFF, b.bytes);
    b.initialised.reset(new uint8_t[b.bytes]());
    blocks_.push_back(std::move(b));
    return reinterpret_cast<T*>(blocks_.back().data.get());
  }
  Options options() {
    Options o;
    o.instruction_limit = 200000000;
    o.find_allocation = [this](uint64_t a) -> std::optional<Allocation> {
      for (Piece& b : blocks_) {
        uint64_t begin = reinterpret_cast<uint64_t>(b.data.get());
        if (a - begin < b.bytes) return Allocation{begin, b.bytes, b.initialised.get(), false};
      }
      return std::nullopt;
    };
    return o;
  }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  struct Piece {
    std::unique_ptr<uint8_t, Free> data;
    std::unique_ptr<uint8_t[]> initialised;
    size_t bytes = 0;
  };
  std::vector<Piece> blocks_;
};

template <class... A>
std::vector<uint8_t> parameters(const Kernel& kernel, A... values) {
  std::vector<uint8_t> bytes(kernel.parameter_bytes);
  size_t i = 0;
  auto add = [&](const void* value, size_t size) {
    ASSERT_LT(i, kernel.parameters.size());
    ASSERT_EQ(size, kernel.parameters[i].bytes) << "parameter " << i << " of " << kernel.name;
    std::memcpy(&bytes[kernel.parameters[i++].offset], value, size);
  };
  (add(&values, sizeof values), ...);
  EXPECT_EQ(i, kernel.parameters.size()) << kernel.name;
  return bytes;
}

}  // namespace bireal::ptx::testing
