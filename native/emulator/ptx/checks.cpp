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

/// Keeps two readers that differ as much as can be: another block, else another warp, else another thread.
inline void remember_reader(AccessCell& cell, AccessRecord now, uint64_t floor) {
  AccessRecord &first = cell.readers[0], &second = cell.readers[1];
  if (first.key() < floor || (first.block == now.block && first.who() == now.who())) {
    first = now;
    return;
  }
  auto distance = [&](const AccessRecord& r) {
    return r.block != first.block ? 3 : r.thread() / kLanes != first.thread() / kLanes ? 2 : r.thread() != first.thread() ? 1 : 0;
  };
  if (second.key() < floor || distance(now) >= distance(second)) second = now;
}

/// Checks one granule that somebody else touched and records the access. `who` gets the thread that it conflicts with. `floor`:
/// the key of the oldest access that counts: in shared memory those before the block's last barrier do not, in global memory all
/// do.
bool conflict(Warp& warp, AccessRecord now, AccessCell& cell, bool writes, uint64_t floor, AccessRecord* who) {
  auto unordered = [&](const AccessRecord& r) {
    return r.key() >= floor && !(now.atomic() && r.atomic()) && !ordered(warp, now.thread(), r);
  };
  bool bad = unordered(cell.writer);
  if (bad) *who = cell.writer;
  if (!writes) {
    remember_reader(cell, now, floor);
    return bad;
  }
  for (AccessRecord& r : cell.readers) {
    if (!bad && unordered(r)) {
      *who = r;
      bad = true;
    }
    r = {};
  }
  cell.writer = now;
  return bad;
}

