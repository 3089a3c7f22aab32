// What lanes of a warp do together (shfl, vote, match, redux, bar.warp), barriers of the block, fences.
#include <algorithm>

#include "emulator/ptx/decode.h"
#include "emulator/ptx/machine.h"

namespace bireal::ptx {

namespace {

std::string hex(uint32_t value) {
  char text[16];
  snprintf(text, sizeof text, "0x%08x", value);
  return text;
}

// ---- shfl: args d, predicate, a, b, c, mask

enum ShuffleMode : uint8_t { kUp, kDown, kButterfly, kIndex };

template <ShuffleMode M>
void shuffle_as(Warp& warp, const Instruction& in, uint32_t lanes) {
  const uint32_t *a = warp.in<uint32_t>(in.args[2]), *b = warp.in<uint32_t>(in.args[3]), *c = warp.in<uint32_t>(in.args[4]);
  int from[kLanes], inside[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int by = int(b[lane] & 31), segment = int(c[lane] >> 8 & 31), clamp = int(c[lane] & 31);
    const int highest = (lane & segment) | (clamp & ~segment), lowest = lane & segment;
    const int wanted = M == kUp ? lane - by : M == kDown ? lane + by : M == kButterfly ? lane ^ by : lowest | (by & ~segment);
    inside[lane] = M == kUp ? wanted >= highest : wanted <= highest;
    from[lane] = inside[lane] ? wanted : lane;
  }
  if (lanes != kAllLanes)
    for_set_lanes(lanes, [&](int lane) {
      if (!(lanes >> from[lane] & 1))
        find(warp, in, lane, Check::kInactiveLane,
             "shfl.sync reads lane " + std::to_string(from[lane]) + ", which does not take part (lanes " + hex(lanes) + ")");
    });
  uint32_t result[kLanes], valid = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    result[lane] = a[from[lane]];
    valid |= uint32_t(inside[lane]) << lane;
  }
  if (in.args[0].present()) {
    uint32_t* d = warp.out<uint32_t>(in.args[0]);
    for_lanes(lanes, [&](int lane) { d[lane] = result[lane]; });
  }
  warp.set_predicate(in.args[1], lanes, valid);
}
void shuffle_now(Warp& warp, const Instruction& in, uint32_t lanes) {
  switch (ShuffleMode(in.mode)) {
    case kUp: return shuffle_as<kUp>(warp, in, lanes);
    case kDown: return shuffle_as<kDown>(warp, in, lanes);
    case kButterfly: return shuffle_as<kButterfly>(warp, in, lanes);
    case kIndex: return shuffle_as<kIndex>(warp, in, lanes);
  }
}
void shuffle(Warp& warp, const Instruction& in, uint32_t mask) { arrive_sync(warp, in, mask, in.args[5], shuffle_now); }

// ---- vote: args d, p, mask

enum VoteMode : uint8_t { kBallot, kAll, kAny, kUniform };

void vote_now(Warp& warp, const Instruction& in, uint32_t lanes) {
  uint32_t votes = warp.predicate(in.args[1], in.flags & 1) & lanes;
  if (VoteMode(in.mode) == kBallot) {
    uint32_t* d = warp.out<uint32_t>(in.args[0]);
    for_lanes(lanes, [&](int lane) { d[lane] = votes; });
    return;
  }
  bool r = in.mode == kAll ? votes == lanes : in.mode == kAny ? votes != 0 : votes == 0 || votes == lanes;
  warp.set_predicate(in.args[0], lanes, r ? kAllLanes : 0);
}
void vote(Warp& warp, const Instruction& in, uint32_t mask) { arrive_sync(warp, in, mask, in.args[2], vote_now); }

// ---- match: args d, predicate, a, mask

template <class T>
void match_now(Warp& warp, const Instruction& in, uint32_t lanes) {
  const T* a = warp.in<T>(in.args[2]);
  uint32_t* d = warp.out<uint32_t>(in.args[0]);
  uint32_t result[kLanes], same_everywhere = 0;
  for_lanes(lanes, [&](int lane) {
    uint32_t same = 0;
    for_lanes(lanes, [&](int other) { same |= uint32_t(a[other] == a[lane]) << other; });
    if (same == lanes) same_everywhere |= 1u << lane;
    result[lane] = in.mode ? (same == lanes ? lanes : 0) : same;
  });
  for_lanes(lanes, [&](int lane) { d[lane] = result[lane]; });
  warp.set_predicate(in.args[1], lanes, same_everywhere);
}
template <class T>
void match(Warp& warp, const Instruction& in, uint32_t mask) {
  arrive_sync(warp, in, mask, in.args[3], match_now<T>);
}

// ---- redux: args d, a, mask

enum class Reduce : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };

template <class T>
void reduce_now(Warp& warp, const Instruction& in, uint32_t lanes) {
  const uint32_t* a = warp.in<uint32_t>(in.args[1]);
  uint32_t* d = warp.out<uint32_t>(in.args[0]);
  T r = T(a[__builtin_ctz(lanes)]);
  for_lanes(lanes & (lanes - 1), [&](int lane) {
    T v = T(a[lane]);
    switch (Reduce(in.mode)) {
      case Reduce::kAdd: r = T(uint32_t(r) + uint32_t(v)); break;
      case Reduce::kMin: r = std::min(r, v); break;
      case Reduce::kMax: r = std::max(r, v); break;
      case Reduce::kAnd: r = T(r & v); break;
      case Reduce::kOr: r = T(r | v); break;
      case Reduce::kXor: r = T(r ^ v); break;
    }
  });
  for_lanes(lanes, [&](int lane) { d[lane] = uint32_t(r); });
}
template <class T>
void reduce(Warp& warp, const Instruction& in, uint32_t mask) {
  arrive_sync(warp, in, mask, in.args[2], reduce_now<T>);
}

void sync_now(Warp&, const Instruction&, uint32_t) {}
void sync_warp(Warp& warp, const Instruction& in, uint32_t mask) { arrive_sync(warp, in, mask, in.args[0], sync_now); }

/// The lanes that happen to be here. A kernel whose result depends on it has no defined result; nvcc uses it for aggregated
/// atomics.
void active_mask(Warp& warp, const Instruction& in, uint32_t mask) {
  uint32_t* d = warp.out<uint32_t>(in.args[0]);
  for_lanes(mask, [&](int lane) { d[lane] = mask; });
}

void elect_now(Warp& warp, const Instruction& in, uint32_t lanes) {
  uint32_t leader = uint32_t(__builtin_ctz(lanes));
  if (in.args[0].present()) {
    uint32_t* d = warp.out<uint32_t>(in.args[0]);
    for_lanes(lanes, [&](int lane) { d[lane] = leader; });
  }
  warp.set_predicate(in.args[1], lanes, 1u << leader);
}
void elect(Warp& warp, const Instruction& in, uint32_t mask) { arrive_sync(warp, in, mask, in.args[2], elect_now); }

// ---- barriers of the block: args id, threads, predicate, destination

enum BarrierMode : uint8_t { kSync, kArrive, kRedPopc, kRedAnd, kRedOr };

void block_barrier(Warp& warp, const Instruction& in, uint32_t mask) {
  Block& block = *warp.block;
  uint32_t lanes = mask | (warp.barrier.mask && warp.barrier.pc == warp.current ? warp.barrier.mask : 0);
  if (warp.barrier.mask && warp.barrier.pc != warp.current)
    fault(warp, in, __builtin_ctz(mask), Check::kDivergentBarrier,
          "divergent barrier: lanes of one warp wait in two different barriers");
  warp.mask &= ~mask;
  if (warp.mask == 0) warp.limit = 0;
  warp.barrier = {warp.current, lanes};
  if (lanes != warp.present) return;  // others of the warp are still on their way; report_stuck() tells if they never come
  int first = __builtin_ctz(lanes);
  uint32_t id = warp.in<uint32_t>(in.args[0])[first];
  uint32_t threads = in.args[1].present() ? warp.in<uint32_t>(in.args[1])[first] : 0;
  if (id >= 16) fault(warp, in, first, Check::kDeadlock, "barrier " + std::to_string(id) + "; there are 16");
  if (threads % kLanes)
    fault(warp, in, first, Check::kDeadlock,
          "a barrier of " + std::to_string(threads) + " threads, which is not a multiple of 32");
  uint32_t expected = in.args[1].present() ? threads / kLanes : uint32_t(block.warps.size());
  BarrierState& barrier = block.barriers[id];
  if (barrier.warps == 0) {
    barrier.expected = expected;
    barrier.count_true = 0;
  }
  if (barrier.expected != expected)
    fault(warp, in, first, Check::kDivergentBarrier,
          "barrier " + std::to_string(id) + " of " + std::to_string(expected) + " warps, but others wait there for " +
              std::to_string(barrier.expected));
  if (barrier.warps >> warp.index & 1)
    fault(warp, in, first, Check::kDivergentBarrier, "the warp arrives a second time at barrier " + std::to_string(id));
  if (barrier.warps && !in.args[1].present() && barrier.pc != warp.current)
    fault(warp, in, first, Check::kDivergentBarrier,
          "divergent barrier: other warps of the block wait in another one, at PTX line " +
              std::to_string(warp.launch->code->code[size_t(barrier.pc)].ptx_line));
  barrier.pc = warp.current;
  barrier.warps |= 1u << warp.index;
  ++warp.launch->barrier_count;
  if (in.mode == kArrive) {
    warp.ready.push_back({warp.current + 1, lanes});
    warp.barrier = {};
    return;
  }
  if (in.mode >= kRedPopc) barrier.count_true += uint32_t(__builtin_popcount(warp.predicate(in.args[2], in.flags & 1) & lanes));
  barrier.waiting |= 1u << warp.index;
  warp.barrier_arrived = true;
  warp.barrier_id = int(id);
  // the result of a reduction is written by the last to arrive, for all
  if (in.mode >= kRedPopc && uint32_t(__builtin_popcount(barrier.warps)) == barrier.expected) {
    for (Warp& other : block.warps) {
      if (!(barrier.waiting >> other.index & 1)) continue;
      uint32_t all = other.present;
      if (in.mode == kRedPopc) {
        uint32_t* d = other.out<uint32_t>(in.args[3]);
        for_lanes(all, [&](int lane) { d[lane] = barrier.count_true; });
      } else {
        uint32_t total = 0;
        for (const Warp& w : block.warps)
          if (barrier.waiting >> w.index & 1) total += uint32_t(__builtin_popcount(w.present));
        other.set_predicate(in.args[3], all,
                            (in.mode == kRedAnd ? barrier.count_true == total : barrier.count_true != 0) ? kAllLanes : 0);
      }
    }
  }
  warp.barrier.pc = warp.current + 1;  // where to go on
}

