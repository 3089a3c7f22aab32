// Runs a kernel: blocks in order, warps between barriers, groups of lanes by their program counter.
#include <algorithm>
#include <climits>

#include "emulator/ptx/machine.h"

namespace bireal::ptx {

namespace control_flow {

/// The lanes of `mask` leave the running group for `target`.
static void leave_for(Warp& warp, int target, uint32_t mask) {
  if (mask == warp.mask) {
    warp.pc = target;
    if (target >= warp.limit) warp.limit = 0;
    return;
  }
  warp.ready.push_back({target, mask});
  warp.mask &= ~mask;
  warp.limit = 0;  // the scheduler looks again
}

void branch(Warp& warp, const Instruction& in, uint32_t mask) {
  if (mask != warp.mask) ++warp.launch->divergent_branches;
  leave_for(warp, in.target, mask);
}

void indexed_branch(Warp& warp, const Instruction& in, uint32_t mask) {
  const std::vector<int32_t>& table = warp.launch->code->tables[size_t(in.target)];
  const uint32_t* index = warp.in<uint32_t>(in.args[0]);
  while (mask) {
    int lane = __builtin_ctz(mask);
    if (index[lane] >= table.size())
      fault(warp, in, lane, Check::kTrap,
            "brx.idx: index " + std::to_string(index[lane]) + " in a table of " + std::to_string(table.size()));
    uint32_t same = 0;
    for_lanes(mask, [&](int l) { same |= uint32_t(index[l] == index[lane]) << l; });
    leave_for(warp, table[index[lane]], same);
    mask &= ~same;
  }
}

void exit_lanes(Warp& warp, const Instruction& in, uint32_t mask) {
  for_lanes(mask, [&](int lane) {
    if (!warp.copies.empty() && !warp.copies[size_t(lane)].pending.empty()) {
      find(warp, in, lane, Check::kAsyncCopy, "the thread ends with a cp.async in flight: nothing waited for it");
      warp.copies[size_t(lane)].pending.clear();
    }
  });
  warp.exited |= mask;
  warp.mask &= ~mask;
  if (warp.mask == 0) warp.limit = 0;
}

void trap(Warp& warp, const Instruction& in, uint32_t mask) { fault(warp, in, __builtin_ctz(mask), Check::kTrap, "trap"); }
void nothing(Warp&, const Instruction&, uint32_t) {}

}  // namespace control_flow

namespace {

/// Takes the ready group with the lowest program counter as the running one, merged with all that stand there too.
bool select_group(Warp& warp) {
  if (warp.mask) warp.ready.push_back({warp.pc, warp.mask});
  warp.mask = 0;
  if (warp.ready.empty()) return false;
  int lowest = INT_MAX, next = INT_MAX;
  for (const Group& g : warp.ready) lowest = std::min(lowest, g.pc);
  size_t kept = 0;
  for (const Group& g : warp.ready) {
    if (g.pc == lowest) {
      warp.mask |= g.mask;
    } else {
      next = std::min(next, g.pc);
      warp.ready[kept++] = g;
    }
  }
  warp.ready.resize(kept);
  warp.pc = lowest;
  warp.limit = next;
  return true;
}

/// Everyone in the warp waits: if not in one barrier, nobody will ever go on.
void report_stuck(Warp& warp) {
  const KernelCode& code = *warp.launch->code;
  if (!warp.waiting.empty()) {
    const SyncWait& w = warp.waiting.front();
    uint32_t missing = w.member_mask & warp.live() & ~w.lanes;
    int other = missing ? __builtin_ctz(missing) : -1;
    std::string where = "elsewhere";
    auto place_of = [&](int pc) {
      const Place& p = code.places[size_t(code.code[size_t(pc)].place)];
      return p.line ? "at line " + std::to_string(p.line) : "at PTX line " + std::to_string(code.code[size_t(pc)].ptx_line);
    };
    for (const SyncWait& v : warp.waiting)
      if (other >= 0 && (v.lanes >> other & 1)) {
        where = "in another *.sync instruction " + place_of(v.pc);
        if (v.pc == w.pc) where = "in the same instruction with another mask";
      }
    if (other >= 0 && (warp.barrier.mask >> other & 1)) where = "in the barrier " + place_of(warp.barrier.pc);
    char text[160];
    snprintf(text, sizeof text, "lanes 0x%08x wait for mask 0x%08x, but lane %d waits %s", w.lanes, w.member_mask, other,
             where.c_str());
    fault(warp, code.code[size_t(w.pc)], __builtin_ctz(w.lanes), Check::kSyncMask, text);
  }
  if (warp.barrier.mask && !warp.barrier_arrived) {
    uint32_t missing = warp.present & ~warp.barrier.mask;
    int lane = __builtin_ctz(warp.barrier.mask);
    fault(warp, code.code[size_t(warp.barrier.pc)], lane, Check::kDivergentBarrier,
          "divergent barrier: " + std::to_string(__builtin_popcount(missing)) +
              " of the warp's threads do not reach it, thread " +
              thread_name(*warp.launch, uint32_t(warp.thread(__builtin_ctz(missing)))) +
              ((warp.exited & missing) ? " has ended" : " waits elsewhere"));
  }
}

/// Runs until all lanes wait or have ended, or for a slice of instructions (a warp that spins must let others go on).
/// True if anything was executed.
bool run_warp(Warp& warp) {
  Launch& launch = *warp.launch;
  const Instruction* code = launch.code->code.data();
  Executions* executions = launch.executions.data();
  uint64_t threads = 0;
  int64_t slice = 1 << 20;
  bool ran = false;
  while (slice > 0 && select_group(warp)) {
    ran = true;
    do {
      int pc = warp.pc;
      const Instruction& in = code[pc];
      uint32_t mask = warp.mask;
      if (in.guard >= 0) mask &= warp.predicates[in.guard] ^ (in.guard_negated ? kAllLanes : 0u);
      executions[pc].warps += 1;
      unsigned active = unsigned(__builtin_popcount(mask));
      executions[pc].threads += active;
      threads += active;
      warp.current = pc;
      warp.pc = pc + 1;
      if (mask) in.run(warp, in, mask);
    } while (warp.pc < warp.limit && --slice > 0);
    if (launch.executed + threads > launch.options->instruction_limit)
      fault(warp, code[warp.current], __builtin_ctz(warp.mask ? warp.mask : warp.present), Check::kRunaway,
            "more than " + std::to_string(launch.options->instruction_limit) +
                " thread instructions: an endless loop, or Options::instruction_limit");
  }
  launch.executed += threads;
  if (warp.mask == 0 && warp.ready.empty() && !warp.barrier_arrived && (!warp.waiting.empty() || warp.barrier.mask))
    report_stuck(warp);
  return ran;
}

bool differs_by_block(Special s) { return s == Special::kCtaidX || s == Special::kCtaidY || s == Special::kCtaidZ; }

/// Those that are the same in all blocks once, for the first.
void fill_special(const Launch& launch, const Block& block, Warp& warp) {
  Dim3 shape = launch.block_shape;
  for (const auto& special : launch.code->specials) {
    if (block.serial != 1 && !differs_by_block(special.first)) continue;
    uint32_t* slot = reinterpret_cast<uint32_t*>(warp.registers + special.second);
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      uint32_t t = uint32_t(warp.thread(int(lane))), value = 0, below = (1u << lane) - 1;
      switch (special.first) {
        case Special::kTidX: value = t % shape.x; break;
        case Special::kTidY: value = t / shape.x % shape.y; break;
        case Special::kTidZ: value = t / (shape.x * shape.y); break;
        case Special::kNtidX: value = shape.x; break;
        case Special::kNtidY: value = shape.y; break;
        case Special::kNtidZ: value = shape.z; break;
        case Special::kCtaidX: value = block.id.x; break;
        case Special::kCtaidY: value = block.id.y; break;
        case Special::kCtaidZ: value = block.id.z; break;
        case Special::kNctaidX: value = launch.grid.x; break;
        case Special::kNctaidY: value = launch.grid.y; break;
        case Special::kNctaidZ: value = launch.grid.z; break;
        case Special::kLaneId: value = lane; break;
        case Special::kWarpId: value = uint32_t(warp.index); break;
        case Special::kNwarpId: value = uint32_t(block.warps.size()); break;
        case Special::kLanemaskEq: value = 1u << lane; break;
        case Special::kLanemaskLt: value = below; break;
        case Special::kLanemaskLe: value = below | 1u << lane; break;
        case Special::kLanemaskGt: value = ~(below | 1u << lane); break;
        case Special::kLanemaskGe: value = ~below; break;
        case Special::kDynamicSharedBytes:
          value = uint32_t(block.shared.size()) - (launch.kernel->static_shared_bytes + 15) / 16 * 16;
          break;
        case Special::kTotalSharedBytes: value = uint32_t(block.shared.size()); break;
        case Special::kGridId:
        case Special::kClock:
        case Special::kSmId: value = 0; break;
        case Special::kNsmId: value = 1; break;
      }
      slot[lane] = value;
    }
  }
}

void release(Launch& launch, Block& block, BarrierState& barrier) {
  uint32_t all = block.warps.size() >= 32 ? kAllLanes : (1u << block.warps.size()) - 1;
  if (barrier.warps == all)
    order_block(launch, block);
  else
    order_warps(launch, block, barrier.warps);
  for (Warp& warp : block.warps)
    if (barrier.waiting >> warp.index & 1) {
      warp.ready.push_back(warp.barrier);
      warp.barrier = {};
      warp.barrier_arrived = false;
    }
  barrier = {};
}

void run_block(Launch& launch, Block& block) {
  const KernelCode& code = *launch.code;
  for (Warp& warp : block.warps) {
    warp.exited = 0;
    warp.pc = 0;
    warp.limit = 0;
    warp.mask = 0;
    warp.ready.assign(1, {0, warp.present});
    warp.waiting.clear();
    warp.barrier = {};
    warp.barrier_arrived = false;
    warp.full_tick = 0;
    warp.pair_ticks.clear();
    for (AsyncCopies& c : warp.copies) c = {};
    fill_special(launch, block, warp);
    warp.predicates[0] = 0;
    warp.predicates[1] = kAllLanes;
    if (launch.kernel->local_bytes) std::memset(warp.local, 0xCD, size_t(launch.kernel->local_bytes) * kLanes);
  }
  for (BarrierState& b : block.barriers) b = {};
  block.tick = 1;
  block.full_tick = 0;
  block.recorded = false;
  block.warp_pair_ticks.clear();
  block.acquired.clear();
  std::fill(block.fenced.begin(), block.fenced.end(), uint8_t(0));
  std::fill(block.shared.begin(), block.shared.end(), uint8_t(0xCD));
  std::fill(block.shared_initialised.begin(), block.shared_initialised.end(), uint8_t(0));
  std::fill(block.shared_pending.begin(), block.shared_pending.end(), uint8_t(0));
  block.copies_in_flight = 0;
  for (;;) {
    bool ran = false;
    size_t n = block.warps.size();
    for (size_t i = 0; i < n; ++i) {
      Warp& warp = block.warps[launch.options->reverse ? n - 1 - i : i];
      ran |= run_warp(warp);
      for (BarrierState& b : block.barriers)
        if (b.warps && uint32_t(__builtin_popcount(b.warps)) >= b.expected) {
          release(launch, block, b);
          ran = true;
        }
    }
    bool done = true;
    for (const Warp& warp : block.warps) done &= warp.live() == 0;
    if (done) break;
    if (ran) continue;
    // Nobody moves: the warps at a barrier wait for others that ended or wait at another one.
    for (const Warp& warp : block.warps) {
      if (!warp.barrier_arrived) continue;
      const BarrierState& b = block.barriers[warp.barrier_id];
      std::string ended, elsewhere;
      for (const Warp& other : block.warps) {
        if (b.warps >> other.index & 1) continue;
        std::string& list = other.live() == 0 ? ended : elsewhere;
        list += (list.empty() ? "" : ",") + std::to_string(other.index);
      }
      std::string what = "divergent barrier: " + std::to_string(__builtin_popcount(b.warps)) + " of " +
                         std::to_string(b.expected) + " warps reach barrier " + std::to_string(warp.barrier_id);
      if (!ended.empty()) what += "; warps that have ended: " + ended;
      if (!elsewhere.empty()) what += "; warps that wait elsewhere: " + elsewhere;
      fault(warp, code.code[size_t(warp.barrier.pc - 1)], __builtin_ctz(warp.barrier.mask),
            elsewhere.empty() ? Check::kDivergentBarrier : Check::kDeadlock, what);
    }
    fault(block.warps[0], code.code[size_t(block.warps[0].current)], 0, Check::kDeadlock, "no thread can go on");
  }
  for (int id = 0; id < 16; ++id)
    if (block.barriers[id].warps) {
      const Warp& warp = block.warps[size_t(__builtin_ctz(block.barriers[id].warps))];
      fault(warp, code.code[size_t(block.barriers[id].pc)], 0, Check::kDivergentBarrier,
            "barrier " + std::to_string(id) + " is left with " + std::to_string(__builtin_popcount(block.barriers[id].warps)) +
                " of " + std::to_string(block.barriers[id].expected) + " warps arrived");
    }
}

}  // namespace

