// interpreter: runs the PTX text that nvcc wrote, on the CPU, and checks every access while it does. Test-only; never shipped.
//
// A warp's lanes run in lockstep while their program counters agree (lowest counter first where they diverge); warps run one
// after another between barriers; blocks run one after another. Values follow the PTX ISA: integers and correctly rounded
// floating point exactly; `.approx` functions are computed in double and rounded once, so compare those with a tolerance.
//
// Memory    global addresses are host addresses; Options::find_allocation says which are valid. Shared, local and parameter
// memory
//           are the launch's own. Writes of an asynchronous copy (cp.async) land only at the wait that covers them.
// Checks    see Check. Each message names kernel, block, thread and, with `nvcc -lineinfo`, the line of the .cu file.
// Counters  see Counters: by class, sectors, bank conflicts, by source line.
// Limits    blocks that wait for each other, textures, surfaces, printf, malloc, wgmma, TMA and clusters are refused or reported.
//           An instruction that the interpreter does not know is an error of parse(), with its line, never a silent skip.
// Needs     AVX2, FMA, F16C and POPCNT of the host (parse() says so where they are missing).
// Source    PTX ISA 9.0, NVIDIA.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace bireal::ptx {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

/// PTX text that cannot be run, or a launch whose arguments are wrong. The message has the PTX line where there is one.
class LoadError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What a kernel can be caught at.
enum class Check {
  kOutOfBounds,       ///< shared, local, parameter or global access outside what was allocated
  kMisaligned,        ///< address not a multiple of the access
  kReadOnly,          ///< write to a __constant__ variable or to an allocation that is read-only
  kUninitialised,     ///< read of shared or global memory that nobody wrote
  kSharedRace,        ///< two threads of a block, one of them writes, nothing orders them
  kGlobalRace,        ///< the same in global memory
  kBlockRace,         ///< conflicting global accesses of two blocks of one launch, not both atomic
  kNonCoherentRead,   ///< ld.global.nc (const __restrict__) of memory that this launch wrote
  kDivergentBarrier,  ///< a barrier that some threads of the warp or block do not reach
  kSyncMask,          ///< *.sync whose mask leaves out the lane itself, or a lane that exited or waits elsewhere
  kInactiveLane,      ///< shfl.sync reads a lane that does not take part
  kAsyncCopy,         ///< shared memory read or written while a cp.async to it is in flight, or left in flight at the end
  kDeadlock,          ///< nobody can go on
  kRunaway,           ///< more instructions than Options::instruction_limit
  kTrap,              ///< trap, assert or a branch outside its table
};
constexpr int kCheckCount = int(Check::kTrap) + 1;
const char* check_name(Check check);

/// One thing found wrong, with its place.
struct Finding {
  Check check = Check::kTrap;
  std::string message;  ///< the whole text, place included
  std::string kernel;
  Dim3 block, thread;
  std::string file;  ///< the .cu or .cuh file; empty without -lineinfo
  int line = 0;      ///< line in `file`, 0 without -lineinfo
  int ptx_line = 0;
};

/// Thrown by launch(): the first finding that nobody wanted reported, or one after which the kernel cannot go on.
class KernelFault : public std::runtime_error {
 public:
  explicit KernelFault(Finding finding) : std::runtime_error(finding.message), finding_(std::move(finding)) {}
  const Finding& finding() const { return finding_; }

 private:
  Finding finding_;
};

/// One piece of global memory. Valid and unmoved until the launch returns.
struct Allocation {
  uint64_t address = 0;
  uint64_t bytes = 0;
  uint8_t* initialised =
      nullptr;  ///< one byte for each byte: 0 = nobody wrote it; launch() stores 1. nullptr: all are initialised
  bool read_only = false;
};

/// The allocation that holds `address`, if any. Asked once for each allocation and launch, not for each access.
using FindAllocation = std::function<std::optional<Allocation>(uint64_t address)>;

/// How to run. The defaults check everything and throw at the first finding.
struct Options {
  FindAllocation find_allocation;  ///< without it every global access but those to module variables is out of bounds
  bool race_checks = true;
  bool access_counters = true;              ///< sectors of global memory that are requested, wavefronts of shared memory
  bool reverse = false;                     ///< blocks, warps and lanes in descending order: results must not change
  uint32_t shared_limit_bytes = 48 * 1024;  ///< static + dynamic; more after cuFuncSetAttribute
  uint64_t instruction_limit = 1ull << 32;  ///< thread instructions of the launch
  bool count_lines = true;                  ///< fill Counters::lines
  /// Where findings go after which the kernel can go on (races, uninitialised reads, copies left in flight): each once for a kind
  /// and line. Empty: they are thrown.
  std::function<void(const Finding&)> report;
  /// Called after the launch for every run of bytes of global memory that it read, and every one that it wrote.
  std::function<void(uint64_t address, uint64_t bytes, bool write)> touched;
};

