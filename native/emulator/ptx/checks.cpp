// The checks: bounds, alignment, initialisation, happens-before between accesses; and, on the way, sectors and bank conflicts.
#include <algorithm>

#include "emulator/ptx/machine.h"

namespace bireal::ptx {

namespace {

std::string dims(Dim3 d) { return std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z); }

Dim3 thread_index(const Launch& launch, uint32_t t) {
  Dim3 s = launch.block_shape;
  return {t % s.x, t / s.x % s.y, t / (s.x * s.y)};
}

Finding describe(const Warp& warp, const Instruction& in, int lane, Check check, const std::string& what) {
  const Launch& launch = *warp.launch;
  const KernelCode& code = *launch.code;
  Finding f;
  f.check = check;
  f.kernel = launch.kernel->name;
  f.block = warp.block->id;
  f.thread = thread_index(launch, uint32_t(warp.thread(lane)));
  const Place& place = code.places[size_t(in.place)];
  f.line = place.line;
  if (place.line && size_t(place.file) < code.files.size()) f.file = code.files[size_t(place.file)];
  f.ptx_line = in.ptx_line;
  size_t pc = size_t(&in - code.code.data());
  f.message = std::string(check_name(check)) + ": " + what + " [kernel " + f.kernel + ", block " + dims(f.block) + ", thread " +
              dims(f.thread);
  if (f.line) f.message += ", " + f.file + ":" + std::to_string(f.line);
  f.message += ", PTX line " + std::to_string(f.ptx_line) + ": " + (pc < code.texts.size() ? code.texts[pc] : "") + "]";
  return f;
}

std::string hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string access_text(uint32_t bytes, bool write, const char* space) {
  return std::string(write ? "write" : "read") + " of " + std::to_string(bytes) + " bytes of " + space + " memory";
}

/// Is what `r` stands for ordered before what this thread of the warp does now?
inline bool ordered(const Warp& warp, uint32_t thread, const AccessRecord& r) {
  const Block& block = *warp.block;
  if (r.block == block.serial) {
    uint32_t other = r.thread(), tick = r.tick();
    if (other == thread || tick < block.full_tick) return true;
    uint32_t a = other / kLanes, b = thread / kLanes;
    if (a == b) {
      if (tick < warp.full_tick) return true;
      return !warp.pair_ticks.empty() && tick < warp.pair_ticks[(other % kLanes) * kLanes + thread % kLanes];
    }
    return !block.warp_pair_ticks.empty() && tick < block.warp_pair_ticks[a * 32 + b];
  }
  for (const Acquired& a : block.acquired)
    if (a.block == r.block && (r.tick() < a.tick || r.thread() == a.thread)) return true;
  return false;
}

/// Checks one granule and records the access. `who` gets the thread that it conflicts with.
inline bool conflict(Warp& warp, uint32_t thread, AccessCell& cell, AccessKind kind, bool shared, AccessRecord* who) {
  Block& block = *warp.block;
  block.recorded = true;
  bool writes = kind == AccessKind::kWrite || kind == AccessKind::kAtomic;
  bool atomic = kind == AccessKind::kAtomic || kind == AccessKind::kStrongRead;
  AccessRecord now;
  now.block = block.serial;
  now.stamp = block.tick << 11 | (atomic ? AccessRecord::kAtomic : 0u) | thread;
  if (!writes && cell.writer.block == 0) {  // nobody writes what is only read
    AccessRecord& again =
        cell.readers[1].block == now.block && cell.readers[1].stamp == now.stamp ? cell.readers[1] : cell.readers[0];
    if (again.block == now.block && again.stamp == now.stamp) return false;
  }
  auto exists = [&](const AccessRecord& r) { return r.block != 0 && (!shared || r.block == block.serial); };
  bool bad = false;
  if (exists(cell.writer) && !(atomic && cell.writer.atomic()) && !ordered(warp, thread, cell.writer)) {
    *who = cell.writer;
    bad = true;
  }
  if (writes) {
    for (AccessRecord& r : cell.readers) {
      if (!bad && exists(r) && !(atomic && r.atomic()) && !ordered(warp, thread, r)) {
        *who = r;
        bad = true;
      }
      r.block = 0;
    }
    cell.writer = now;
    return bad;
  }
  // Keep two readers that differ as much as can be: another block, else another warp, else another thread.
  AccessRecord &first = cell.readers[0], &second = cell.readers[1];
  if (!exists(first) || (first.block == now.block && first.thread() == thread && first.atomic() == atomic)) {
    first = now;
  } else {
    auto distance = [&](const AccessRecord& r) {
      return r.block != first.block                           ? 3
             : r.thread() / kLanes != first.thread() / kLanes ? 2
             : r.thread() != first.thread()                   ? 1
                                                              : 0;
    };
    if (!exists(second) || distance(now) >= distance(second)) second = now;
  }
  return bad;
}

std::string other_access(const Warp& warp, const AccessRecord& r) {
  const Launch& launch = *warp.launch;
  if (r.block == warp.block->serial) return "thread " + dims(thread_index(launch, r.thread()));
  uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  uint64_t at = launch.options->reverse ? blocks - r.block : r.block - 1;
  Dim3 g = launch.grid;
  Dim3 id = {uint32_t(at % g.x), uint32_t(at / g.x % g.y), uint32_t(at / (uint64_t(g.x) * g.y))};
  return "thread " + dims(thread_index(launch, r.thread())) + " of block " + dims(id);
}

/// Are all `bytes` (a power of two, up to 32) of a byte map 1?
inline bool all_known(const uint8_t* known, uint32_t bytes) {
  if (bytes == 4) {
    uint32_t four;
    std::memcpy(&four, known, 4);
    return four == 0x01010101u;
  }
  for (uint32_t i = 0; i < bytes; ++i)
    if (known[i] != 1) return false;
  return true;
}

bool is_write(AccessKind kind) { return kind == AccessKind::kWrite || kind == AccessKind::kAtomic; }

/// Lanes in the order in which they act.
template <class F>
inline void in_order(const Launch& launch, uint32_t mask, F&& f) {
  if (!launch.options->reverse) {
    for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
  } else {
    while (mask) {
      int lane = 31 - __builtin_clz(mask);
      f(lane);
      mask &= ~(1u << lane);
    }
  }
}

void check_alignment(const Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* address, uint32_t bytes, bool write,
                     const char* space) {
  uint64_t low = 0;
  for_lanes(mask, [&](int lane) { low |= address[lane]; });
  if ((low & (bytes - 1)) == 0) return;
  for_lanes(mask, [&](int lane) {
    if (address[lane] % bytes)
      fault(warp, in, lane, Check::kMisaligned,
            access_text(bytes, write, space) + " at " + hex(address[lane]) + ", which is not a multiple of " +
                std::to_string(bytes));
  });
}

Region* find_region(Warp& warp, uint64_t address) {
  Launch& launch = *warp.launch;
  for (auto& region : launch.regions)
    if (address - region->allocation.address < region->allocation.bytes) return region.get();
  std::optional<Allocation> found;
  for (const Variable& v : launch.module->variables())
    if (address - v.address < v.bytes) {
      found = Allocation{v.address, v.bytes, nullptr, v.constant};
      break;
    }
  if (!found && launch.options->find_allocation) found = launch.options->find_allocation(address);
  if (!found || address - found->address >= found->bytes) return nullptr;
  auto region = std::make_unique<Region>();
  region->allocation = *found;
  region->first_page = found->address / kPageBytes;
  region->pages.resize(size_t((found->address + found->bytes - 1) / kPageBytes - region->first_page + 1));
  launch.regions.push_back(std::move(region));
  return launch.regions.back().get();
}

inline Page& page_of(Launch& launch, Region& region, uint64_t address) {
  std::unique_ptr<Page>& page = region.pages[size_t(address / kPageBytes - region.first_page)];
  if (!page) {
    page = std::make_unique<Page>();
    size_t granules = kPageBytes / launch.code->global_granule;
    page->read.resize((granules + 63) / 64);
    page->written.resize((granules + 63) / 64);
    if (launch.cells_wanted) page->cells.resize(granules);
  }
  return *page;
}

/// Sectors of one warp instruction: distinct ones, and the fewest that could hold its distinct bytes.
void count_sectors(InstructionCounts& counts, uint32_t mask, const uint64_t* address, uint32_t bytes) {
  counts.global_warps += 1;
  if (mask == kAllLanes) {  // consecutive lanes at consecutive addresses, or all at one: no need to sort
    uint64_t first = address[0], together = 0, apart = 0;
    for (uint64_t lane = 0; lane < kLanes; ++lane) {
      together |= address[lane] ^ first;
      apart |= address[lane] ^ (first + lane * bytes);
    }
    if (together == 0 || apart == 0) {
      uint64_t span = together == 0 ? bytes : uint64_t(bytes) * kLanes;
      counts.bytes += uint64_t(bytes) * kLanes;
      counts.sectors += (first + span - 1) / kSectorBytes - first / kSectorBytes + 1;
      counts.sectors_ideal += (span + kSectorBytes - 1) / kSectorBytes;
      return;
    }
  }
  uint64_t starts[kLanes];
  int n = 0;
  bool ascending = true;
  for (; mask; mask &= mask - 1) {
    uint64_t a = address[__builtin_ctz(mask)];
    if (n && a < starts[n - 1]) ascending = false;
    starts[n++] = a;
  }
  if (!ascending) std::sort(starts, starts + n);
  uint64_t sectors = 0, distinct = 0, last = ~0ull, previous = ~0ull;
  for (int i = 0; i < n; ++i) {
    if (starts[i] == previous) continue;
    previous = starts[i];
    ++distinct;
    uint64_t sector = starts[i] / kSectorBytes;  // an aligned access of up to 16 bytes lies in one; of 32 bytes too
    if (sector != last) ++sectors;
    last = sector;
  }
  counts.bytes += uint64_t(n) * bytes;
  counts.sectors += sectors;
  counts.sectors_ideal += (distinct * bytes + kSectorBytes - 1) / kSectorBytes;
}

/// Wavefronts of one warp instruction: 32 lanes of 4 bytes, 16 of 8, 8 of 16 at a time; each as often as the worst bank has
/// words.
void count_banks(InstructionCounts& counts, uint32_t mask, const uint64_t* offset, uint32_t bytes) {
  counts.shared_warps += 1;
  if (mask == kAllLanes && bytes <= 4) {
    uint64_t first = offset[0], together = 0, apart = 0;
    for (uint64_t lane = 0; lane < kLanes; ++lane) {
      together |= offset[lane] ^ first;
      apart |= offset[lane] ^ (first + lane * bytes);
    }
    if (together == 0 || apart == 0) {
      counts.wavefronts += 1;
      counts.wavefronts_ideal += 1;
      counts.worst_degree = std::max(counts.worst_degree, 1u);
      return;
    }
  }
  int lanes_at_once = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  uint32_t words = bytes <= 4 ? 1 : bytes / 4;
  for (int from = 0; from < kLanes; from += lanes_at_once) {
    uint32_t part = mask & (lanes_at_once == 32 ? kAllLanes : ((1u << lanes_at_once) - 1) << from);
    if (!part) continue;
    counts.wavefronts_ideal += 1;
    uint64_t seen[32][kLanes];
    uint8_t count[32] = {};
    uint32_t worst = 1;
    for (uint32_t m = part; m; m &= m - 1) {
      uint64_t word = offset[__builtin_ctz(m)] / 4;
      for (uint32_t w = 0; w < words; ++w, ++word) {
        uint32_t bank = uint32_t(word & 31);
        uint64_t* s = seen[bank];
        uint32_t k = 0;
        while (k < count[bank] && s[k] != word) ++k;
        if (k == count[bank]) {
          s[k] = word;
          worst = std::max<uint32_t>(worst, ++count[bank]);
        }
      }
    }
    counts.wavefronts += worst;
    counts.worst_degree = std::max(counts.worst_degree, worst);
  }
}

}  // namespace

