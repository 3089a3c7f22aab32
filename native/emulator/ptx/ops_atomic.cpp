// atom and red. A warp's lanes act one after another: upwards, or downwards with Options::reverse.
#include <cmath>

#include "emulator/ptx/decode.h"
#include "emulator/ptx/half.h"
#include "emulator/ptx/machine.h"

namespace bireal::ptx {

namespace {

enum class Op : uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor, kExch, kCas, kInc, kDec };

template <Op O, class T>
T combine(T old, T a, T b) {
  (void)b;
  if constexpr (O == Op::kAdd) {
    if constexpr (std::is_integral_v<T>)
      return T(std::make_unsigned_t<T>(old) + std::make_unsigned_t<T>(a));
    else if constexpr (std::is_floating_point_v<T>)
      return old + a;
    else
      return add(old, a);
  } else if constexpr (O == Op::kExch) {
    return a;
  } else if constexpr (std::is_integral_v<T>) {
    if constexpr (O == Op::kMin) return a < old ? a : old;
    if constexpr (O == Op::kMax) return a > old ? a : old;
    if constexpr (O == Op::kAnd) return T(old & a);
    if constexpr (O == Op::kOr) return T(old | a);
    if constexpr (O == Op::kXor) return T(old ^ a);
    if constexpr (O == Op::kCas) return old == a ? b : old;
    if constexpr (O == Op::kInc) return old >= a ? T(0) : T(old + 1);
    if constexpr (O == Op::kDec) return old == 0 || old > a ? a : T(old - 1);
  }
}

/// What the lanes of an atomic reach.
struct Reached {
  uint64_t address[kLanes];
  uint8_t* host[kLanes];
  uint32_t global = 0;
};
void reach(Warp& warp, const Instruction& in, uint32_t mask, uint32_t bytes, Reached& r) {
  if (in.wide_address) {
    const uint64_t* base = warp.in<uint64_t>(in.args[1]);
    for_lanes(mask, [&](int lane) { r.address[lane] = base[lane] + uint64_t(in.offset); });
  } else {
    const uint32_t* base = warp.in<uint32_t>(in.args[1]);
    for_lanes(mask, [&](int lane) { r.address[lane] = base[lane] + uint32_t(in.offset); });
  }
  uint64_t offset[kLanes];
  uint32_t shared = 0;
  for_lanes(mask, [&](int lane) {
    bool in_window = r.address[lane] - kSharedWindow < kWindowBytes;
    offset[lane] = r.address[lane] & (kWindowBytes - 1);
    shared |= uint32_t(in.space == Space::kShared || (in.space == Space::kGeneric && in_window)) << lane;
  });
  r.global = mask & ~shared;
  if (shared) access_shared(warp, in, shared, offset, bytes, AccessKind::kAtomic, r.host);
  if (r.global) access_global(warp, in, r.global, r.address, bytes, AccessKind::kAtomic, r.host);
}

template <Op O, class T>
void atomic(Warp& warp, const Instruction& in, uint32_t mask) {
  Reached r;
  reach(warp, in, mask, sizeof(T), r);
  const Slot<T>* a = warp.in<T>(in.args[2]);
  const Slot<T>* b = in.args[3].present() ? warp.in<T>(in.args[3]) : a;
  Slot<T>* d = in.args[0].present() ? warp.out<T>(in.args[0]) : nullptr;
  bool reverse = warp.launch->options->reverse, fences = warp.launch->code->has_fence;
  while (mask) {
    int lane = reverse ? kLanes - 1 - __builtin_clz(mask) : __builtin_ctz(mask);
    mask &= ~(1u << lane);
    T old;
    std::memcpy(&old, r.host[lane], sizeof(T));
    T result = combine<O, T>(old, from_slot<T>(a[lane]), from_slot<T>(b[lane]));
    std::memcpy(r.host[lane], &result, sizeof(T));
    if (d) d[lane] = to_slot<T>(old);
    if (fences && (r.global >> lane & 1)) release_acquire(warp, lane, r.address[lane]);
  }
}

template <Op O>
Handler integer_handler(const std::string& type) {
  if (type == "s32") return atomic<O, int32_t>;
  if (type == "u32" || type == "b32") return atomic<O, uint32_t>;
  if (type == "s64") return atomic<O, int64_t>;
  if (type == "u64" || type == "b64") return atomic<O, uint64_t>;
  return nullptr;
}

Handler add_handler(const std::string& type) {
  if (type == "f32") return atomic<Op::kAdd, float>;
  if (type == "f64") return atomic<Op::kAdd, double>;
  if (type == "f16") return atomic<Op::kAdd, Half>;
  if (type == "f16x2") return atomic<Op::kAdd, Half2>;
  if (type == "bf16") return atomic<Op::kAdd, Bfloat>;
  if (type == "bf16x2") return atomic<Op::kAdd, Bfloat2>;
  return integer_handler<Op::kAdd>(type);
}

}  // namespace

bool decode_atomic(Decoder& d) {
  if (d.opcode != "atom" && d.opcode != "red") return false;
  bool returns = d.opcode == "atom";
  Instruction& in = d.in;
  in.category = InstructionClass::kAtomic;
  in.space = d.take("global") ? Space::kGlobal : d.take("shared") || d.take("shared::cta") ? Space::kShared : Space::kGeneric;
  bool orders = d.take("acquire") || d.take("release") || d.take("acq_rel");
  d.take("relaxed");
  for (const char* m : {"cta", "gpu", "sys", "noftz"}) d.take(m);
  std::string type = d.type();
  Handler handler = nullptr;
  bool cas = false;
  if (d.take("add"))
    handler = add_handler(type);
  else if (d.take("min"))
    handler = integer_handler<Op::kMin>(type);
  else if (d.take("max"))
    handler = integer_handler<Op::kMax>(type);
  else if (d.take("and"))
    handler = integer_handler<Op::kAnd>(type);
  else if (d.take("or"))
    handler = integer_handler<Op::kOr>(type);
  else if (d.take("xor"))
    handler = integer_handler<Op::kXor>(type);
  else if (d.take("exch"))
    handler = integer_handler<Op::kExch>(type);
  else if (d.take("inc"))
    handler = type == "u32" ? atomic<Op::kInc, uint32_t> : nullptr;
  else if (d.take("dec"))
    handler = type == "u32" ? atomic<Op::kDec, uint32_t> : nullptr;
  else if (d.take("cas")) {
    cas = true;
    handler = type == "b16" || type == "u16" ? atomic<Op::kCas, uint16_t> : integer_handler<Op::kCas>(type);
  }
  if (!handler) d.fail("this atomic is not supported");
  int bytes = type_bytes(type);
  in.bytes = uint8_t(bytes);
  size_t next = 0, count = (returns ? 1u : 0u) + 2u + (cas ? 1u : 0u);
  d.expect_operands(count, count);
  if (returns) in.args[0] = d.dest(d.operands[next++], bytes);
  d.address(d.operands[next++], 1);
  in.args[2] = d.source(d.operands[next++], bytes);
  if (cas) in.args[3] = d.source(d.operands[next++], bytes);
  in.run = handler;
  d.needs(orders, false);
  return true;
}

}  // namespace bireal::ptx