/// Most granules hold nothing that the access could conflict with: it is recorded. False: conflict() has to look.
inline bool nothing_to_order(AccessCell& cell, AccessRecord now, bool writes, uint64_t floor) {
  if (cell.writer.key() >= floor) return false;
  if (!writes) {
    remember_reader(cell, now, floor);
    return true;
  }
  if (cell.readers[0].key() >= floor || cell.readers[1].key() >= floor) return false;
  cell.writer = now;
  return true;
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

/// Lanes of `mask` whose bytes in the map are not all 1: of kWords words of type W each.
template <class W, int kWords>
uint32_t unknown_of(const uint8_t* map, const uint64_t* at, uint32_t mask) {
  constexpr W kOnes = W(~W(0)) / 255;  // 0x0101...
  auto word = [&](int lane, int i) {
    W w;
    std::memcpy(&w, map + at[lane] + size_t(i) * sizeof(W), sizeof w);
    return w;
  };
  W all = kOnes;  // a byte of the map is 0 or 1
  for_lanes(mask, [&](int lane) {
    for (int i = 0; i < kWords; ++i) all = W(all & word(lane, i));
  });
  if (all == kOnes) return 0;
  uint32_t unknown = 0;
  for_lanes(mask, [&](int lane) {
    for (int i = 0; i < kWords; ++i) unknown |= uint32_t(word(lane, i) != kOnes) << lane;
  });
  return unknown;
}
uint32_t unknown_lanes(const uint8_t* map, const uint64_t* at, uint32_t mask, uint32_t bytes) {
  switch (bytes) {
    case 1: return unknown_of<uint8_t, 1>(map, at, mask);
    case 2: return unknown_of<uint16_t, 1>(map, at, mask);
    case 4: return unknown_of<uint32_t, 1>(map, at, mask);
    case 8: return unknown_of<uint64_t, 1>(map, at, mask);
    case 16: return unknown_of<uint64_t, 2>(map, at, mask);
    default: return unknown_of<uint64_t, 4>(map, at, mask);
  }
}

template <int kBytes>
void mark_of(uint8_t* map, const uint64_t* at, uint32_t mask) {
  for_lanes(mask, [&](int lane) { std::memset(map + at[lane], 1, kBytes); });
}
/// Sets those bytes of the map to 1.
void mark_lanes(uint8_t* map, const uint64_t* at, uint32_t mask, uint32_t bytes) {
  switch (bytes) {
    case 1: return mark_of<1>(map, at, mask);
    case 2: return mark_of<2>(map, at, mask);
    case 4: return mark_of<4>(map, at, mask);
    case 8: return mark_of<8>(map, at, mask);
    case 16: return mark_of<16>(map, at, mask);
    default: return mark_of<32>(map, at, mask);
  }
}

/// The largest address of the lanes.
uint64_t highest(const uint64_t* address, uint32_t mask) {
  uint64_t high = 0;
  for_lanes(mask, [&](int lane) { high = std::max(high, address[lane]); });
  return high;
}

bool is_write(AccessKind kind) { return kind == AccessKind::kWrite || kind == AccessKind::kAtomic; }

/// Lanes in the order in which they act.
template <class F>
inline __attribute__((always_inline)) void in_order(const Launch& launch, uint32_t mask, F&& f) {
  const bool reverse = launch.options->reverse;
  while (mask) {
    int lane = reverse ? 31 - __builtin_clz(mask) : __builtin_ctz(mask);
    mask &= ~(1u << lane);
    f(lane);
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
    if (launch.cells_wanted) page->cells.resize(kPageBytes / launch.code->global_granule);
  }
  return *page;
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

namespace {

/// Lanes that read the same bytes as two lanes before them: they add nothing that a race could be found by (see AccessCell).
uint32_t without_repeats(const uint64_t* address, uint32_t mask) {
  uint64_t previous = ~0ull;
  int repeats = 0;
  for_lanes(mask, [&](int lane) {
    repeats = address[lane] == previous ? repeats + 1 : 0;
    previous = address[lane];
    if (repeats >= 2) mask &= ~(1u << lane);
  });
  return mask;
}

/// The record of the warp's lane 0; the others' stamps are larger by their lane.
AccessRecord record_of(const Warp& warp, AccessKind kind) {
  bool atomic = kind == AccessKind::kAtomic || kind == AccessKind::kStrongRead;
  AccessRecord now;
  now.block = warp.block->serial;
  now.stamp = warp.block->tick << 11 | (atomic ? AccessRecord::kAtomic : 0u) | uint32_t(warp.thread(0));
  return now;
}

/// Happens-before of what lies in one region. `offset` counts from its first byte.
void check_global_races(Warp& warp, const Instruction& in, uint32_t mask, Region& region, const uint64_t* offset, uint32_t bytes,
                        AccessKind kind) {
  Launch& launch = *warp.launch;
  const int shift = __builtin_ctz(launch.code->global_granule);
  const uint64_t any_block = 1ull << 32;
  const bool write = is_write(kind);
  warp.block->recorded = true;
  const AccessRecord first = record_of(warp, kind);
  uint64_t page_number = ~0ull;
  Page* page = nullptr;
  in_order(launch, write ? mask : without_repeats(offset, mask), [&](int lane) {
    uint64_t a = region.allocation.address + offset[lane];
    if (a / kPageBytes != page_number) {
      page_number = a / kPageBytes;
      page = &page_of(launch, region, a);
    }
    AccessRecord now = first;
    now.stamp += uint32_t(lane);
    uint32_t in_page = uint32_t(a % kPageBytes);
    for (uint32_t g = in_page >> shift, last = (in_page + bytes - 1) >> shift; g <= last; ++g) {
      AccessCell& cell = page->cells[g];
      if (nothing_to_order(cell, now, write, any_block)) continue;
      if (kind == AccessKind::kNonCoherentRead && cell.writer.block)
        find(warp, in, lane, Check::kNonCoherentRead,
             "read through a const __restrict__ pointer of global memory that " + other_access(warp, cell.writer) +
                 " wrote in this launch");
      AccessRecord who;
      if (conflict(warp, now, cell, write, any_block, &who))
        find(warp, in, lane, who.block != warp.block->serial ? Check::kBlockRace : Check::kGlobalRace,
             access_text(bytes, write, "global") + " at byte " + std::to_string(offset[lane]) + " of an allocation of " +
                 std::to_string(region.allocation.bytes) + " conflicts with " + other_access(warp, who));
    }
  });
}

/// What the launch touched, by granule.
void mark_touched(Launch& launch, Region& region, uint32_t mask, const uint64_t* address, uint32_t bytes, AccessKind kind) {
  const int shift = __builtin_ctz(launch.code->global_granule);
  uint64_t page_number = ~0ull;
  Page* page = nullptr;
  for_lanes(mask, [&](int lane) {
    uint64_t a = address[lane];
    if (a / kPageBytes != page_number) {
      page_number = a / kPageBytes;
      page = &page_of(launch, region, a);
    }
    uint32_t in_page = uint32_t(a % kPageBytes), first = in_page >> shift, count = ((in_page + bytes - 1) >> shift) - first + 1;
    uint64_t ones = (1ull << count) - 1;  // an aligned access of up to 32 bytes: at most 32 granules, all in one word
    if (kind != AccessKind::kWrite) page->read[first / 64] |= ones << (first % 64);
    if (is_write(kind)) page->written[first / 64] |= ones << (first % 64);
  });
}

/// The same of a run of bytes.
void mark_run_touched(Launch& launch, Region& region, uint64_t address, uint64_t bytes, AccessKind kind) {
  const int shift = __builtin_ctz(launch.code->global_granule);
  while (bytes) {
    const uint64_t in_page = address % kPageBytes, here = std::min(bytes, kPageBytes - in_page);
    Page& page = page_of(launch, region, address);
    for (uint64_t g = in_page >> shift, end = ((in_page + here - 1) >> shift) + 1; g < end;) {
      const uint64_t from = g % 64, count = std::min(end - g, 64 - from);
      const uint64_t ones = (~0ull >> (64 - count)) << from;
      if (kind != AccessKind::kWrite) page.read[g / 64] |= ones;
      if (is_write(kind)) page.written[g / 64] |= ones;
      g += count;
    }
    address += here;
    bytes -= here;
  }
}

/// All lanes of `mask` are in `region`.
void access_region(Warp& warp, const Instruction& in, uint32_t mask, Region& region, const uint64_t* address, uint32_t bytes,
                   AccessKind kind) {
  Launch& launch = *warp.launch;
  const Allocation& allocation = region.allocation;
  const bool write = is_write(kind);
  uint64_t offset[kLanes];
  for_lanes(mask, [&](int lane) { offset[lane] = address[lane] - allocation.address; });
  auto place = [&](int lane) {
    return access_text(bytes, write, "global") + " at byte " + std::to_string(offset[lane]) + " of an allocation of " +
           std::to_string(allocation.bytes);
  };
  if (highest(offset, mask) + bytes > allocation.bytes)
    in_order(launch, mask, [&](int lane) {
      if (bytes > allocation.bytes - offset[lane]) fault(warp, in, lane, Check::kOutOfBounds, place(lane));
    });
  if (write && allocation.read_only) {
    int lane = __builtin_ctz(mask);
    fault(warp, in, lane, Check::kReadOnly, access_text(bytes, write, "read-only") + " at byte " + std::to_string(offset[lane]));
  }
  if (allocation.initialised) {
    if (kind != AccessKind::kWrite)
      if (uint32_t unknown = unknown_lanes(allocation.initialised, offset, mask, bytes))
        in_order(launch, unknown,
                 [&](int lane) { find(warp, in, lane, Check::kUninitialised, place(lane) + ", which nobody wrote"); });
    if (write) mark_lanes(allocation.initialised, offset, mask, bytes);
  }
  mark_touched(launch, region, mask, address, bytes, kind);
  if (launch.cells_wanted) check_global_races(warp, in, mask, region, offset, bytes, kind);
}

void check_shared_races(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes,
                        AccessKind kind) {
  Launch& launch = *warp.launch;
  Block& block = *warp.block;
  const int shift = __builtin_ctz(launch.code->shared_granule);
  const uint64_t floor = uint64_t(block.serial) << 32 | block.full_tick << 11;
  const bool write = is_write(kind);
  const AccessRecord first = record_of(warp, kind);
  AccessCell* cells = block.shared_cells.data();
  block.recorded = true;
  in_order(launch, write ? mask : without_repeats(offset, mask), [&](int lane) {
    AccessRecord now = first;
    now.stamp += uint32_t(lane);
    AccessCell *cell = cells + (offset[lane] >> shift), *end = cells + ((offset[lane] + bytes - 1) >> shift) + 1;
    for (; cell != end; ++cell) {
      if (nothing_to_order(*cell, now, write, floor)) continue;
      AccessRecord who;
      if (conflict(warp, now, *cell, write, floor, &who))
        find(warp, in, lane, Check::kSharedRace,
             access_text(bytes, write, "shared") + " at byte " + std::to_string(offset[lane]) + " conflicts with " +
                 other_access(warp, who));
    }
  });
}

/// Are all accesses within `size` bytes from `begin`, and aligned? If so, tells their layout. Looks at all lanes.
inline bool well_placed(const uint64_t* offset, uint32_t mask, uint64_t begin, uint64_t size, uint32_t bytes, Layout& layout) {
  if (size < bytes) return false;
  const int first = __builtin_ctz(mask);
  const uint64_t from = offset[first], last = size - bytes;
  uint64_t ones = begin, outside = 0, apart = 0, off_row = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t o = offset[lane];
    ones |= o;
    outside |= o | (last - o);  // the top bit: below the first byte, or above the last offset
    apart |= o ^ from;
    off_row |= o ^ (from + uint64_t(lane) * bytes);
  }
  if (ones & (bytes - 1) || outside >> 63) return false;
  const uint32_t run = mask >> first, count = uint32_t(__builtin_popcount(mask));
  if (apart == 0) {
    layout = Layout::kSame;
  } else if (mask == kAllLanes) {
    layout = off_row ? Layout::kScattered : Layout::kRow;
  } else if (run & (run + 1)) {
    layout = Layout::kScattered;
  } else {
    off_row = 0;
    for (uint32_t i = 0; i < count; ++i) off_row |= offset[uint32_t(first) + i] ^ (from + uint64_t(i) * bytes);
    layout = off_row ? Layout::kScattered : Layout::kRow;
  }
  return true;
}

/// Are these bytes of the map all 1?
inline bool all_known(const uint8_t* map, size_t bytes) {
  constexpr uint64_t kOnes = 0x0101010101010101ull;
  uint64_t all = kOnes;
  size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, map + i, 8);
    all &= word;
  }
  uint8_t rest = 1;
  for (; i < bytes; ++i) rest &= map[i];
  return all == kOnes && rest == 1;
}