const char* check_name(Check check) {
  static const char* const names[] = {"out of bounds",
                                      "misaligned access",
                                      "write to read-only memory",
                                      "uninitialised read",
                                      "shared memory race",
                                      "global memory race",
                                      "race between blocks",
                                      "non-coherent read",
                                      "divergent barrier",
                                      "wrong mask",
                                      "inactive lane",
                                      "asynchronous copy",
                                      "deadlock",
                                      "runaway kernel",
                                      "trap"};
  static_assert(sizeof names / sizeof *names == kCheckCount, "a name for each check");
  return names[int(check)];
}

std::string thread_name(const Launch& launch, uint32_t thread) { return dims(thread_index(launch, thread)); }

void fault(const Warp& warp, const Instruction& in, int lane, Check check, const std::string& what) {
  throw KernelFault(describe(warp, in, lane, check, what));
}

void find(const Warp& warp, const Instruction& in, int lane, Check check, const std::string& what) {
  Launch& launch = *warp.launch;
  if (!launch.options->report) fault(warp, in, lane, check, what);
  const Place& place = launch.code->places[size_t(in.place)];
  int line = place.line ? place.line : -in.ptx_line;
  if (launch.reported.emplace(check, place.file, line).second) launch.options->report(describe(warp, in, lane, check, what));
}

