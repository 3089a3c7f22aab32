// driver_launch: modules, functions and kernel launches of the stand-in libcuda.so.1. A module is PTX text, run by the
// interpreter.
#include <algorithm>
#include <cstring>

#include "emulator/platform/driver_state.h"

using namespace bireal::emulator;
namespace ptx = bireal::ptx;

namespace {

constexpr uint64_t kModuleTag = uint64_t(0x56) << 40, kFunctionTag = uint64_t(0x57) << 40;
constexpr uint32_t kSharedLimit = 48 * 1024;

/// The newest PTX that a driver compiles: release notes of the CUDA toolkit that it came with.
double newest_ptx(int64_t driver_version) {
  struct Row {
    int driver;
    double ptx;
  };
  const Row rows[] = {{13010, 9.1}, {13000, 9.0}, {12090, 8.8}, {12080, 8.7}, {12070, 8.6}, {12050, 8.5},
                      {12040, 8.4}, {12030, 8.3}, {12020, 8.2}, {12010, 8.1}, {12000, 8.0}, {11080, 7.8},
                      {11070, 7.7}, {11060, 7.6}, {11050, 7.5}, {11040, 7.4}, {11030, 7.3}, {11020, 7.2},
                      {11010, 7.1}, {11000, 7.0}, {10020, 6.5}, {10010, 6.4}, {10000, 6.3}};
  for (const Row& row : rows)
    if (driver_version >= row.driver) return row.ptx;
  return 6.2;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

/// The module that was read from the same text before, where nobody holds it any more and it has no memory of its own: a test
/// that opens its backend anew for every case would spend half a second on the same kernels each time.
std::shared_ptr<const ptx::Module> module_from(const std::string& text) {
  static std::map<std::string, std::shared_ptr<const ptx::Module>> known;
  auto found = known.find(text);
  if (found != known.end() && found->second.use_count() == 1) return found->second;
  std::shared_ptr<const ptx::Module> module = ptx::parse(text);
  if (module->variables().empty()) known[text] = module;
  return module;
}

std::shared_ptr<LoadedModule> load(Driver& d, const char* image) {
  require(image != nullptr, kInvalidValue, "image is null");
  uint32_t magic;
  std::memcpy(&magic, image, 4);
  require(magic != 0xBA55ED50u && std::memcmp(image, "\177ELF", 4) != 0, kNoBinaryForGpu,
          "the image is machine code; the emulator runs PTX text only, so hand it the PTX of the same kernels");
  std::string text = image;
  require(text.find(".version") != std::string::npos, kInvalidImage, "the image is not PTX text: it has no .version");
  auto loaded = std::make_shared<LoadedModule>();
  try {
    loaded->code = module_from(text);
  } catch (const ptx::LoadError& error) {
    d.monitor.find(std::string("PTX refused: ") + error.what());
    throw Refused(kInvalidPtx, error.what());
  }
  double newest = newest_ptx(d.monitor.get("driver_version"));
  require(loaded->code->version() <= newest + 1e-6, kUnsupportedPtxVersion,
          "PTX " + number(loaded->code->version()) + " is newer than " + number(newest) + ", the newest of a driver for CUDA " +
              number(double(d.monitor.get("driver_version")) / 1000));
  require(loaded->code->target() <= d.monitor.get("compute_capability"), kNoBinaryForGpu,
          "the PTX is for sm_" + std::to_string(loaded->code->target()) + ", the device is sm_" +
              std::to_string(d.monitor.get("compute_capability")));
  for (const ptx::Variable& variable : loaded->code->variables()) {
    Block& block = d.memory->adopt(Block::Kind::kVariable, variable.address, variable.bytes);
    block.read_only = variable.constant;
    loaded->variables.push_back(variable.address);
  }
  return loaded;
}

LoadedModule& module_of(Driver& d, uint64_t handle) {
  auto found = d.modules.find(handle);
  require(found != d.modules.end(), kInvalidHandle, "no such module: it was unloaded or is no module");
  return *found->second;
}

std::shared_ptr<Function> function_of(Driver& d, uint64_t handle) {
  auto found = d.functions.find(handle);
  require(found != d.functions.end(), kInvalidHandle, "no such function: its module was unloaded or it is no function");
  return found->second;
}

int fault_code(ptx::Check check) {
  switch (check) {
    case ptx::Check::kOutOfBounds:
    case ptx::Check::kReadOnly: return kIllegalAddress;
    case ptx::Check::kMisaligned: return kMisalignedAddress;
    case ptx::Check::kTrap: return kAssert;
    default: return kLaunchFailed;
  }
}

bireal_emulator_traffic traffic(const ptx::GlobalTraffic& t) {
  return {t.instructions, t.bytes, t.sectors_requested, t.sectors_ideal, t.sectors_distinct};
}

struct Shape {
  ptx::Dim3 grid, block;
  uint32_t dynamic_shared = 0;
};

void run_kernel(Execution& e, const Function& function, const Shape& shape, const std::vector<uint8_t>& parameters) {
  const ptx::Kernel& kernel = *function.kernel;
  bireal_emulator_record& values = e.record().values;
  const ptx::Dim3* dims[] = {&shape.grid, &shape.block};
  uint32_t* targets[] = {values.grid, values.block};
  for (int i = 0; i < 2; ++i) {
    targets[i][0] = dims[i]->x;
    targets[i][1] = dims[i]->y;
    targets[i][2] = dims[i]->z;
  }
  values.shared_bytes = kernel.static_shared_bytes + shape.dynamic_shared;

  ptx::Options options;
  std::string no_memory;  // why the last unknown address is unknown
  options.find_allocation = [&](uint64_t address) -> std::optional<ptx::Allocation> {
    Block* block = e.memory().find_live({address, 1}, &no_memory);
    if (block == nullptr) return std::nullopt;
    return ptx::Allocation{block->address, block->bytes, block->initialised.empty() ? nullptr : block->initialised.data(),
                           block->read_only};
  };
  options.touched = [&](uint64_t address, uint64_t bytes, bool write) {
    if (write)
      e.task().touched.write({address, bytes});
    else
      e.task().touched.read({address, bytes});
  };
  options.reverse = e.monitor().flag("reverse");
  options.count_lines = e.monitor().flag("count_lines");
  options.race_checks = e.monitor().flag("race_checks");
  options.access_counters = e.monitor().flag("access_counters");
  options.shared_limit_bytes =
      std::max(kSharedLimit, (kernel.static_shared_bytes + 15) / 16 * 16 + function.dynamic_shared_limit);
  options.report = [&](const ptx::Finding& finding) { e.find(finding.message); };
  try {
    ptx::Counters counters =
        ptx::launch(*function.module->code, kernel, shape.grid, shape.block, shape.dynamic_shared, parameters, options);
    values.thread_instructions = counters.thread_instructions;
    values.warp_instructions = counters.warp_instructions;
    static_assert(sizeof(values.by_class) / sizeof(uint64_t) == ptx::kInstructionClassCount);
    std::copy(counters.by_class.begin(), counters.by_class.end(), values.by_class);
    values.read = traffic(counters.read);
    values.write = traffic(counters.write);
    values.shared_wavefronts = counters.shared_read.wavefronts + counters.shared_write.wavefronts;
    values.shared_wavefronts_ideal = counters.shared_read.wavefronts_ideal + counters.shared_write.wavefronts_ideal;
    values.worst_bank_conflict = std::max(counters.shared_read.worst_degree, counters.shared_write.worst_degree);
    values.barriers = counters.barriers;
    values.divergent_branches = counters.divergent_branches;
    e.record().counters = std::move(counters);
  } catch (const ptx::KernelFault& fault) {
    std::string text = e.task().text() + ": " + fault.what();
    if (fault.finding().check == ptx::Check::kOutOfBounds && !no_memory.empty()) text += " [" + no_memory + "]";
    throw DeviceFault(fault_code(fault.finding().check), text);
  } catch (const ptx::LoadError& error) {
    throw DeviceFault(kLaunchFailed, e.task().text() + ": " + error.what());
  }
}

int64_t shared_optin() {
  switch (setting("compute_capability")) {
    case 75: return 65536;
    case 80: return 166912;
    case 90:
    case 100: return 232448;
    default: return 101376;
  }
}

}  // namespace

API int cuModuleLoadDataEx(uint64_t* module, const void* image, unsigned option_count, const int* options, void** values) {
  int result = call("cuModuleLoadData", Needs::kContext, [&](Driver& d) {
    d.scheduler->forbid_in_capture("cuModuleLoadData");
    require(module != nullptr, kInvalidValue, "module is null");
    for (unsigned i = 0; i < option_count; ++i)
      require(options[i] >= 0 && options[i] <= 36, kInvalidValue, "unknown CUjit_option " + std::to_string(options[i]));
    std::shared_ptr<LoadedModule> loaded = load(d, static_cast<const char*>(image));
    *module = kModuleTag | d.next_handle++ << 4;
    d.modules[*module] = std::move(loaded);
  });
  // CU_JIT_ERROR_LOG_BUFFER = 5 and its size, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6.
  char* log = nullptr;
  size_t room = 0;
  for (unsigned i = 0; i < option_count && options != nullptr && values != nullptr; ++i) {
    if (options[i] == 5) log = static_cast<char*>(values[i]);
    if (options[i] == 6) room = reinterpret_cast<size_t>(values[i]);
  }
  if (log != nullptr && room > 0) std::snprintf(log, room, "%s", result == kSuccess ? "" : last_error().c_str());
  return result;
}

API int cuModuleLoadData(uint64_t* module, const void* image) { return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr); }

