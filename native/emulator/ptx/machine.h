// The state of a running launch: warps, blocks, shared memory with its shadow, global memory with its shadow.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "emulator/ptx/code.h"

namespace bireal::ptx {

struct Launch;
struct Block;

/// Lanes that stand at one program counter.
struct Group {
  int pc = 0;
  uint32_t mask = 0;
};

/// Lanes that wait in a *.sync instruction for the others of their mask.
struct SyncWait {
  int pc = 0;
  uint32_t lanes = 0, member_mask = 0;
};

/// A copy that cp.async began and no wait has finished.
struct PendingCopy {
  uint32_t shared_offset, bytes, group;
  uint8_t data[16];
};

/// The cp.async state of one thread.
struct AsyncCopies {
  uint32_t open_group = 0;  ///< copies that are issued now belong to this one
  std::vector<PendingCopy> pending;
};

struct Warp {
  Launch* launch = nullptr;
  Block* block = nullptr;
  int index = 0;
  uint8_t* registers = nullptr;
  uint32_t* predicates = nullptr;
  const uint8_t* pool = nullptr;
  uint8_t* local = nullptr;  ///< local_bytes of each lane
  uint32_t present = 0, exited = 0;

  // the group that runs, and where it stops to meet another one
  int pc = 0, limit = 0;
  uint32_t mask = 0;
  int current = 0;  ///< pc of the instruction that executes
  std::vector<Group> ready;
  std::vector<SyncWait> waiting;
  Group barrier;  ///< lanes that wait in bar.sync
  bool barrier_arrived = false;
  int barrier_id = 0;

  // happens-before within the warp: ticks of the block
  uint32_t full_tick = 0;
  std::vector<uint32_t> pair_ticks;  ///< [from * 32 + to]; empty before the first partial mask
  std::vector<AsyncCopies> copies;   ///< of each lane, where the kernel has cp.async