/// Classes of instructions, as a GPU's pipes divide them.
enum class InstructionClass {
  kInteger,      ///< integer and logic arithmetic, popc, prmt, address arithmetic
  kFloat,        ///< f32, f64, f16, bf16 arithmetic and comparison
  kSpecial,      ///< rcp, sqrt, rsqrt, ex2, lg2, sin, cos, tanh, div
  kConvert,      ///< cvt
  kMove,         ///< mov, selp, cvta, pack and unpack
  kControl,      ///< branches, calls, exit
  kGlobalLoad,   ///< ld.global, ld.const
  kGlobalStore,  ///< st.global
  kSharedLoad,   ///< ld.shared, ldmatrix
  kSharedStore,  ///< st.shared
  kLocal,        ///< ld and st of local memory: spills and indexed arrays
  kParameter,    ///< ld.param
  kAsyncCopy,    ///< cp.async and its groups
  kAtomic,       ///< atom, red
  kWarp,         ///< shfl, vote, match, redux, activemask
  kBarrier,      ///< bar, barrier, membar, fence
  kTensorCore,   ///< mma
};
constexpr int kInstructionClassCount = int(InstructionClass::kTensorCore) + 1;
const char* instruction_class_name(InstructionClass c);

/// Traffic of one direction of global memory. A sector is 32 bytes.
struct GlobalTraffic {
  uint64_t instructions = 0;       ///< warp instructions
  uint64_t bytes = 0;              ///< bytes asked for by all threads
  uint64_t sectors_requested = 0;  ///< distinct sectors of each warp instruction, added up
  uint64_t sectors_ideal = 0;      ///< the fewest that could hold the distinct bytes of each warp instruction, added up
  uint64_t sectors_distinct = 0;   ///< distinct sectors of the whole launch
};

/// Shared memory: 32 banks of 4 bytes. Without conflicts an instruction takes 1 wavefront (2 for 8-byte, 4 for 16-byte accesses
/// of a full warp).
struct SharedTraffic {
  uint64_t instructions = 0;      ///< warp instructions
  uint64_t wavefronts = 0;        ///< as executed
  uint64_t wavefronts_ideal = 0;  ///< without conflicts
  uint32_t worst_degree = 0;      ///< largest number of distinct words of one bank in one wavefront's lanes: 1 = no conflict
};

/// One source line's part in a launch (all instructions that -lineinfo maps to it).
struct LineCounters {
  std::string file;
  int line = 0;
  uint64_t thread_instructions = 0;
  GlobalTraffic read, write;  ///< sectors_distinct is 0 here: it is counted for the launch alone
  SharedTraffic shared;
};

/// What one launch did.
struct Counters {
  uint64_t warp_instructions = 0;
  uint64_t thread_instructions = 0;
  std::array<uint64_t, kInstructionClassCount> by_class{};  ///< thread instructions
  GlobalTraffic read, write;                                ///< atomics count in both
  SharedTraffic shared_read, shared_write;
  uint64_t barriers = 0;            ///< bar.sync by a warp
  uint64_t divergent_branches = 0;  ///< warp branches whose lanes went both ways
  std::vector<LineCounters> lines;  ///< most thread instructions first
};

/// Adds `other` into `sum`, lines by file and line.
void accumulate(Counters& sum, const Counters& other);
/// The counters as a table, `top_lines` worst source lines below it.
std::string to_string(const Counters& counters, int top_lines = 5);

/// A kernel parameter: its place in the parameter bytes.
struct Parameter {
  uint32_t offset = 0, bytes = 0;
};

struct KernelCode;  // code.h

/// One entry point.
struct Kernel {
  std::string name;
  std::vector<Parameter> parameters;
  uint32_t parameter_bytes = 0;
  uint32_t static_shared_bytes = 0;
  uint32_t local_bytes = 0;     ///< of one thread
  uint32_t max_threads = 1024;  ///< .maxntid or .reqntid
  std::shared_ptr<const KernelCode> code;
};

/// A `__device__` or `__constant__` variable, in host memory that the Module owns.
struct Variable {
  std::string name;
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool constant = false;
};

/// Loaded PTX. Kernels and variables keep their addresses as long as the module lives.
class Module {
 public:
  /// nullptr where there is none.
  const Kernel* find_kernel(const std::string& name) const;
  const Variable* find_variable(const std::string& name) const;
  /// As above; LoadError with the names that there are.
  const Kernel& kernel(const std::string& name) const;
  const Variable& variable(const std::string& name) const;
  const std::vector<Kernel>& kernels() const { return kernels_; }
  const std::vector<Variable>& variables() const { return variables_; }
  int target() const { return target_; }       ///< 75 of `.target sm_75`
  double version() const { return version_; }  ///< 9.0 of `.version 9.0`

 private:
  friend class ModuleBuilder;
  std::vector<Kernel> kernels_;
  std::vector<Variable> variables_;
  std::vector<std::unique_ptr<uint64_t[]>> storage_;
  int target_ = 0;
  double version_ = 0;
};

/// Reads PTX text. Throws LoadError, which names `name`, the line and its text.
std::unique_ptr<Module> parse(const std::string& text, const std::string& name = "ptx");

/// Runs `kernel` to its end and returns what it did. Throws KernelFault, or LoadError where grid, block, shared memory or the
/// number of parameter bytes is wrong. `module` must be the one that holds `kernel`. Not reentrant for one module; two modules
/// may run on two threads at a time.
Counters launch(const Module& module, const Kernel& kernel, Dim3 grid, Dim3 block, uint32_t dynamic_shared_bytes,
                const std::vector<uint8_t>& parameters, const Options& options);

}  // namespace bireal::ptx