/// Sees that all was written that is read, else returns false; what is written, is so from now on.
inline bool pass_initialised(uint8_t* map, const uint64_t* offset, Layout layout, uint64_t from, size_t run, uint32_t bytes,
                             AccessKind kind) {
  const bool scattered = layout == Layout::kScattered;
  if (kind != AccessKind::kWrite)
    if (scattered ? unknown_lanes(map, offset, kAllLanes, bytes) != 0 : !all_known(map + from, run)) return false;
  if (is_write(kind)) {
    if (scattered)
      mark_lanes(map, offset, kAllLanes, bytes);
    else
      std::memset(map + from, 1, run);
  }
  return true;
}

}  // namespace

bool pass_global(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* address, uint32_t bytes, AccessKind kind,
                 Layout& layout) {
  Launch& launch = *warp.launch;
  const size_t site = size_t(warp.current);
  Region* region = launch.region_of_site[site];
  if (!region) return false;
  const Allocation& allocation = region->allocation;
  uint64_t offset[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) offset[lane] = address[lane] - allocation.address;
  if (!well_placed(offset, mask, allocation.address, allocation.bytes, bytes, layout)) return false;
  if (is_write(kind) && allocation.read_only) return false;
  const uint64_t from = offset[__builtin_ctz(mask)];
  const size_t run = layout == Layout::kSame ? bytes : size_t(__builtin_popcount(mask)) * bytes;
  if (allocation.initialised && !pass_initialised(allocation.initialised, offset, layout, from, run, bytes, kind)) return false;
  if (layout == Layout::kScattered)
    mark_touched(launch, *region, mask, address, bytes, kind);
  else
    mark_run_touched(launch, *region, allocation.address + from, run, kind);
  if (launch.cells_wanted) check_global_races(warp, in, mask, *region, offset, bytes, kind);
  if (launch.options->access_counters) count_sectors(launch, site, mask, address, bytes);
  return true;
}