void access_global(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* address, uint32_t bytes, AccessKind kind,
                   uint8_t** host) {
  Launch& launch = *warp.launch;
  bool write = is_write(kind);
  check_alignment(warp, in, mask, address, bytes, write, "global");
  size_t site = size_t(warp.current);
  Region* region = launch.region_of_site[site];
  Page* page = nullptr;
  uint64_t page_number = ~0ull;
  const uint32_t granule = launch.code->global_granule;
  uint64_t previous = ~0ull;
  int repeats = 0;
  in_order(launch, mask, [&](int lane) {
    uint64_t a = address[lane];
    if (!write && a == previous && ++repeats >= 2) {  // a third reader of the same bytes adds nothing: see AccessCell
      host[lane] = reinterpret_cast<uint8_t*>(a);
      return;
    }
    if (a != previous) repeats = 0;
    previous = a;
    if (!region || a - region->allocation.address >= region->allocation.bytes) {
      region = find_region(warp, a);
      page_number = ~0ull;
      if (!region)
        fault(warp, in, lane, Check::kOutOfBounds,
              access_text(bytes, write, "global") + " at " + hex(a) + ", which lies in no allocation");
      launch.region_of_site[site] = region;
    }
    const Allocation& allocation = region->allocation;
    uint64_t offset = a - allocation.address;
    if (bytes > allocation.bytes - offset)
      fault(warp, in, lane, Check::kOutOfBounds,
            access_text(bytes, write, "global") + " at byte " + std::to_string(offset) + " of an allocation of " +
                std::to_string(allocation.bytes));
    if (write && allocation.read_only)
      fault(warp, in, lane, Check::kReadOnly, access_text(bytes, write, "read-only") + " at byte " + std::to_string(offset));
    if (allocation.initialised) {
      uint8_t* known = allocation.initialised + offset;
      if (kind != AccessKind::kWrite) {
        if (!all_known(known, bytes))
          find(warp, in, lane, Check::kUninitialised,
               access_text(bytes, write, "global") + " at byte " + std::to_string(offset) + " of an allocation of " +
                   std::to_string(allocation.bytes) + ", which nobody wrote");
      }
      if (write) std::memset(known, 1, bytes);
    }
    if (a / kPageBytes != page_number) {
      page_number = a / kPageBytes;
      page = &page_of(launch, *region, a);
    }
    uint32_t in_page = uint32_t(a % kPageBytes), first = in_page / granule, last = (in_page + bytes - 1) / granule;
    for (uint32_t g = first; g <= last; ++g) {
      if (kind != AccessKind::kWrite) page->read[g / 64] |= 1ull << (g % 64);
      if (write) page->written[g / 64] |= 1ull << (g % 64);
    }
    if (launch.cells_wanted) {
      uint32_t thread = uint32_t(warp.thread(lane));
      for (uint32_t g = first; g <= last; ++g) {
        AccessCell& cell = page->cells[g];
        if (kind == AccessKind::kNonCoherentRead && cell.writer.block)
          find(warp, in, lane, Check::kNonCoherentRead,
               "read through a const __restrict__ pointer of global memory that " + other_access(warp, cell.writer) +
                   " wrote in this launch");
        AccessRecord who;
        if (conflict(warp, thread, cell, kind, false, &who)) {
          bool blocks = who.block != warp.block->serial;
          find(warp, in, lane, blocks ? Check::kBlockRace : Check::kGlobalRace,
               access_text(bytes, write, "global") + " at byte " + std::to_string(offset) + " of an allocation of " +
                   std::to_string(allocation.bytes) + " conflicts with " + other_access(warp, who));
        }
      }
    }
    host[lane] = reinterpret_cast<uint8_t*>(a);
  });
  count_sectors(launch.counts[site], mask, address, bytes);
}

