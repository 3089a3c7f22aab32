#include "cuda/device.h"

namespace bireal::cuda {

Device::Device(const Config& config) : config_(config), driver_(config.library) {
  require(!images().empty(),
          "cuda: this library was built without kernels, because nvcc was not found; install the CUDA toolkit "
          "(13.0) and build again, or choose backend cpu");
  driver_.check(driver_.cuInit(0), "cuInit");
  driver_.check(driver_.cuDriverGetVersion(&driver_version_), "cuDriverGetVersion");
  int count = 0;
  driver_.check(driver_.cuDeviceGetCount(&count), "cuDeviceGetCount");
  require(config_.ordinal >= 0 && config_.ordinal < count,
          "cuda: device " + std::to_string(config_.ordinal) + " does not exist; this machine has " + std::to_string(count));
  driver_.check(driver_.cuDeviceGet(&handle_, config_.ordinal), "cuDeviceGet");
  char name[256] = "";
  driver_.check(driver_.cuDeviceGetName(name, int(sizeof name), handle_), "cuDeviceGetName");
  name_ = name;
  int major = 0, minor = 0;
  driver_.check(driver_.cuDeviceGetAttribute(&major, kComputeCapabilityMajor, handle_), "cuDeviceGetAttribute");
  driver_.check(driver_.cuDeviceGetAttribute(&minor, kComputeCapabilityMinor, handle_), "cuDeviceGetAttribute");
  driver_.check(driver_.cuDeviceGetAttribute(&multiprocessor_count_, kMultiprocessorCount, handle_), "cuDeviceGetAttribute");
  sm_ = 10 * major + minor;
  require(sm_ >= 75, "cuda: device " + std::to_string(config_.ordinal) + " (" + name_ + ") has compute capability " +
                         std::to_string(major) + "." + std::to_string(minor) + "; 7.5 (Turing) or newer is needed");
  switch (config_.images) {
    case Config::Images::kByDriver: image_kind_ = choose_image_kind(driver_version_, toolkit_version()); break;
    case Config::Images::kMachineCode: image_kind_ = ImageKind::kMachineCode; break;
    case Config::Images::kPtx: image_kind_ = ImageKind::kPtx; break;
    case Config::Images::kOldPtx: image_kind_ = ImageKind::kOldPtx; break;
  }
  driver_.check(driver_.cuDevicePrimaryCtxRetain(&context_, handle_), "cuDevicePrimaryCtxRetain");
  try {
    make_current();
    for (const Image& image : images())
      if (image.minimum_sm <= sm_ && sm_ <= image.maximum_sm) load(image);
  } catch (...) {
    unload();
    throw;
  }
}

Device::~Device() { unload(); }

void Device::load(const Image& image) {
  std::string text = image.ptx;
  const std::vector<std::string> kernels = kernel_names(text);
  if (image_kind_ == ImageKind::kOldPtx) text = relabelled_ptx(text, image.relabel_to);
  const void* data = image_kind_ == ImageKind::kMachineCode ? image.fatbin : text.c_str();
  char log[4096] = "";
  int options[] = {kJitErrorLogBuffer, kJitErrorLogBytes};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  ModuleHandle module = nullptr;
  int result = driver_.cuModuleLoadDataEx(&module, data, 2, options, values);
  if (result != 0)
    driver_.check(result, ("load kernels of " + std::string(image.name) + " as " + image_kind_name(image_kind_) + " on " + name_ +
                           ", driver " + std::to_string(driver_version_) + (log[0] ? std::string(" [") + log + "]" : ""))
                              .c_str());
  modules_.push_back(module);
  for (const std::string& kernel : kernels) {
    FunctionHandle function = nullptr;
    driver_.check(driver_.cuModuleGetFunction(&function, module, kernel.c_str()), kernel.c_str());
    if (image.minimum_sm >= 80)
      driver_.check(driver_.cuFuncSetAttribute(function, kMaxDynamicSharedBytes, kMoreSharedBytes), kernel.c_str());
    functions_[kernel] = function;
  }
}

void Device::unload() {
  if (!context_) return;
  // Results are not looked at: after a fatal error every call fails, and the process is about to end.
  driver_.cuCtxSetCurrent(context_);
  for (ModuleHandle module : modules_) driver_.cuModuleUnload(module);
  driver_.cuDevicePrimaryCtxRelease(handle_);
  context_ = nullptr;
}

FunctionHandle Device::function(const std::string& kernel) const {
  auto found = functions_.find(kernel);
  require(found != functions_.end(), [&] {
    return "cuda: no kernel " + kernel + " for " + name_ + " (compute capability " + std::to_string(sm_ / 10) + "." +
           std::to_string(sm_ % 10) + ")";
  });
  return found->second;
}

}  // namespace bireal::cuda
