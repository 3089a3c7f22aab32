// Shared by the tests of CUDA kernels: the device they run on, arrays on it, and 16-bit numbers on the host.
//
// The device is the emulator (native/emulator), which runs nvcc's PTX and checks every access; with BIREAL_TEST_CUDA=libcuda.so.1
// it is the real one, whose driver takes the machine code. Both get the same tests.
#pragma once
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/launch.h"
#include "emulator/platform/control.h"
#include "testing/testing.h"

namespace bireal::testing {

// ---- Stored types -------------------------------------------------------------------------------------------------

constexpr DType kStoredTypes[] = {DType::kF32, DType::kF16, DType::kBf16};

/// Nearest value with `mantissa` bits behind the point and exponents from `lowest`, ties to even; beyond `largest` infinite.
inline float rounded(float x, int mantissa, int lowest, float largest) {
  if (!std::isfinite(x) || x == 0) return x;
  int exponent = std::max(std::ilogb(x), lowest) - mantissa;
  float y = std::ldexp(std::nearbyint(std::ldexp(x, -exponent)), exponent);
  return std::fabs(y) > largest ? std::copysign(std::numeric_limits<float>::infinity(), x) : y;
}
inline float rounded_to(DType type, float x) {
  if (type == DType::kF16) return rounded(x, 10, -14, 65504.0f);
  if (type == DType::kBf16) return rounded(x, 7, -126, 3.3895314e38f);
  return x;
}
/// Half a unit in the last place, relative, and the absolute error below the smallest normal number.
inline double unit_roundoff(DType type) { return type == DType::kF16 ? 0x1p-11 : type == DType::kBf16 ? 0x1p-8 : 0x1p-24; }
inline double least_error(DType type) { return type == DType::kF16 ? 0x1p-25 : 0x1p-134; }

inline uint16_t encode16(DType type, float x) {
  uint32_t bits;
  float y = rounded_to(type, x);
  std::memcpy(&bits, &y, 4);
  if (type == DType::kBf16) return std::isnan(x) ? uint16_t(0x7FC0) : uint16_t(bits >> 16);
  uint32_t sign = bits >> 16 & 0x8000u;
  if (std::isnan(x)) return uint16_t(sign | 0x7E00u);
  if (std::isinf(y)) return uint16_t(sign | 0x7C00u);
  float magnitude = std::fabs(y);
  if (magnitude < 0x1p-14f) return uint16_t(sign | uint32_t(magnitude * 0x1p24f));  // subnormal
  return uint16_t(sign | ((bits & 0x7FFFFFFFu) - (112u << 23)) >> 13);
}
inline float decode16(DType type, uint16_t h) {
  float y;
  uint32_t bits = uint32_t(h) << 16;
  if (type == DType::kF16) {
    uint32_t exponent = h >> 10 & 31u, mantissa = h & 1023u, sign = uint32_t(h & 0x8000u) << 16;
    if (exponent == 0) {
      y = float(mantissa) * 0x1p-24f;
      return sign ? -y : y;
    }
    bits = sign | (exponent == 31 ? 255u << 23 : (exponent + 112u) << 23) | mantissa << 13;
  }
  std::memcpy(&y, &bits, 4);
  return y;
}

/// The values that a tensor of this type holds after storing `values`.
inline std::vector<float> as_stored(DType type, std::vector<float> values) {
  for (float& v : values) v = rounded_to(type, v);
  return values;
}

// ---- Device -------------------------------------------------------------------------------------------------------

inline const char* cuda_library() {
  const char* named = std::getenv("BIREAL_TEST_CUDA");
  return named ? named : BIREAL_EMULATOR_DIR "/libcuda.so.1";
}
inline bool cuda_is_emulated() { return std::getenv("BIREAL_TEST_CUDA") == nullptr; }

/// Made once for the process, like that of a run.
inline const cuda::Device& cuda_device() {
  static const cuda::Device* device = [] {
    cuda::Device::Config config;
    config.library = cuda_library();
    config.synchronize = true;
    if (cuda_is_emulated()) config.images = cuda::Device::Config::Images::kPtx;
    return new cuda::Device(config);
  }();
  return *device;
}

/// The stream of all tests. Not the null stream, which waits for all others.
inline cuda::Stream cuda_stream() {
  static const cuda::Stream stream = [] {
    cuda::Stream created = nullptr;
    const cuda::Device& device = cuda_device();
    device.make_current();
    device.driver().check(device.driver().cuStreamCreate(&created, 1), "cuStreamCreate");
    return created;
  }();
  return stream;
}

/// A function of the emulator's control.h.
template <class Function>
Function* emulator(const char* name) {
  static void* handle = dlopen(cuda_library(), RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<Function*>(dlsym(handle, name));
}

/// A key of the emulator (control.h) until the end of the scope.
class EmulatorSetting {
 public:
  EmulatorSetting(const char* key, int64_t value)
      : key_(key), before_(emulator<int64_t(const char*)>("bireal_emulator_get")(key)) {
    set(value);
  }
  ~EmulatorSetting() { set(before_); }
  EmulatorSetting(const EmulatorSetting&) = delete;
  EmulatorSetting& operator=(const EmulatorSetting&) = delete;

 private:
  void set(int64_t value) const { EXPECT_EQ(0, emulator<int(const char*, int64_t)>("bireal_emulator_set")(key_, value)) << key_; }
  const char* key_;
  int64_t before_;
};

/// A device with so few multiprocessors that a few tiles are several for each block; a GPU is as it is.
inline const cuda::Device& small_cuda_device() {
  if (!cuda_is_emulated()) return cuda_device();
  static const cuda::Device* device = [] {
    cuda_device();  // loads the library
    const EmulatorSetting few("multiprocessors", 4);
    cuda::Device::Config config;
    config.library = cuda_library();
    config.synchronize = true;
    config.images = cuda::Device::Config::Images::kPtx;
    return new cuda::Device(config);
  }();
  return *device;
}

/// A device array of exactly `count` elements. What a kernel does not write stays unwritten, which the emulator reports when
/// read.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count) : count_(count) {
    const cuda::Device& device = cuda_device();
    device.make_current();
    cuda::DevicePointer address = 0;
    device.driver().check(device.driver().cuMemAlloc(&address, size_t(std::max<int64_t>(bytes(), 1))), "cuMemAlloc");
    data_ = reinterpret_cast<T*>(address);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(int64_t(values.size())) {
    if (count_ == 0) return;
    const cuda::Driver& driver = cuda_device().driver();
    driver.check(driver.cuMemcpyHtoDAsync(cuda::DevicePointer(data_), values.data(), size_t(bytes()), cuda_stream()),
                 "cuMemcpyHtoDAsync");
    driver.check(driver.cuStreamSynchronize(cuda_stream()), "cuStreamSynchronize");
  }
  ~DeviceArray() { cuda_device().driver().cuMemFree(cuda::DevicePointer(data_)); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() { return data_; }
  int64_t bytes() const { return count_ * int64_t(sizeof(T)); }
  Guarded<T> values() const {
    std::vector<T> host(static_cast<size_t>(count_));
    const cuda::Driver& driver = cuda_device().driver();
    driver.check(driver.cuMemcpyDtoHAsync(host.data(), cuda::DevicePointer(data_), size_t(bytes()), cuda_stream()),
                 "cuMemcpyDtoHAsync");
    driver.check(driver.cuStreamSynchronize(cuda_stream()), "cuStreamSynchronize");
    return Guarded<T>(host);
  }

 private:
  T* data_;
  int64_t count_;
};

/// A device array of real values of a stored type.
class StoredArray {
 public:
  StoredArray(DType type, int64_t count) : type_(type), bytes_(count * width()) {}
  StoredArray(DType type, const std::vector<float>& values) : type_(type), bytes_(encoded(values)) {}
  void* data() { return bytes_.data(); }
  Guarded<float> values() const {
    Guarded<uint8_t> raw = bytes_.values();
    std::vector<float> host(size_t(raw.count() / width()));
    for (size_t i = 0; i < host.size(); ++i) {
      if (type_ == DType::kF32) {
        std::memcpy(&host[i], raw.data() + 4 * i, 4);
      } else {
        uint16_t h;
        std::memcpy(&h, raw.data() + 2 * i, 2);
        host[i] = decode16(type_, h);
      }
    }
    return Guarded<float>(host);
  }

 private:
  int64_t width() const { return type_ == DType::kF32 ? 4 : 2; }
  std::vector<uint8_t> encoded(const std::vector<float>& values) const {
    std::vector<uint8_t> raw(values.size() * size_t(width()));
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t h = encode16(type_, values[i]);
      if (type_ == DType::kF32)
        std::memcpy(raw.data() + 4 * i, &values[i], 4);
      else
        std::memcpy(raw.data() + 2 * i, &h, 2);
    }
    return raw;
  }
  DType type_;
  DeviceArray<uint8_t> bytes_;
};

/// Same bits, except that any NaN equals any NaN.
inline void expect_same_or_nan(const Guarded<float>& got, const Guarded<float>& expected, const char* what) {
  ASSERT_EQ(got.count(), expected.count()) << what;
  for (int64_t i = 0; i < got.count(); ++i) {
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(got[i])) << what << "[" << i << "] = " << got[i] << ", expected NaN";
    } else {
      ASSERT_EQ(0, std::memcmp(&got[i], &expected[i], sizeof(float)))
          << what << "[" << i << "]: got " << got[i] << ", expected " << expected[i];
    }
  }
}