void fence(Warp& warp, const Instruction&, uint32_t mask) {
  for_lanes(mask, [&](int lane) { warp.block->fenced[size_t(warp.thread(lane))] = 1; });
}

bool decode_shuffle(Decoder& d) {
  if (!d.take("sync")) d.fail("shfl without .sync is not supported");
  d.take("b32");
  d.in.mode = d.take("up") ? kUp : d.take("down") ? kDown : d.take("bfly") ? kButterfly : kIndex;
  d.take("idx");
  d.expect_operands(5, 6);
  size_t next = 0;
  d.in.args[0] = d.dest(d.operands[next++], 4);
  if (d.operands.size() == 6) d.in.args[1] = d.predicate_dest(d.operands[next++]);
  for (int i = 2; i < 6; ++i) d.in.args[i] = d.source(d.operands[next++], 4);
  d.in.run = shuffle;
  return true;
}

bool decode_vote(Decoder& d) {
  if (!d.take("sync")) d.fail("vote without .sync is not supported");
  d.take("b32");
  d.take("pred");
  d.in.mode = d.take("ballot") ? kBallot : d.take("all") ? kAll : d.take("any") ? kAny : kUniform;
  d.take("uni");
  d.expect_operands(3, 3);
  d.in.args[0] = d.in.mode == kBallot ? d.dest(d.operands[0], 4) : d.predicate_dest(d.operands[0]);
  std::string p = d.operands[1];
  if (p[0] == '!') {
    d.in.flags = 1;
    p = p.substr(1);
  }
  d.in.args[1] = d.predicate_source(p);
  d.in.args[2] = d.source(d.operands[2], 4);
  d.in.run = vote;
  return true;
}

bool decode_match(Decoder& d) {
  if (!d.take("sync")) d.fail("match without .sync is not supported");
  d.in.mode = d.take("all");
  d.take("any");
  int bytes = type_bytes(d.type());
  d.expect_operands(3, 4);
  size_t next = 0;
  d.in.args[0] = d.dest(d.operands[next++], 4);
  if (d.operands.size() == 4) d.in.args[1] = d.predicate_dest(d.operands[next++]);
  d.in.args[2] = d.source(d.operands[next++], bytes);
  d.in.args[3] = d.source(d.operands[next++], 4);
  d.in.run = bytes == 8 ? match<uint64_t> : match<uint32_t>;
  return true;
}

bool decode_reduce(Decoder& d) {
  if (!d.take("sync")) d.fail("redux without .sync is not supported");
  std::string type = d.type();
  d.expect_operands(3, 3);
  static const char* const names[] = {"add", "min", "max", "and", "or", "xor"};
  int which = -1;
  for (int i = 0; i < 6; ++i)
    if (d.take(names[i])) which = i;
  if (which < 0 || type[0] == 'f') d.fail("this reduction is not supported");
  d.in.mode = uint8_t(which);
  d.in.args[0] = d.dest(d.operands[0], 4);
  d.in.args[1] = d.source(d.operands[1], 4);
  d.in.args[2] = d.source(d.operands[2], 4);
  d.in.run = type == "s32" ? reduce<int32_t> : reduce<uint32_t>;
  return true;
}

}  // namespace

void require_full_warp(Warp& warp, const Instruction& in, uint32_t mask, const char* what) {
  if (mask == kAllLanes) return;
  fault(warp, in, mask ? __builtin_ctz(mask) : 0, Check::kSyncMask,
        std::string(what) + " needs all 32 lanes, only " + hex(mask) + " are here");
}

