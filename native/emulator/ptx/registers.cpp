// Gives registers whose values are never needed at the same time the same place.
//
// nvcc writes PTX in which nearly every instruction has a destination of its own: a warp of binary_conv_bwd_input would have 185
// KB of registers, a block eight times that, and each instruction would wait for the second cache. Lanes may stand at different
// instructions, but each goes its own way through the code and has places of its own, so what holds for the code holds for each.
#include <algorithm>
#include <queue>

#include "emulator/ptx/machine.h"

namespace bireal::ptx {

namespace {

constexpr int32_t kUnit = kLanes * 4;  // bytes of the narrowest register

/// The instructions from the first to the last at which a register holds something.
struct Life {
  int32_t at = 0, bytes = 0, first = INT32_MAX, last = -1;
  void include(int32_t pc) {
    first = std::min(first, pc);
    last = std::max(last, pc);
  }
};

struct Bits {
  std::vector<uint64_t> words;
  bool get(size_t i) const { return words[i / 64] >> (i % 64) & 1; }
  void set(size_t i) { words[i / 64] |= 1ull << (i % 64); }
};

struct Segment {  // a run of instructions that is entered at its first and left at its last
  int32_t first = 0, last = 0;
  std::vector<size_t> next;
  Bits read, written, live;  ///< read before it is written; written for sure; live at its begin
};

std::vector<Segment> segments_of(const KernelCode& code) {
  const int32_t count = int32_t(code.code.size());
  auto targets = [&](const Instruction& in) {
    if (in.run == control_flow::branch) return std::vector<int32_t>{in.target};
    if (in.run == control_flow::indexed_branch) return code.tables[size_t(in.target)];
    return std::vector<int32_t>();
  };
  std::vector<uint8_t> begins(size_t(count) + 1);
  begins[0] = begins[size_t(count)] = 1;
  for (int32_t pc = 0; pc < count; ++pc)
    for (int32_t target : targets(code.code[size_t(pc)])) begins[size_t(target)] = begins[size_t(pc) + 1] = 1;
  std::vector<size_t> index(size_t(count) + 1);
  std::vector<Segment> segments;
  for (int32_t pc = 0; pc < count; ++pc) {
    if (begins[size_t(pc)]) segments.push_back({pc, pc, {}, {}, {}, {}});
    segments.back().last = pc;
    index[size_t(pc)] = segments.size() - 1;
  }
  for (size_t s = 0; s < segments.size(); ++s) {  // whether the last one may be passed is not looked at: too much is live at most
    if (s + 1 < segments.size()) segments[s].next.push_back(s + 1);
    for (int32_t target : targets(code.code[size_t(segments[s].last)])) segments[s].next.push_back(index[size_t(target)]);
  }
  return segments;
}

}  // namespace

void place_registers(KernelCode& code, const std::vector<Operand>& wide) {
  const size_t units = size_t(code.register_bytes / kUnit), words = units / 64 + 1;
  std::vector<Life> lives(units);
  for (size_t i = 0; i < units; ++i) lives[i] = {int32_t(i) * kUnit, kUnit, INT32_MAX, -1};
  for (Operand o : wide) lives[size_t(o.at / kUnit)].bytes = 2 * kUnit;
  for (const auto& special : code.specials) lives[size_t(special.second / kUnit)].bytes = 0;  // they stay
  auto unit = [](Operand o) { return size_t((o.at & ~Operand::kMarks) / kUnit); };

  std::vector<Segment> segments = segments_of(code);
  for (Segment& s : segments) {
    for (Bits* bits : {&s.read, &s.written, &s.live}) bits->words.resize(words);
    for (int32_t pc = s.first; pc <= s.last; ++pc) {
      const Instruction& in = code.code[size_t(pc)];
      for (Operand o : in.args)
        if (o.is_register() && (!o.is_written() || in.guard >= 0) && !s.written.get(unit(o))) s.read.set(unit(o));
      for (Operand o : in.args) {
        if (!o.is_register()) continue;
        lives[unit(o)].include(pc);
        if (o.is_written() && in.guard < 0) s.written.set(unit(o));
      }
    }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = segments.size(); i-- > 0;) {
      Segment& s = segments[i];
      for (size_t w = 0; w < words; ++w) {
        uint64_t after = 0;
        for (size_t next : s.next) after |= segments[next].live.words[w];
        const uint64_t live = s.read.words[w] | (after & ~s.written.words[w]);
        changed |= live != s.live.words[w];
        s.live.words[w] = live;
      }
    }
  }
  for (const Segment& s : segments)
    for (size_t w = 0; w < words; ++w) {
      for (uint64_t bits = s.live.words[w]; bits; bits &= bits - 1)
        lives[w * 64 + size_t(__builtin_ctzll(bits))].include(s.first);
      uint64_t after = 0;
      for (size_t next : s.next) after |= segments[next].live.words[w];
      for (; after; after &= after - 1) lives[w * 64 + size_t(__builtin_ctzll(after))].include(s.last);
    }

  // In the order of their begin, each in a place that is free; the one that was left last is the likeliest to be in the cache.
  // What an instruction writes never lies where another operand of it does.
  std::vector<Life> order;
  for (const Life& life : lives)
    if (life.last >= 0 && life.bytes) order.push_back(life);
  std::stable_sort(order.begin(), order.end(), [](const Life& a, const Life& b) { return a.first < b.first; });
  std::vector<int32_t> place(units, -1);
  int32_t bytes = 0;
  for (auto& special : code.specials) {
    place[size_t(special.second / kUnit)] = bytes;
    special.second = bytes;
    bytes += kUnit;
  }
  using Ending = std::pair<int32_t, int32_t>;  // last instruction, place
  for (int32_t width : {kUnit, 2 * kUnit}) {
    std::priority_queue<Ending, std::vector<Ending>, std::greater<Ending>> taken;
    std::vector<int32_t> left;
    for (const Life& life : order) {
      if (life.bytes != width) continue;
      for (; !taken.empty() && taken.top().first < life.first; taken.pop()) left.push_back(taken.top().second);
      if (left.empty()) {
        left.push_back(bytes);
        bytes += width;
      }
      place[size_t(life.at / kUnit)] = left.back();
      taken.push({life.last, left.back()});
      left.pop_back();
    }
  }
  for (Instruction& in : code.code)
    for (Operand& o : in.args)
      if (o.is_register()) o.at = place[unit(o)];
  code.register_bytes = bytes;
}

}  // namespace bireal::ptx