Counters launch(const Module& module, const Kernel& kernel, Dim3 grid, Dim3 shape, uint32_t dynamic_shared_bytes,
                const std::vector<uint8_t>& parameters, const Options& options) {
  auto refuse = [&](const std::string& what) { throw LoadError("launch of " + kernel.name + ": " + what); };
  auto dims = [](Dim3 d) { return std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z); };
  uint64_t threads = uint64_t(shape.x) * shape.y * shape.z;
  if (threads == 0 || shape.x > 1024 || shape.y > 1024 || shape.z > 64 || threads > 1024)
    refuse("block of " + dims(shape) + " threads; at most 1024 in all and 1024,1024,64");
  if (threads > kernel.max_threads)
    refuse("block of " + std::to_string(threads) + " threads, but __launch_bounds__ allows " +
           std::to_string(kernel.max_threads));
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    refuse("grid of " + dims(grid) + " blocks; at least 1 and at most 2147483647,65535,65535");
  if (uint64_t(grid.x) * grid.y * grid.z >= 0xffffffffull) refuse("grid of " + dims(grid) + " blocks is too large to emulate");
  if (parameters.size() != kernel.parameter_bytes)
    refuse(std::to_string(parameters.size()) + " parameter bytes, the kernel takes " + std::to_string(kernel.parameter_bytes));
  uint64_t shared = uint64_t((kernel.static_shared_bytes + 15) / 16 * 16) + dynamic_shared_bytes;
  if (shared > options.shared_limit_bytes)
    refuse(std::to_string(shared) + " bytes of shared memory (" + std::to_string(kernel.static_shared_bytes) + " static, " +
           std::to_string(dynamic_shared_bytes) + " dynamic), the limit is " + std::to_string(options.shared_limit_bytes));

  Launch run;
  run.module = &module;
  run.kernel = &kernel;
  run.code = kernel.code.get();
  run.options = &options;
  run.grid = grid;
  run.block_shape = shape;
  run.parameters = parameters.data();
  run.parameter_bytes = uint32_t(parameters.size());
  run.thread_count = uint32_t(threads);
  run.cells_wanted = options.race_checks;
  const KernelCode& code = *kernel.code;
  run.executions.resize(code.code.size());
  run.counts.resize(code.code.size());
  run.region_of_site.resize(code.code.size());

  Block block;
  size_t warp_count = size_t((threads + kLanes - 1) / kLanes);
  block.shared.resize(size_t(shared));
  block.shared_initialised.resize(size_t(shared));
  if (code.has_async_copy) block.shared_pending.resize(size_t(shared));
  if (options.race_checks) block.shared_cells.resize(size_t(shared) / code.shared_granule + 1);
  if (code.has_fence) block.fenced.resize(warp_count * kLanes);
  size_t register_bytes = (size_t(code.register_bytes) + 63) / 64 * 64 + 64, local_bytes = size_t(kernel.local_bytes) * kLanes;
  std::vector<uint64_t> registers(warp_count * register_bytes / 8 + 8), local(warp_count * local_bytes / 8 + 1);
  std::vector<uint32_t> predicates(warp_count * size_t(code.predicate_count));
  uint8_t* first_register = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(registers.data()) + 63) / 64 * 64);
  block.warps.resize(warp_count);
  for (size_t i = 0; i < warp_count; ++i) {
    Warp& warp = block.warps[i];
    warp.launch = &run;
    warp.block = &block;
    warp.index = int(i);
    warp.registers = first_register + i * register_bytes;
    warp.predicates = predicates.data() + i * size_t(code.predicate_count);
    warp.pool = code.pool.data();
    warp.local = reinterpret_cast<uint8_t*>(local.data()) + i * local_bytes;
    size_t lanes = std::min<size_t>(kLanes, size_t(threads) - i * kLanes);
    warp.present = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
    if (code.has_async_copy) warp.copies.resize(kLanes);
  }
  uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    uint64_t at = options.reverse ? blocks - 1 - i : i;
    block.id = {uint32_t(at % grid.x), uint32_t(at / grid.x % grid.y), uint32_t(at / (uint64_t(grid.x) * grid.y))};
    block.serial = uint32_t(i) + 1;
    run_block(run, block);
  }
  if (options.touched) report_touched(run);
  return collect(run);
}

}  // namespace bireal::ptx
