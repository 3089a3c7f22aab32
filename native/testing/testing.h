// Shared by the native tests: guarded buffers, nasty values, comparisons that NaN cannot pass, and the list of contexts.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "core/rng.h"
#include "cpu/context.h"

namespace bireal::testing {

/// A 64-byte aligned array between two guard bands, filled with NaN (floats) or 0xA5 bytes; expect_guards() fails the test if
/// anything outside was written. The end guard starts right behind the last element.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count) : count_(count) {
    static_assert(std::is_trivially_copyable_v<T>);
    size_t bytes = (kGuard * 2 + size_t(count) * sizeof(T) + 63) / 64 * 64;
    base_.reset(static_cast<unsigned char*>(std::aligned_alloc(64, bytes)));
    std::memset(base_.get(), 0xA5, bytes);
    if constexpr (std::is_floating_point_v<T>)
      for (int64_t i = 0; i < count; ++i) data()[i] = std::numeric_limits<T>::quiet_NaN();
  }
  Guarded(const std::vector<T>& values) : Guarded(int64_t(values.size())) {
    for (int64_t i = 0; i < count_; ++i) data()[i] = values[size_t(i)];
  }
  T* data() { return reinterpret_cast<T*>(base_.get() + kGuard); }
  const T* data() const { return reinterpret_cast<const T*>(base_.get() + kGuard); }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }
  int64_t count() const { return count_; }
  std::vector<T> values() const { return std::vector<T>(data(), data() + count_); }
  void expect_guards(const char* what) const {
    const unsigned char* end = base_.get() + kGuard + size_t(count_) * sizeof(T);
    for (size_t i = 0; i < kGuard; ++i) {
      ASSERT_EQ(base_.get()[i], 0xA5) << what << ": written " << kGuard - i << " bytes before the buffer";
      ASSERT_EQ(end[i], 0xA5) << what << ": written " << i << " bytes behind the buffer";
    }
  }

 private:
  static constexpr size_t kGuard = 256;
  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  std::unique_ptr<unsigned char, Free> base_;
  int64_t count_;
};

/// Uniform values in [-1, 1) times `scale`; printed seed: the name itself.
inline std::vector<float> random_floats(int64_t count, uint64_t seed, float scale = 1.0f) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[size_t(i)] = float(2 * uniform01(seed, uint64_t(i)) - 1) * scale;
  return values;
}

/// random_floats with +0, -0, denormals, +-1 and large values sprinkled in; with NaN and Inf where `non_finite`.
inline std::vector<float> nasty_floats(int64_t count, uint64_t seed, bool non_finite = false) {
  std::vector<float> values = random_floats(count, seed, 2.0f);
  const float special[] = {0.0f,
                           -0.0f,
                           1.0f,
                           -1.0f,
                           1e-42f,
                           -1e-42f,
                           0.5f,
                           -0.5f,
                           1e6f,
                           -1e6f,
                           std::nextafter(1.0f, 2.0f),
                           std::nextafter(-1.0f, -2.0f)};
  const float wild[] = {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                        std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  for (int64_t i = 0; i < count; ++i) {
    uint64_t pick = splitmix64(seed ^ 0x5bd1e995, uint64_t(i)) >> 32;
    if (pick % 5 == 0) values[size_t(i)] = special[pick / 5 % 12];
    if (non_finite && pick % 7 == 1) values[size_t(i)] = wild[pick / 7 % 4];
  }
  return values;
}

/// Same bits (so -0 differs from +0, and a NaN equals itself).
template <class T>
void expect_same_bits(const Guarded<T>& got, const Guarded<T>& expected, const char* what) {
  ASSERT_EQ(got.count(), expected.count()) << what;
  for (int64_t i = 0; i < got.count(); ++i)
    ASSERT_EQ(0, std::memcmp(&got[i], &expected[i], sizeof(T)))
        << what << "[" << i << "]: got " << +got[i] << ", expected " << +expected[i];
}

/// |got - expected| <= bound[i] or bound; a NaN on either side fails.
template <class T, class U>
void expect_within(const Guarded<T>& got, const U& expected, const std::vector<double>& bound, const char* what) {
  for (int64_t i = 0; i < got.count(); ++i) {
    double g = double(got[i]), e = double(expected[i]), allowed = bound[bound.size() == 1 ? 0 : size_t(i)];
    ASSERT_TRUE(std::isfinite(g)) << what << "[" << i << "] is not finite; expected " << e;
    ASSERT_TRUE(!(std::fabs(g - e) > allowed) && std::fabs(g - e) <= allowed)
        << what << "[" << i << "]: got " << g << ", expected " << e << ", off by " << std::fabs(g - e) << ", allowed " << allowed;
  }
}

/// With how many threads the CPU ops are tested. Under AddressSanitizer with 3 only, whose tasks and scratch areas
/// include those of 1; the other build compares the bits.
#ifdef __SANITIZE_ADDRESS__
inline const std::vector<int> kThreadCounts = {3};
#else
inline const std::vector<int> kThreadCounts = {1, 3};
#endif

/// Contexts that every CPU op is tested on: each instruction set this machine can run, with each count of threads.
inline std::vector<std::shared_ptr<cpu::Context>> all_contexts(const std::vector<int>& thread_counts = kThreadCounts) {
  std::vector<std::shared_ptr<cpu::Context>> contexts;
  for (cpu::Isa isa : cpu::kIsas)
    if (isa <= cpu::default_isa())
      for (int threads : thread_counts) contexts.push_back(std::make_shared<cpu::Context>(threads, isa));
  return contexts;
}

inline std::string context_name(const cpu::Context& context) {
  return std::string(cpu::isa_name(context.isa())) + "_t" + std::to_string(context.thread_count());
}

/// Channel counts around the word width.
inline const std::vector<int64_t>& nasty_channels() {
  static const std::vector<int64_t> values = {1, 31, 32, 33, 63, 64, 65};
  return values;
}

}  // namespace bireal::testing