bool pass_shared(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, AccessKind kind,
                 Layout& layout) {
  Launch& launch = *warp.launch;
  Block& block = *warp.block;
  if (block.copies_in_flight || !well_placed(offset, mask, 0, block.shared.size(), bytes, layout)) return false;
  const uint64_t from = offset[__builtin_ctz(mask)];
  const size_t run = layout == Layout::kSame ? bytes : size_t(__builtin_popcount(mask)) * bytes;
  if (!pass_initialised(block.shared_initialised.data(), offset, layout, from, run, bytes, kind)) return false;
  if (launch.cells_wanted) check_shared_races(warp, in, mask, offset, bytes, kind);
  if (launch.options->access_counters) count_banks(launch, size_t(warp.current), mask, offset, bytes);
  return true;
}

void access_global(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* address, uint32_t bytes, AccessKind kind,
                   uint8_t** host) {
  Launch& launch = *warp.launch;
  check_alignment(warp, in, mask, address, bytes, is_write(kind), "global");
  size_t site = size_t(warp.current);
  Region*& region = launch.region_of_site[site];
  for (uint32_t rest = mask; rest;) {
    int lane = launch.options->reverse ? 31 - __builtin_clz(rest) : __builtin_ctz(rest);
    uint64_t a = address[lane];
    if (!region || a - region->allocation.address >= region->allocation.bytes) {
      Region* found = find_region(warp, a);
      if (!found)
        fault(warp, in, lane, Check::kOutOfBounds,
              access_text(bytes, is_write(kind), "global") + " at " + hex(a) + ", which lies in no allocation");
      region = found;
    }
    uint64_t begin = region->allocation.address, size = region->allocation.bytes;
    uint32_t inside = 0;
    for_lanes(rest, [&](int l) { inside |= uint32_t(address[l] - begin < size) << l; });
    access_region(warp, in, inside, *region, address, bytes, kind);
    rest &= ~inside;
  }
  for_lanes(mask, [&](int lane) { host[lane] = reinterpret_cast<uint8_t*>(address[lane]); });
  if (launch.options->access_counters) count_sectors(launch, site, mask, address, bytes);
}