void access_shared(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, AccessKind kind,
                   uint8_t** host) {
  Launch& launch = *warp.launch;
  Block& block = *warp.block;
  bool write = is_write(kind);
  check_alignment(warp, in, mask, offset, bytes, write, "shared");
  const uint32_t granule = launch.code->shared_granule;
  uint64_t size = block.shared.size(), previous = ~0ull;
  int repeats = 0;
  in_order(launch, mask, [&](int lane) {
    uint64_t a = offset[lane];
    if (!write && a == previous && ++repeats >= 2) {
      host[lane] = &block.shared[size_t(a)];
      return;
    }
    if (a != previous) repeats = 0;
    previous = a;
    if (a >= size || bytes > size - a)
      fault(warp, in, lane, Check::kOutOfBounds,
            access_text(bytes, write, "shared") + " at byte " + std::to_string(a) + " of " + std::to_string(size));
    if (!block.shared_pending.empty()) {
      uint8_t pending = 0;
      for (uint32_t i = 0; i < bytes; ++i) pending |= block.shared_pending[size_t(a + i)];
      if (pending)
        find(warp, in, lane, Check::kAsyncCopy,
             access_text(bytes, write, "shared") + " at byte " + std::to_string(a) +
                 " while a cp.async to it is in flight: a wait is missing");
    }
    uint8_t* known = &block.shared_initialised[size_t(a)];
    if (kind != AccessKind::kWrite) {
      if (!all_known(known, bytes))
        find(warp, in, lane, Check::kUninitialised,
             access_text(bytes, write, "shared") + " at byte " + std::to_string(a) + ", which nobody wrote");
    }
    if (write) std::memset(known, 1, bytes);
    if (launch.cells_wanted) {
      uint32_t thread = uint32_t(warp.thread(lane));
      for (uint64_t g = a / granule, end = (a + bytes - 1) / granule; g <= end; ++g) {
        AccessRecord who;
        if (conflict(warp, thread, block.shared_cells[size_t(g)], kind, true, &who))
          find(warp, in, lane, Check::kSharedRace,
               access_text(bytes, write, "shared") + " at byte " + std::to_string(a) + " conflicts with " +
                   other_access(warp, who));
      }
    }
    host[lane] = &block.shared[size_t(a)];
  });
  count_banks(launch.counts[size_t(warp.current)], mask, offset, bytes);
}