/// What the last launch moved, or the one `back` before it, as the emulator counts it: 32-byte sectors of global memory that
/// warps asked for, and distinct ones.
struct Traffic {
  std::string kernel;
  double requested = 0, distinct = 0;
  uint32_t worst_bank_conflict = 0;
  double wavefronts = 0, wavefronts_ideal = 0;  // of shared memory
};
inline Traffic last_traffic(int64_t back = 0) {
  bireal_emulator_record record{};
  const int64_t count = emulator<int64_t(const char*)>("bireal_emulator_get")("records");
  EXPECT_EQ(0, emulator<int(int64_t, bireal_emulator_record*)>("bireal_emulator_get_record")(count - 1 - back, &record));
  EXPECT_EQ(record.kind, BIREAL_EMULATOR_KERNEL) << "the last thing that ran is " << record.name;
  return {record.name,
          double(record.read.sectors_requested + record.write.sectors_requested),
          double(record.read.sectors_distinct + record.write.sectors_distinct),
          record.worst_bank_conflict,
          double(record.shared_wavefronts),
          double(record.shared_wavefronts_ideal)};
}
/// Every sector about once, and no shared-memory access of more than two turns.
inline void expect_coalesced(double most = 1.1, int64_t back = 0) {
  if (!cuda_is_emulated()) return;
  const Traffic traffic = last_traffic(back);
  EXPECT_LE(traffic.requested, most * traffic.distinct)
      << traffic.kernel << ": sectors requested per distinct sector: " << traffic.requested / traffic.distinct;
  EXPECT_LE(traffic.worst_bank_conflict, 2u) << traffic.kernel;
}