void check_shared(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, AccessKind kind,
                  uint8_t** host) {
  Launch& launch = *warp.launch;
  Block& block = *warp.block;
  const bool write = is_write(kind);
  check_alignment(warp, in, mask, offset, bytes, write, "shared");
  const uint64_t size = block.shared.size();
  auto place = [&](int lane) { return access_text(bytes, write, "shared") + " at byte " + std::to_string(offset[lane]); };
  if (uint64_t high = highest(offset, mask); high >= size || bytes > size - high)
    in_order(launch, mask, [&](int lane) {
      if (offset[lane] >= size || bytes > size - offset[lane])
        fault(warp, in, lane, Check::kOutOfBounds, place(lane) + " of " + std::to_string(size));
    });
  if (block.copies_in_flight)
    in_order(launch, mask, [&](int lane) {
      uint8_t pending = 0;
      for (uint32_t i = 0; i < bytes; ++i) pending |= block.shared_pending[size_t(offset[lane] + i)];
      if (pending)
        find(warp, in, lane, Check::kAsyncCopy, place(lane) + " while a cp.async to it is in flight: a wait is missing");
    });
  uint8_t* known = block.shared_initialised.data();
  if (kind != AccessKind::kWrite)
    if (uint32_t unknown = unknown_lanes(known, offset, mask, bytes))
      in_order(launch, unknown,
               [&](int lane) { find(warp, in, lane, Check::kUninitialised, place(lane) + ", which nobody wrote"); });
  if (write) mark_lanes(known, offset, mask, bytes);
  if (launch.cells_wanted) check_shared_races(warp, in, mask, offset, bytes, kind);
  uint8_t* shared = block.shared.data();
  for_lanes(mask, [&](int lane) { host[lane] = shared + offset[lane]; });
}

void access_shared(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, AccessKind kind,
                   uint8_t** host) {
  check_shared(warp, in, mask, offset, bytes, kind, host);
  if (warp.launch->options->access_counters) count_banks(*warp.launch, size_t(warp.current), mask, offset, bytes);
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