/// What was recorded so far gets an earlier tick than what follows.
static void next_tick(Block& block) {
  if (!block.recorded) return;
  block.recorded = false;
  if (++block.tick >= AccessRecord::kTickLimit)
    throw LoadError("a block synchronises more than 2 million times: too long to check for races");
}

void order_block(Launch&, Block& block) {
  next_tick(block);
  block.full_tick = block.tick;
}

void order_warps(Launch&, Block& block, uint32_t warps) {
  next_tick(block);
  if (block.warp_pair_ticks.empty()) block.warp_pair_ticks.assign(32 * 32, 0);
  for (uint32_t a = warps; a; a &= a - 1)
    for (uint32_t b = warps; b; b &= b - 1) block.warp_pair_ticks[size_t(__builtin_ctz(a) * 32 + __builtin_ctz(b))] = block.tick;
  for (Warp& warp : block.warps)
    if (warps >> warp.index & 1) warp.full_tick = block.tick;
}

void order_lanes(Warp& warp, uint32_t lanes) {
  next_tick(*warp.block);
  uint32_t tick = warp.block->tick;
  if ((warp.live() & ~lanes) == 0) {
    warp.full_tick = tick;
    return;
  }
  if (warp.pair_ticks.empty()) warp.pair_ticks.assign(kLanes * kLanes, 0);
  for (uint32_t a = lanes; a; a &= a - 1)
    for (uint32_t b = lanes; b; b &= b - 1) warp.pair_ticks[size_t(__builtin_ctz(a) * kLanes + __builtin_ctz(b))] = tick;
}

void release_acquire(Warp& warp, int lane, uint64_t address) {
  Block& block = *warp.block;
  Launch& launch = *warp.launch;
  uint32_t thread = uint32_t(warp.thread(lane));
  auto released =
      std::find_if(launch.released.begin(), launch.released.end(), [&](const Released& r) { return r.address == address; });
  if (released != launch.released.end())
    for (const Acquired& a : released->by)
      if (a.block != block.serial) block.acquired.push_back(a);
  if (!block.fenced[thread]) return;
  if (released == launch.released.end()) {
    launch.released.push_back({address, {}});
    released = launch.released.end() - 1;
  }
  released->by.push_back({block.serial, block.full_tick, thread});
}

}  // namespace bireal::ptx