API int cuModuleUnload(uint64_t handle) {
  return call("cuModuleUnload", Needs::kContext, [&](Driver& d) {
    LoadedModule& module = module_of(d, handle);
    for (uint64_t address : module.variables) {
      Block* block = d.memory->find(address);
      d.scheduler->before_free(*block, "cuModuleUnload");
      d.memory->release(*block);
    }
    for (auto function = d.functions.begin(); function != d.functions.end();)
      function = function->second->module_handle == handle ? d.functions.erase(function) : std::next(function);
    d.modules.erase(handle);
  });
}

API int cuModuleGetFunction(uint64_t* function, uint64_t handle, const char* name) {
  return call("cuModuleGetFunction", Needs::kContext, [&](Driver& d) {
    LoadedModule& module = module_of(d, handle);
    require(function != nullptr && name != nullptr, kInvalidValue, "a pointer is null");
    const ptx::Kernel* kernel = module.code->find_kernel(name);
    require(kernel != nullptr, kNotFound, std::string("no kernel '") + name + "' in the module");
    for (const auto& [existing, known] : d.functions)
      if (known->kernel == kernel) {
        *function = existing;
        return;
      }
    auto created = std::make_shared<Function>();
    created->module = d.modules.at(handle);
    created->kernel = kernel;
    created->module_handle = handle;
    *function = kFunctionTag | d.next_handle++ << 4;
    created->dynamic_shared_limit = kernel->static_shared_bytes < kSharedLimit ? kSharedLimit - kernel->static_shared_bytes : 0;
    d.functions[*function] = std::move(created);
  });
}