/// Tests of kernels: the emulator found nothing, and each body runs with blocks, warps and lanes in both orders.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override { cuda_device(); }
  void TearDown() override {
    if (!cuda_is_emulated()) return;
    auto finding = emulator<const char*(int64_t)>("bireal_emulator_finding");
    for (int64_t i = 0; const char* text = finding(i); ++i) ADD_FAILURE() << "emulator: " << text;
    emulator<void()>("bireal_emulator_clear")();
    EXPECT_EQ(0, emulator<int64_t(const char*)>("bireal_emulator_get")("live_bytes")) << "device memory is not freed";
  }
  /// body() in ascending, then in descending order; once on a real device.
  template <class Body>
  static void in_both_orders(const Body& body) {
    for (int64_t reverse = 0; reverse < (cuda_is_emulated() ? 2 : 1); ++reverse) {
      SCOPED_TRACE(reverse ? "descending order" : "ascending order");
      set_reverse(reverse);
      body();
      if (HasFatalFailure()) break;
    }
    set_reverse(0);
  }

 private:
  static void set_reverse(int64_t reverse) {
    if (!cuda_is_emulated()) return;
    ASSERT_EQ(0, emulator<int(const char*, int64_t)>("bireal_emulator_set")("reverse", reverse));
  }
};

}  // namespace bireal::testing
