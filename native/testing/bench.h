// What the benchmarks of the ops share.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace bireal::testing {

/// Zeros, 64-byte aligned.
template <class T>
class Aligned {
 public:
  explicit Aligned(int64_t count)
      : data_(static_cast<T*>(std::aligned_alloc(64, size_t(count * int64_t(sizeof(T)) + 127) / 64 * 64))) {
    std::fill(data_.get(), data_.get() + count, T());
  }
  T* data() { return data_.get(); }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T[], Free> data_;
};

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + long(values.size() / 2), values.end());
  return values[values.size() / 2];
}

inline double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class Run>
double timed(const Run& run) {
  const double begin = seconds_now();
  run();
  return seconds_now() - begin;
}

/// Of the clock under load: a chain of multiplications with a latency of 3.
inline double seconds_per_cycle() {
  double best = 1;
  for (int repeat = 0; repeat < 20; ++repeat) {
    double begin = seconds_now();
    long count = 300;
    asm volatile("1:\n.rept 32\nimul %%rax,%%rax\n.endr\ndec %0\njnz 1b" : "+r"(count)::"rax");
    best = std::min(best, (seconds_now() - begin) / (300.0 * 32 * 3));
  }
  return best;
}

}  // namespace bireal::testing