API int cuModuleGetGlobal_v2(uint64_t* address, size_t* bytes, uint64_t handle, const char* name) {
  return call("cuModuleGetGlobal", Needs::kContext, [&](Driver& d) {
    LoadedModule& module = module_of(d, handle);
    require(name != nullptr, kInvalidValue, "name is null");
    const ptx::Variable* variable = module.code->find_variable(name);
    require(variable != nullptr, kNotFound, std::string("no variable '") + name + "' in the module");
    if (address != nullptr) *address = variable->address;
    if (bytes != nullptr) *bytes = variable->bytes;
  });
}

API int cuFuncGetModule(uint64_t* module, uint64_t function) {
  return call("cuFuncGetModule", Needs::kContext, [&](Driver& d) { *module = function_of(d, function)->module_handle; });
}

API int cuFuncGetAttribute(int* value, int attribute, uint64_t handle) {
  return call("cuFuncGetAttribute", Needs::kContext, [&](Driver& d) {
    std::shared_ptr<Function> function = function_of(d, handle);
    require(value != nullptr, kInvalidValue, "value is null");
    const ptx::Kernel& kernel = *function->kernel;
    switch (attribute) {
      case 0: *value = int(std::min(kernel.max_threads, 1024u)); break;  // MAX_THREADS_PER_BLOCK
      case 1: *value = int(kernel.static_shared_bytes); break;           // SHARED_SIZE_BYTES
      case 2: *value = 0; break;                                         // CONST_SIZE_BYTES
      case 3: *value = int(kernel.local_bytes); break;                   // LOCAL_SIZE_BYTES
      case 5: *value = function->module->code->target(); break;          // PTX_VERSION
      case 6: *value = int(d.monitor.get("compute_capability")); break;  // BINARY_VERSION
      case 8: *value = int(function->dynamic_shared_limit); break;       // MAX_DYNAMIC_SHARED_SIZE_BYTES
      default:
        // NUM_REGS (4) is known to ptxas alone.
        throw Refused(attribute == 4 ? kNotSupported : kInvalidValue,
                      "function attribute " + std::to_string(attribute) + " does not exist or is not modelled");
    }
  });
}

