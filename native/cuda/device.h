// A GPU with our kernels loaded. Contexts, memory, streams and graphs of a run are made elsewhere (JCuda), on the same primary
// context, so addresses and streams from there are good here.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/driver.h"
#include "cuda/images.h"

namespace bireal::cuda {

/// Dynamic shared memory of a block: what every GPU gives, and what kernels of images for compute capability 8.0 and up may ask
/// for.
constexpr int kSharedBytes = 48 * 1024, kMoreSharedBytes = 96 * 1024;

class Device {
 public:
  struct Config {
    std::string library = "libcuda.so.1";  // name or path of the driver
    int ordinal = 0;
    enum class Images { kByDriver, kMachineCode, kPtx, kOldPtx };
    Images images = Images::kByDriver;  // anything else is what the tests force
    bool synchronize = false;  // wait after every launch, so that an asynchronous fault is blamed on the kernel that made it
  };

  /// Loads every kernel that this GPU can run; nothing is loaded or compiled later, so launches may be captured.
  /// Throws DeviceError (no driver, no such device, no image for it) or InvalidArgument (built without kernels).
  explicit Device(const Config& config);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Driver& driver() const { return driver_; }
  int ordinal() const { return config_.ordinal; }
  const std::string& name() const { return name_; }
  /// Compute capability: 75, 80, 86, 89, 90, 100, 120, ...
  int sm() const { return sm_; }
  int multiprocessor_count() const { return multiprocessor_count_; }
  int driver_version() const { return driver_version_; }
  ImageKind image_kind() const { return image_kind_; }
  bool synchronizes() const { return config_.synchronize; }

  /// Makes the device current for this thread, as every call that follows needs.
  void make_current() const { driver_.check(driver_.cuCtxSetCurrent(context_), "cuCtxSetCurrent"); }
  /// True if a kernel of this name was loaded; false for those that need a newer GPU.
  bool has_kernel(const std::string& kernel) const { return functions_.count(kernel) != 0; }
  /// Throws InvalidArgument naming the kernel if it was not loaded.
  FunctionHandle function(const std::string& kernel) const;

 private:
  void load(const Image& image);
  void unload();

  Config config_;
  Driver driver_;
  std::string name_;
  int handle_ = 0, sm_ = 0, multiprocessor_count_ = 0, driver_version_ = 0;
  ImageKind image_kind_ = ImageKind::kMachineCode;
  ContextHandle context_ = nullptr;
  std::vector<ModuleHandle> modules_;
  std::unordered_map<std::string, FunctionHandle> functions_;
};

}  // namespace bireal::cuda
