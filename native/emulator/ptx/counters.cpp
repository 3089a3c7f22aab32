// From the counts of single instructions to those of a launch, its classes and its source lines.
#include <algorithm>
#include <cstdio>
#include <map>

#include "emulator/ptx/machine.h"

namespace bireal::ptx {

namespace {

void add(GlobalTraffic& sum, const GlobalTraffic& t) {
  sum.instructions += t.instructions;
  sum.bytes += t.bytes;
  sum.sectors_requested += t.sectors_requested;
  sum.sectors_ideal += t.sectors_ideal;
  sum.sectors_distinct += t.sectors_distinct;
}
void add(SharedTraffic& sum, const SharedTraffic& t) {
  sum.instructions += t.instructions;
  sum.wavefronts += t.wavefronts;
  sum.wavefronts_ideal += t.wavefronts_ideal;
  sum.worst_degree = std::max(sum.worst_degree, t.worst_degree);
}

/// Sectors with at least one granule set.
uint64_t sectors(const std::array<uint64_t, kPageBytes / 64>& bits, uint32_t granule) {
  uint64_t per_sector = kSectorBytes / granule, n = 0;  // at most 32
  for (uint64_t word : bits)
    for (; word; word >>= per_sector) n += (word & ((1ull << per_sector) - 1)) != 0;
  return n;
}

bool by_instructions(const LineCounters& a, const LineCounters& b) {
  return std::tie(b.thread_instructions, a.file, a.line) < std::tie(a.thread_instructions, b.file, b.line);
}

std::string count(uint64_t value) { return std::to_string(value); }

template <class... A>
std::string format(const char* pattern, A... values) {
  char text[512];
  snprintf(text, sizeof text, pattern, values...);
  return text;
}

/// Sectors of lanes in any order.
void sectors_of(Pattern& result, uint32_t mask, const uint64_t* address, uint32_t bytes) {
  uint64_t starts[kLanes];
  int n = 0;
  bool ascending = true;
  for (; mask; mask &= mask - 1) {
    uint64_t a = address[__builtin_ctz(mask)];
    if (n && a < starts[n - 1]) ascending = false;
    starts[n++] = a;
  }
  if (!ascending) std::sort(starts, starts + n);
  uint64_t distinct = 0, last = ~0ull, previous = ~0ull;
  result.cost = 0;
  for (int i = 0; i < n; ++i) {
    if (starts[i] == previous) continue;
    previous = starts[i];
    ++distinct;
    uint64_t sector = starts[i] / kSectorBytes;  // an aligned access of up to 16 bytes lies in one; of 32 bytes too
    if (sector != last) ++result.cost;
    last = sector;
  }
  result.ideal = (distinct * bytes + kSectorBytes - 1) / kSectorBytes;
}

void banks_of(Pattern& result, uint32_t mask, const uint64_t* offset, uint32_t bytes) {
  int lanes_at_once = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  uint32_t words = bytes <= 4 ? 1 : bytes / 4;
  result.cost = result.ideal = result.worst_degree = 0;
  for (int from = 0; from < kLanes; from += lanes_at_once) {
    uint32_t part = mask & (lanes_at_once == 32 ? kAllLanes : ((1u << lanes_at_once) - 1) << from);
    if (!part) continue;
    result.ideal += 1;
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
    result.cost += worst;
    result.worst_degree = std::max(result.worst_degree, worst);
  }
}

/// The pattern of these addresses: the instruction's last one where they lie as they lay then, else made by `count` in its place.
template <class Count>
const Pattern& pattern_of(Launch& launch, int32_t& index, uint32_t mask, const uint64_t* address, uint32_t bytes, uint64_t unit,
                          Count count) {
  uint64_t first = address[__builtin_ctz(mask)], phase = first % unit;
  if (index < 0) {
    index = int32_t(launch.patterns.size());
    launch.patterns.emplace_back();
  }
  Pattern& pattern = launch.patterns[size_t(index)];
  if (pattern.mask == mask && pattern.bytes == bytes && pattern.phase == phase) {
    uint64_t differ = 0;
    for_lanes(mask, [&](int lane) { differ |= (address[lane] - first) ^ pattern.relative[lane]; });
    if (differ == 0) return pattern;
  }
  pattern.mask = mask;
  pattern.bytes = bytes;
  pattern.phase = phase;
  for_lanes(mask, [&](int lane) { pattern.relative[lane] = address[lane] - first; });
  count(pattern, mask, address, bytes);
  return pattern;
}

}  // namespace

void count_sectors(Launch& launch, size_t site, uint32_t mask, const uint64_t* address, uint32_t bytes) {
  InstructionCounts& counts = launch.counts[site];
  const Pattern& pattern = pattern_of(launch, counts.sector_pattern, mask, address, bytes, kSectorBytes, sectors_of);
  counts.global_warps += 1;
  counts.bytes += uint64_t(__builtin_popcount(mask)) * bytes;
  counts.sectors += pattern.cost;
  counts.sectors_ideal += pattern.ideal;
}

void count_banks(Launch& launch, size_t site, uint32_t mask, const uint64_t* offset, uint32_t bytes) {
  InstructionCounts& counts = launch.counts[site];
  const Pattern& pattern = pattern_of(launch, counts.bank_pattern, mask, offset, bytes, 4, banks_of);
  counts.shared_warps += 1;
  counts.wavefronts += pattern.cost;
  counts.wavefronts_ideal += pattern.ideal;
  counts.worst_degree = std::max(counts.worst_degree, pattern.worst_degree);
}

const char* instruction_class_name(InstructionClass c) {
  static const char* const names[] = {"integer",     "float",        "special",     "convert",      "move",       "control",
                                      "global load", "global store", "shared load", "shared store", "local",      "parameter",
                                      "async copy",  "atomic",       "warp",        "barrier",      "tensor core"};
  static_assert(sizeof names / sizeof *names == kInstructionClassCount, "a name for each class");
  return names[int(c)];
}

Counters collect(const Launch& launch) {
  Counters result;
  const KernelCode& code = *launch.code;
  std::vector<LineCounters> lines(code.places.size());
  for (size_t pc = 0; pc < code.code.size(); ++pc) {
    const Instruction& in = code.code[pc];
    const InstructionCounts& c = launch.counts[pc];
    const Executions& executions = launch.executions[pc];
    result.warp_instructions += executions.warps;
    result.thread_instructions += executions.threads;
    result.by_class[size_t(in.category)] += executions.threads;
    LineCounters& line = lines[size_t(in.place)];
    line.thread_instructions += executions.threads;
    GlobalTraffic global;
    global.instructions = c.global_warps;
    global.bytes = c.bytes;
    global.sectors_requested = c.sectors;
    global.sectors_ideal = c.sectors_ideal;
    SharedTraffic shared;
    shared.instructions = c.shared_warps;
    shared.wavefronts = c.wavefronts;
    shared.wavefronts_ideal = c.wavefronts_ideal;
    shared.worst_degree = c.worst_degree;
    bool atomic = in.category == InstructionClass::kAtomic, copy = in.category == InstructionClass::kAsyncCopy;
    bool store = in.category == InstructionClass::kGlobalStore;
    if (!store) add(result.read, global), add(line.read, global);
    if (store || atomic) add(result.write, global), add(line.write, global);
    bool shared_write = store || atomic || copy || in.category == InstructionClass::kSharedStore;
    add(shared_write ? result.shared_write : result.shared_read, shared);
    add(line.shared, shared);
  }
  for (const auto& region : launch.regions)
    for (const auto& page : region->pages)
      if (page) {
        result.read.sectors_distinct += sectors(page->read, code.global_granule);
        result.write.sectors_distinct += sectors(page->written, code.global_granule);
      }
  result.barriers = launch.barrier_count;
  result.divergent_branches = launch.divergent_branches;
  if (launch.options->count_lines) {
    for (size_t i = 0; i < lines.size(); ++i) {
      lines[i].line = code.places[i].line;
      size_t file = size_t(code.places[i].file);
      if (lines[i].line && file < code.files.size()) lines[i].file = code.files[file];
      if (lines[i].thread_instructions) result.lines.push_back(lines[i]);
    }
    std::sort(result.lines.begin(), result.lines.end(), by_instructions);
  }
  return result;
}

void report_touched(const Launch& launch) {
  const uint64_t granule = launch.code->global_granule;
  for (const auto& region : launch.regions)
    for (bool write : {false, true}) {
      uint64_t begin = 0, end = 0;  // the run so far
      for (size_t p = 0; p < region->pages.size(); ++p) {
        if (!region->pages[p]) continue;
        const auto& bits = write ? region->pages[p]->written : region->pages[p]->read;
        const uint64_t page = (region->first_page + p) * kPageBytes;
        for (size_t w = 0; w < bits.size(); ++w)
          for (uint64_t word = bits[w]; word;) {
            const int from = __builtin_ctzll(word);
            const uint64_t zeros = ~(word >> from);
            const int count = zeros ? __builtin_ctzll(zeros) : 64;
            const uint64_t at = page + (w * 64 + uint64_t(from)) * granule;
            if (at != end || begin == end) {
              if (begin != end) launch.options->touched(begin, end - begin, write);
              begin = at;
            }
            end = at + uint64_t(count) * granule;
            word = from + count == 64 ? 0 : word >> (from + count) << (from + count);
          }
      }
      if (begin != end) launch.options->touched(begin, end - begin, write);
    }
}

void accumulate(Counters& sum, const Counters& other) {
  sum.warp_instructions += other.warp_instructions;
  sum.thread_instructions += other.thread_instructions;
  for (int i = 0; i < kInstructionClassCount; ++i) sum.by_class[size_t(i)] += other.by_class[size_t(i)];
  add(sum.read, other.read);
  add(sum.write, other.write);
  add(sum.shared_read, other.shared_read);
  add(sum.shared_write, other.shared_write);
  sum.barriers += other.barriers;
  sum.divergent_branches += other.divergent_branches;
  std::map<std::pair<std::string, int>, LineCounters> lines;
  for (const std::vector<LineCounters>* list : {const_cast<const std::vector<LineCounters>*>(&sum.lines), &other.lines})
    for (const LineCounters& l : *list) {
      LineCounters& at = lines[{l.file, l.line}];
      at.file = l.file;
      at.line = l.line;
      at.thread_instructions += l.thread_instructions;
      add(at.read, l.read);
      add(at.write, l.write);
      add(at.shared, l.shared);
    }
  sum.lines.clear();
  for (auto& l : lines) sum.lines.push_back(l.second);
  std::sort(sum.lines.begin(), sum.lines.end(), by_instructions);
}

std::string to_string(const Counters& c, int top_lines) {
  std::string text = "thread instructions " + count(c.thread_instructions) + ", warp instructions " + count(c.warp_instructions) +
                     ", barriers " + count(c.barriers) + ", divergent branches " + count(c.divergent_branches) + "\n";
  for (int i = 0; i < kInstructionClassCount; ++i)
    if (c.by_class[size_t(i)])
      text += format("  %-13s %12llu\n", instruction_class_name(InstructionClass(i)),
                     static_cast<unsigned long long>(c.by_class[size_t(i)]));
  auto global = [&](const char* name, const GlobalTraffic& t) {
    text += std::string(name) + ": " + count(t.bytes) + " bytes asked for, sectors " + count(t.sectors_requested) +
            " requested, " + count(t.sectors_ideal) + " ideal, " + count(t.sectors_distinct) + " distinct\n";
  };
  auto shared = [&](const char* name, const SharedTraffic& t) {
    if (t.instructions)
      text += std::string(name) + ": " + count(t.instructions) + " instructions, wavefronts " + count(t.wavefronts) + " of " +
              count(t.wavefronts_ideal) + " without conflicts, worst degree " + count(t.worst_degree) + "\n";
  };
  global("global reads", c.read);
  global("global writes", c.write);
  shared("shared reads", c.shared_read);
  shared("shared writes", c.shared_write);
  int shown = 0;
  for (const LineCounters& l : c.lines) {
    if (shown++ >= top_lines) break;
    text += "  " + (l.line ? l.file + ":" + std::to_string(l.line) : std::string("(no line)")) + ": " +
            count(l.thread_instructions) + " thread instructions";
    uint64_t requested = l.read.sectors_requested + l.write.sectors_requested,
             ideal = l.read.sectors_ideal + l.write.sectors_ideal;
    if (requested) text += ", sectors " + count(requested) + " (ideal " + count(ideal) + ")";
    if (l.shared.instructions)
      text += ", wavefronts " + count(l.shared.wavefronts) + " (ideal " + count(l.shared.wavefronts_ideal) + ", degree " +
              count(l.shared.worst_degree) + ")";
    text += "\n";
  }
  return text;
}

}  // namespace bireal::ptx