void arrive_sync(Warp& warp, const Instruction& in, uint32_t mask, Operand member_mask,
                 void (*execute)(Warp&, const Instruction&, uint32_t)) {
  const uint32_t* members = warp.in<uint32_t>(member_mask);
  int pc = warp.current;
  while (mask) {
    int first = __builtin_ctz(mask);
    uint32_t wanted = members[first], same = 0;
    for_lanes(mask, [&](int lane) { same |= uint32_t(members[lane] == wanted) << lane; });
    mask &= ~same;
    if (same & ~wanted) {
      int lane = __builtin_ctz(same & ~wanted);
      fault(warp, in, lane, Check::kSyncMask, "lane " + std::to_string(lane) + " is not in its own mask " + hex(wanted));
    }
    uint32_t here = same;
    auto waiting = std::find_if(warp.waiting.begin(), warp.waiting.end(),
                                [&](const SyncWait& w) { return w.pc == pc && w.member_mask == wanted; });
    if (waiting != warp.waiting.end()) here |= waiting->lanes;
    if (wanted & warp.live() & ~here) {
      if (waiting == warp.waiting.end())
        warp.waiting.push_back({pc, here, wanted});
      else
        waiting->lanes = here;
      warp.mask &= ~same;
      if (warp.mask == 0) warp.limit = 0;
      continue;
    }
    if (waiting != warp.waiting.end()) {
      warp.waiting.erase(waiting);
      warp.mask |= here;  // they go on together
    }
    order_lanes(warp, here);
    execute(warp, in, here);
  }
}

bool decode_warp(Decoder& d) {
  d.in.category = InstructionClass::kWarp;
  if (d.opcode == "shfl") return decode_shuffle(d);
  if (d.opcode == "vote") return decode_vote(d);
  if (d.opcode == "match") return decode_match(d);
  if (d.opcode == "redux") return decode_reduce(d);
  if (d.opcode == "activemask") {
    d.take("b32");
    d.expect_operands(1, 1);
    d.in.args[0] = d.dest(d.operands[0], 4);
    d.in.run = active_mask;
    return true;
  }
  if (d.opcode == "elect") {
    if (!d.take("sync")) d.fail("elect without .sync is not supported");
    d.expect_operands(3, 3);
    d.in.args[0] = d.dest(d.operands[0], 4);
    d.in.args[1] = d.predicate_dest(d.operands[1]);
    d.in.args[2] = d.source(d.operands[2], 4);
    d.in.run = elect;
    return true;
  }
  return false;
}

bool decode_barrier(Decoder& d) {
  Instruction& in = d.in;
  in.category = InstructionClass::kBarrier;
  if (d.opcode == "membar" || d.opcode == "fence") {
    for (const char* m : {"cta", "gl", "gpu", "sys", "sc", "acq_rel", "acquire", "release", "cluster"}) d.take(m);
    d.expect_operands(0, 0);
    d.needs(true, false);
    in.run = fence;
    return true;
  }
  if (d.opcode != "bar" && d.opcode != "barrier") return false;
  if (d.take("warp")) {
    if (!d.take("sync")) d.fail("this barrier is not supported");
    d.expect_operands(1, 1);
    in.args[0] = d.source(d.operands[0], 4);
    in.run = sync_warp;
    return true;
  }
  d.take("cta");
  d.take("aligned");
  size_t next = 0;
  if (d.take("red")) {
    in.mode = d.take("popc") ? kRedPopc : d.take("and") ? kRedAnd : kRedOr;
    d.take("or");
    d.take("u32");
    d.take("pred");
    d.expect_operands(3, 4);
    in.args[3] = in.mode == kRedPopc ? d.dest(d.operands[next++], 4) : d.predicate_dest(d.operands[next++]);
    in.args[0] = d.source(d.operands[next++], 4);
    if (d.operands.size() == 4) in.args[1] = d.source(d.operands[next++], 4);
    std::string p = d.operands[next];
    if (p[0] == '!') {
      in.flags = 1;
      p = p.substr(1);
    }
    in.args[2] = d.predicate_source(p);
  } else {
    if (d.take("arrive"))
      in.mode = kArrive;
    else if (!d.take("sync"))
      d.fail("this barrier is not supported");
    d.expect_operands(1, 2);
    in.args[0] = d.source(d.operands[0], 4);
    if (d.operands.size() == 2) in.args[1] = d.source(d.operands[1], 4);
    if (in.mode == kArrive && d.operands.size() != 2) d.fail("bar.arrive needs a number of threads");
  }
  in.run = block_barrier;
  return true;
}

}  // namespace bireal::ptx