  uint32_t live() const { return present & ~exited; }
  template <class T>
  const Slot<T>* in(Operand o) const {
    return reinterpret_cast<const Slot<T>*>(o.at >= 0 ? registers + o.at : pool + ~o.at);
  }
  template <class T>
  Slot<T>* out(Operand o) {
    return reinterpret_cast<Slot<T>*>(registers + o.at);
  }
  uint32_t predicate(Operand o, bool negated = false) const { return predicates[o.at] ^ (negated ? kAllLanes : 0u); }
  void set_predicate(Operand o, uint32_t lanes, uint32_t bits) {
    if (o.present()) predicates[o.at] = (predicates[o.at] & ~lanes) | (bits & lanes);
  }
  int thread(int lane) const { return index * kLanes + lane; }
};

/// Who touched a granule of memory, and when: block (serial number, from 1; 0 = nobody), and tick, thread and kind in one word.
struct AccessRecord {
  uint32_t stamp = 0, block = 0;
  static constexpr uint32_t kAtomic = 1u << 10;
  static constexpr uint32_t kTickLimit = 1u << 21;
  uint32_t thread() const { return stamp & 1023u; }
  bool atomic() const { return stamp & kAtomic; }
  uint32_t who() const { return stamp & 2047u; }  ///< thread and kind
  uint32_t tick() const { return stamp >> 11; }
  /// Later blocks, and later ticks of a block, have larger ones.
  uint64_t key() const { return uint64_t(block) << 32 | stamp; }
};

/// The last writer of a granule and two of its readers since, as different as could be had.
struct AccessCell {
  AccessRecord writer, readers[2];
};

struct BarrierState {
  uint32_t warps = 0;     ///< arrived, by bit
  uint32_t waiting = 0;   ///< of these, the ones that wait (not bar.arrive)
  uint32_t expected = 0;  ///< warps
  int pc = -1;
  uint32_t count_true = 0;  ///< bar.red: threads whose predicate holds
};

/// What a block has learnt of another through fence + atomic.
struct Acquired {
  uint32_t block, tick, thread;
};

struct Block {
  Dim3 id;
  uint32_t serial = 0;  ///< counts from 1
  std::vector<uint8_t> shared;
  std::vector<uint8_t> shared_initialised;  ///< by byte
  std::vector<uint8_t> shared_pending;      ///< by byte: a cp.async is in flight
  uint32_t copies_in_flight = 0;
  std::vector<AccessCell> shared_cells;  ///< by granule
  std::vector<Warp> warps;
  BarrierState barriers[16];
  uint32_t tick = 1, full_tick = 0;
  bool recorded = false;                  ///< an access carries the present tick
  std::vector<uint32_t> warp_pair_ticks;  ///< [from * 32 + to]: barriers of a part of the block; empty before the first
  std::vector<Acquired> acquired;
  std::vector<uint8_t> fenced;  ///< by thread: a fence since the block began
};

/// How often one instruction ran in a launch: every one counts, so these lie close together.
struct Executions {
  uint64_t warps = 0, threads = 0;
};

/// What one instruction did to memory in a launch.
struct InstructionCounts {
  uint64_t bytes = 0, sectors = 0, sectors_ideal = 0;  ///< global
  uint64_t global_warps = 0;
  uint64_t wavefronts = 0, wavefronts_ideal = 0, shared_warps = 0;  ///< shared
  uint32_t worst_degree = 0;
  int32_t sector_pattern = -1, bank_pattern = -1;  ///< indices into Launch::patterns
};

/// What one warp instruction cost, and for which addresses.
struct Pattern {
  uint32_t mask = 0, bytes = 0;
  uint64_t phase = 0;         ///< of the first lane's address in a sector, or in a bank's word
  uint64_t relative[kLanes];  ///< addresses of the lanes from the first one's on
  uint64_t cost = 0, ideal = 0;
  uint32_t worst_degree = 0;
};

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kSectorBytes = 32;

/// What a launch knows of 4096 bytes of global memory.
struct Page {
  std::vector<AccessCell> cells;
  std::array<uint64_t, kPageBytes / 64> read{}, written{};  ///< by granule, one bit each
};

/// An allocation, as one launch sees it.
struct Region {
  Allocation allocation;
  uint64_t first_page = 0;
  std::vector<std::unique_ptr<Page>> pages;
};

struct Released {
  uint64_t address;
  std::vector<Acquired> by;
};

struct Launch {
  const Module* module = nullptr;
  const Kernel* kernel = nullptr;
  const KernelCode* code = nullptr;
  const Options* options = nullptr;
  Dim3 grid, block_shape;
  const uint8_t* parameters = nullptr;
  uint32_t parameter_bytes = 0;
  uint32_t thread_count = 0;
  std::vector<std::unique_ptr<Region>> regions;
  std::vector<Region*> region_of_site;  ///< the last one that an instruction touched
  std::vector<Executions> executions;   ///< of each instruction, as are the counts
  std::vector<InstructionCounts> counts;
  std::vector<Pattern> patterns;
  std::vector<Released> released;
  std::set<std::tuple<Check, int, int>> reported;
  uint64_t executed = 0;
  uint64_t divergent_branches = 0, barrier_count = 0;
  bool cells_wanted = true;
};

// ---- findings (checks.cpp)

/// Throws KernelFault: the kernel cannot go on.
[[noreturn]] void fault(const Warp& warp, const Instruction& in, int lane, Check check, const std::string& what);
/// Hands the finding to Options::report, or throws where there is none.
void find(const Warp& warp, const Instruction& in, int lane, Check check, const std::string& what);
/// "thread 5,0,0 of block 0,0,0".
std::string thread_name(const Launch& launch, uint32_t thread);

enum class AccessKind : uint8_t { kRead, kWrite, kAtomic, kStrongRead, kNonCoherentRead };

/// How the addresses of a warp's active lanes lie: anyhow, all the same, or one access behind the other from the first lane on.
enum class Layout : uint8_t { kScattered, kSame, kRow };

/// All that access_global() does, for a whole warp at a time, where there is nothing to find but races. False, and nothing done,
/// where there may be: access_global() then tells what. Lanes outside `mask` hold the address of one that is in it.
bool pass_global(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* address, uint32_t bytes, AccessKind kind,
                 Layout& layout);
/// The same of access_shared().
bool pass_shared(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, AccessKind kind,
                 Layout& layout);
/// Checks `bytes` at `address` of the lanes in `mask` (bounds, alignment, initialised, races) and counts sectors. `host` gets
/// where each lane's bytes lie. The caller stores after that.
void access_global(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* address, uint32_t bytes, AccessKind kind,
                   uint8_t** host);
/// As above for offsets into shared memory, without counting.
void check_shared(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, AccessKind kind,
                  uint8_t** host);
/// The same, and counts bank conflicts.
void access_shared(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, AccessKind kind,
                   uint8_t** host);
/// A full barrier of the block, a barrier of some warps, a synchronisation of some lanes of one warp: what came before is ordered
/// before what follows.
void order_block(Launch& launch, Block& block);
void order_warps(Launch& launch, Block& block, uint32_t warps);
void order_lanes(Warp& warp, uint32_t lanes);
/// An atomic on `address` by a thread that executed a fence releases what it did, and acquires what others released there.
void release_acquire(Warp& warp, int lane, uint64_t address);

// ---- counters (counters.cpp)

/// Sectors of one warp instruction: distinct ones, and the fewest that could hold its distinct bytes.
void count_sectors(Launch& launch, size_t site, uint32_t mask, const uint64_t* address, uint32_t bytes);
/// Wavefronts of one warp instruction: 32 lanes of 4 bytes, 16 of 8, 8 of 16 at a time; each as often as the worst bank has
/// words.
void count_banks(Launch& launch, size_t site, uint32_t mask, const uint64_t* offset, uint32_t bytes);
Counters collect(const Launch& launch);
/// Calls Options::touched for each run of bytes.
void report_touched(const Launch& launch);

// ---- warp-synchronous instructions (ops_warp.cpp, ops_tensor.cpp, ops_memory.cpp)

/// The lanes in `mask` arrive at a *.sync instruction with their member masks. Calls execute(warp, in, lanes) for each set of
/// lanes that is complete; the others wait.
void arrive_sync(Warp& warp, const Instruction& in, uint32_t mask, Operand member_mask,
                 void (*execute)(Warp&, const Instruction&, uint32_t));
/// The same for .aligned instructions that need the whole warp.
void require_full_warp(Warp& warp, const Instruction& in, uint32_t mask, const char* what);

/// Copies of all groups but the newest `keep` land in shared memory.
void finish_async_copies(Warp& warp, const Instruction& in, int lane, uint32_t keep, bool open_group_too);

/// Gives registers new places, as few as can be, and takes the marks off the operands (registers.cpp). `wide`: those of 64 bits.
void place_registers(KernelCode& code, const std::vector<Operand>& wide);

// ---- control flow (launch.cpp)
namespace control_flow {

void branch(Warp& warp, const Instruction& in, uint32_t mask);
void indexed_branch(Warp& warp, const Instruction& in, uint32_t mask);
void exit_lanes(Warp& warp, const Instruction& in, uint32_t mask);
void trap(Warp& warp, const Instruction& in, uint32_t mask);
void nothing(Warp&, const Instruction&, uint32_t);

}  // namespace control_flow

}  // namespace bireal::ptx