API int cuFuncSetAttribute(uint64_t handle, int attribute, int value) {
  return call("cuFuncSetAttribute", Needs::kContext, [&](Driver& d) {
    std::shared_ptr<Function> function = function_of(d, handle);
    if (attribute == 9) {  // PREFERRED_SHARED_MEMORY_CARVEOUT: a hint
      require(value >= -1 && value <= 100, kInvalidValue, "carve-out " + std::to_string(value) + " is outside -1 to 100");
      return;
    }
    require(attribute == 8, kInvalidValue, "function attribute " + std::to_string(attribute) + " cannot be set");
    int64_t most = shared_optin() - int64_t(function->kernel->static_shared_bytes);
    require(value >= 0 && value <= most, kInvalidValue,
            std::to_string(value) + " bytes of dynamic shared memory; the device allows " + std::to_string(most));
    function->dynamic_shared_limit = uint32_t(value);
  });
}

API int cuFuncSetCacheConfig(uint64_t handle, int config) {
  return call("cuFuncSetCacheConfig", Needs::kContext, [&](Driver& d) {
    function_of(d, handle);
    require(config >= 0 && config <= 3, kInvalidValue, "unknown CUfunc_cache " + std::to_string(config));
  });
}

API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, uint64_t handle, int block_size, size_t dynamic_shared) {
  return call("cuOccupancyMaxActiveBlocksPerMultiprocessor", Needs::kContext, [&](Driver& d) {
    std::shared_ptr<Function> function = function_of(d, handle);
    require(blocks != nullptr && block_size > 0, kInvalidValue, "a pointer is null or the block is empty");
    // By threads and shared memory; registers are known to ptxas alone.
    int64_t sm = d.monitor.get("compute_capability");
    int64_t threads = sm == 75 ? 1024 : sm == 80 || sm == 90 || sm == 100 ? 2048 : 1536;
    int64_t shared = int64_t(function->kernel->static_shared_bytes) + int64_t(dynamic_shared) + (sm >= 80 ? 1024 : 0);
    int64_t result = std::min<int64_t>(threads / ((block_size + 31) / 32 * 32), sm == 80 || sm >= 90 ? 32 : 16);
    if (shared > 0) result = std::min(result, (shared_optin() + (sm >= 80 ? 1024 : 0)) / shared);
    *blocks = block_size > int(function->kernel->max_threads) ? 0 : int(result);
  });
}

API int cuLaunchKernel(uint64_t handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                       unsigned block_z, unsigned shared_bytes, uint64_t stream, void** parameters, void** extra) {
  return call("cuLaunchKernel", Needs::kContext, [&](Driver& d) {
    std::shared_ptr<Function> function = function_of(d, handle);
    const ptx::Kernel& kernel = *function->kernel;
    Stream& queue = d.scheduler->get(stream);
    auto text = [](unsigned x, unsigned y, unsigned z) {
      return std::to_string(x) + " x " + std::to_string(y) + " x " + std::to_string(z);
    };
    require(grid_x >= 1 && grid_y >= 1 && grid_z >= 1 && grid_x <= 2147483647u && grid_y <= 65535 && grid_z <= 65535,
            kInvalidValue, kernel.name + ": a grid of " + text(grid_x, grid_y, grid_z) + " blocks");
    require(block_x >= 1 && block_y >= 1 && block_z >= 1 && block_x <= 1024 && block_y <= 1024 && block_z <= 64 &&
                uint64_t(block_x) * block_y * block_z <= std::min(kernel.max_threads, 1024u),
            kInvalidValue,
            kernel.name + ": a block of " + text(block_x, block_y, block_z) + " threads; at most " +
                std::to_string(std::min(kernel.max_threads, 1024u)));
    require(shared_bytes <= function->dynamic_shared_limit, kInvalidValue,
            kernel.name + ": " + std::to_string(shared_bytes) + " bytes of dynamic shared memory; allowed are " +
                std::to_string(function->dynamic_shared_limit) + " (cuFuncSetAttribute raises it)");
    require(extra == nullptr, kNotSupported, "parameters through `extra` are not emulated");
    require(kernel.parameters.empty() || parameters != nullptr, kInvalidValue, kernel.name + ": parameters are null");
    std::vector<uint8_t> bytes(kernel.parameter_bytes);
    for (size_t i = 0; i < kernel.parameters.size(); ++i) {
      require(parameters[i] != nullptr, kInvalidValue, kernel.name + ": parameter " + std::to_string(i) + " is null");
      std::memcpy(bytes.data() + kernel.parameters[i].offset, parameters[i], kernel.parameters[i].bytes);
    }
    Shape shape{{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes};
    // What counts is the state at the launch, not at the run: the limit may change, the module be unloaded.
    Function at_launch = *function;
    Work work;
    work.name = kernel.name;
    work.kind = BIREAL_EMULATOR_KERNEL;
    work.run = [at_launch, shape, bytes](Execution& e) { run_kernel(e, at_launch, shape, bytes); };
    d.scheduler->submit(queue, std::move(work));
  });
}
