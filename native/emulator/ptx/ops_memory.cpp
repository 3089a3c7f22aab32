// Loads, stores, generic addresses, ldmatrix and asynchronous copies.
#include <immintrin.h>

#include <algorithm>

#include "emulator/ptx/decode.h"
#include "emulator/ptx/machine.h"

namespace bireal::ptx {

namespace {

/// The address of each lane: register (32 or 64 bits) plus offset. Lanes outside `mask` get that of its first.
inline void addresses(Warp& warp, const Instruction& in, uint32_t mask, int index, uint64_t* out) {
  if (in.wide_address) {
    const uint64_t* base = warp.in<uint64_t>(in.args[index]);
    uint64_t offset = uint64_t(in.offset);
    for (int lane = 0; lane < kLanes; ++lane) out[lane] = base[lane] + offset;
  } else {
    const uint32_t* base = warp.in<uint32_t>(in.args[index]);
    uint32_t offset = uint32_t(in.offset);
    for (int lane = 0; lane < kLanes; ++lane) out[lane] = uint32_t(base[lane] + offset);
  }
  if (mask == kAllLanes) return;
  const uint64_t first = out[__builtin_ctz(mask)];
  for (int lane = 0; lane < kLanes; ++lane) out[lane] = mask >> lane & 1 ? out[lane] : first;
}

std::string at_byte(uint64_t offset, uint64_t size) {
  return " at byte " + std::to_string(int64_t(offset)) + " of " + std::to_string(size);
}

/// Where the bytes of each lane lie, from `base` on.
struct Places {
  uint64_t base = 0;
  uint64_t address[kLanes];
  Layout layout = Layout::kScattered;
  uint8_t* operator[](int lane) const { return reinterpret_cast<uint8_t*>(base + address[lane]); }
};

void access_local(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, uint8_t** host) {
  uint64_t size = warp.launch->kernel->local_bytes;
  for_lanes(mask, [&](int lane) {
    uint64_t a = offset[lane];
    if (a & (bytes - 1))
      fault(warp, in, lane, Check::kMisaligned,
            "access of " + std::to_string(bytes) + " bytes of local memory" + at_byte(a, size));
    if (a >= size || bytes > size - a)
      fault(warp, in, lane, Check::kOutOfBounds,
            "access of " + std::to_string(bytes) + " bytes of local memory" + at_byte(a, size));
    host[lane] = warp.local + size_t(lane) * size + a;
  });
}

void access_parameter(Warp& warp, const Instruction& in, uint32_t mask, const uint64_t* offset, uint32_t bytes, bool write,
                      uint8_t** host) {
  uint64_t size = warp.launch->parameter_bytes;
  for_lanes(mask, [&](int lane) {
    uint64_t a = offset[lane];
    if (write) fault(warp, in, lane, Check::kReadOnly, "write to a kernel parameter");
    if (a & (bytes - 1))
      fault(warp, in, lane, Check::kMisaligned,
            "read of " + std::to_string(bytes) + " bytes of the parameters" + at_byte(a, size));
    if (a >= size || bytes > size - a)
      fault(warp, in, lane, Check::kOutOfBounds,
            "read of " + std::to_string(bytes) + " bytes of the parameters" + at_byte(a, size));
    host[lane] = const_cast<uint8_t*>(warp.launch->parameters) + a;
  });
}

/// Any space: checks, counts, and says where each lane's bytes lie.
void access(Warp& warp, const Instruction& in, uint32_t mask, uint64_t* address, uint32_t bytes, AccessKind kind,
            uint8_t** host) {
  bool write = kind == AccessKind::kWrite || kind == AccessKind::kAtomic;
  switch (in.space) {
    case Space::kGlobal:
    case Space::kConstant: return access_global(warp, in, mask, address, bytes, kind, host);
    case Space::kShared: return access_shared(warp, in, mask, address, bytes, kind, host);
    case Space::kLocal: return access_local(warp, in, mask, address, bytes, host);
    case Space::kParameter: return access_parameter(warp, in, mask, address, bytes, write, host);
    case Space::kGeneric: break;
  }
  uint32_t shared = 0, local = 0, parameter = 0;
  uint64_t offset[kLanes];
  for_lanes(mask, [&](int lane) {
    uint64_t a = address[lane];
    offset[lane] = a & (kWindowBytes - 1);
    if (a - kSharedWindow < kWindowBytes)
      shared |= 1u << lane;
    else if (a - kLocalWindow < kWindowBytes)
      local |= 1u << lane;
    else if (a - kParameterWindow < kWindowBytes)
      parameter |= 1u << lane;
  });
  uint32_t global = mask & ~(shared | local | parameter);
  if (global) access_global(warp, in, global, address, bytes, kind, host);
  if (shared) access_shared(warp, in, shared, offset, bytes, kind, host);
  if (local) access_local(warp, in, local, offset, bytes, host);
  if (parameter) access_parameter(warp, in, parameter, offset, bytes, write, host);
}

/// The same for an instruction whose address is its first operand.
void access_places(Warp& warp, const Instruction& in, uint32_t mask, AccessKind kind, Places& places) {
  const uint32_t bytes = uint32_t(in.bytes) * in.count;
  addresses(warp, in, mask, 0, places.address);
  if (in.space == Space::kGlobal || in.space == Space::kConstant) {
    if (pass_global(warp, in, mask, places.address, bytes, kind, places.layout)) return;
  } else if (in.space == Space::kShared) {
    if (pass_shared(warp, in, mask, places.address, bytes, kind, places.layout)) {
      places.base = reinterpret_cast<uint64_t>(warp.block->shared.data());
      return;
    }
  } else if (in.space == Space::kParameter && kind == AccessKind::kRead) {
    const uint64_t from = places.address[0], size = warp.launch->parameter_bytes;
    uint64_t apart = 0;
    for (int lane = 0; lane < kLanes; ++lane) apart |= places.address[lane] ^ from;
    if (!apart && from % bytes == 0 && size >= bytes && from <= size - bytes) {
      places.base = reinterpret_cast<uint64_t>(warp.launch->parameters);
      places.layout = Layout::kSame;
      return;
    }
  }
  uint8_t* host[kLanes];
  access(warp, in, mask, places.address, bytes, kind, host);
  places.layout = Layout::kScattered;
  for_lanes(mask, [&](int lane) { places.address[lane] = reinterpret_cast<uint64_t>(host[lane]); });
}

enum LoadMode : uint8_t { kPlain, kStrong, kNonCoherent };
constexpr uint8_t kSigned = 1;

template <class T>
inline T read_as(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

/// ld.v4 of 32 bits by a whole warp: four elements of four lanes at a time.
void copy_in_transposed(Warp& warp, const Instruction& in, const Places& places) {
  __m128i* d[4];
  for (int i = 0; i < 4; ++i) d[i] = reinterpret_cast<__m128i*>(warp.out<uint32_t>(in.args[1 + i]));
  for (int lane = 0; lane < kLanes; lane += 4) {
    __m128i row[4];
    for (int i = 0; i < 4; ++i) row[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(places[lane + i]));
    const __m128i low01 = _mm_unpacklo_epi32(row[0], row[1]), low23 = _mm_unpacklo_epi32(row[2], row[3]);
    const __m128i high01 = _mm_unpackhi_epi32(row[0], row[1]), high23 = _mm_unpackhi_epi32(row[2], row[3]);
    _mm_storeu_si128(d[0] + lane / 4, _mm_unpacklo_epi64(low01, low23));
    _mm_storeu_si128(d[1] + lane / 4, _mm_unpackhi_epi64(low01, low23));
    _mm_storeu_si128(d[2] + lane / 4, _mm_unpacklo_epi64(high01, high23));
    _mm_storeu_si128(d[3] + lane / 4, _mm_unpackhi_epi64(high01, high23));
  }
}

/// Element type T (its sign extends), slot type S.
template <class T, class S>
void copy_in(Warp& warp, const Instruction& in, uint32_t mask, const Places& places) {
  if constexpr (sizeof(T) == 4 && sizeof(S) == 4) {
    bool whole = in.count == 4 && mask == kAllLanes && places.layout != Layout::kSame;
    for (int i = 0; i < 4 && whole; ++i) whole = in.args[1 + i].present();
    if (whole) return copy_in_transposed(warp, in, places);
  }
  for (int i = 0; i < in.count; ++i) {
    if (!in.args[1 + i].present()) continue;
    S* d = warp.out<S>(in.args[1 + i]);
    size_t at = size_t(i) * sizeof(T);
    if (places.layout == Layout::kSame) {
      const S value = S(read_as<T>(places[__builtin_ctz(mask)] + at));
      for_lanes(mask, [&](int lane) { d[lane] = value; });
    } else if (places.layout == Layout::kRow && in.count == 1 && mask == kAllLanes) {
      const uint8_t* row = places[0];
      for (int lane = 0; lane < kLanes; ++lane) d[lane] = S(read_as<T>(row + size_t(lane) * sizeof(T)));
    } else {
      for_lanes(mask, [&](int lane) { d[lane] = S(read_as<T>(places[lane] + at)); });
    }
  }
}

void load(Warp& warp, const Instruction& in, uint32_t mask) {
  AccessKind kind = in.mode == kStrong        ? AccessKind::kStrongRead
                    : in.mode == kNonCoherent ? AccessKind::kNonCoherentRead
                                              : AccessKind::kRead;
  Places host;
  access_places(warp, in, mask, kind, host);
  bool sign = in.flags & kSigned;
  if (in.wide_data) {
    switch (in.bytes) {
      case 1: return sign ? copy_in<int8_t, uint64_t>(warp, in, mask, host) : copy_in<uint8_t, uint64_t>(warp, in, mask, host);
      case 2: return sign ? copy_in<int16_t, uint64_t>(warp, in, mask, host) : copy_in<uint16_t, uint64_t>(warp, in, mask, host);
      case 4: return sign ? copy_in<int32_t, uint64_t>(warp, in, mask, host) : copy_in<uint32_t, uint64_t>(warp, in, mask, host);
      default: return copy_in<uint64_t, uint64_t>(warp, in, mask, host);
    }
  }
  switch (in.bytes) {
    case 1: return sign ? copy_in<int8_t, uint32_t>(warp, in, mask, host) : copy_in<uint8_t, uint32_t>(warp, in, mask, host);
    case 2: return sign ? copy_in<int16_t, uint32_t>(warp, in, mask, host) : copy_in<uint16_t, uint32_t>(warp, in, mask, host);
    default: return copy_in<uint32_t, uint32_t>(warp, in, mask, host);
  }
}

/// ld.param [name + constant]: the same value for all lanes, so no access to check beyond the load time's.
template <class T, class S>
void load_parameter_uniform(Warp& warp, const Instruction& in, uint32_t mask) {
  for (int i = 0; i < in.count; ++i) {
    if (!in.args[1 + i].present()) continue;
    S value = S(read_as<T>(warp.launch->parameters + in.offset + size_t(i) * sizeof(T)));
    S* d = warp.out<S>(in.args[1 + i]);
    for_lanes(mask, [&](int lane) { d[lane] = value; });
  }
}

void store(Warp& warp, const Instruction& in, uint32_t mask) {
  Places host;
  access_places(warp, in, mask, in.mode == kStrong ? AccessKind::kAtomic : AccessKind::kWrite, host);
  if (host.layout == Layout::kRow && mask == kAllLanes && in.count == 1 && in.bytes == (in.wide_data ? 8 : 4)) {
    if (in.wide_data)
      std::memcpy(host[0], warp.in<uint64_t>(in.args[1]), kLanes * 8);
    else
      std::memcpy(host[0], warp.in<uint32_t>(in.args[1]), kLanes * 4);
    return;
  }
  bool reverse = warp.launch->options->reverse;
  for (int i = 0; i < in.count; ++i) {
    size_t at = size_t(i) * in.bytes, slot = in.wide_data ? 8 : 4;
    const uint8_t* s =
        reinterpret_cast<const uint8_t*>(in.wide_data ? static_cast<const void*>(warp.in<uint64_t>(in.args[1 + i]))
                                                      : static_cast<const void*>(warp.in<uint32_t>(in.args[1 + i])));
    if (reverse) {
      for (int lane = kLanes - 1; lane >= 0; --lane)
        if (mask >> lane & 1) std::memcpy(host[lane] + at, s + size_t(lane) * slot, in.bytes);
    } else if (in.bytes == 4) {
      for_lanes(mask, [&](int lane) { std::memcpy(host[lane] + at, s + size_t(lane) * slot, 4); });
    } else {
      for_lanes(mask, [&](int lane) { std::memcpy(host[lane] + at, s + size_t(lane) * slot, in.bytes); });
    }
  }
}

/// cvta and cvta.to: window + offset. Global and constant addresses are generic ones already.
template <class S>
void convert_address(Warp& warp, const Instruction& in, uint32_t mask) {
  uint64_t window = in.space == Space::kShared      ? kSharedWindow
                    : in.space == Space::kLocal     ? kLocalWindow
                    : in.space == Space::kParameter ? kParameterWindow
                                                    : 0;
  const S* a = warp.in<S>(in.args[1]);
  S* d = warp.out<S>(in.args[0]);
  S add = S(in.mode ? 0 - window : window);
  for_lanes(mask, [&](int lane) { d[lane] = S(a[lane] + add); });
}

void is_space(Warp& warp, const Instruction& in, uint32_t mask) {
  const uint64_t* a = warp.in<uint64_t>(in.args[1]);
  uint32_t result = 0;
  for_lanes(mask, [&](int lane) {
    Space s = a[lane] - kSharedWindow < kWindowBytes      ? Space::kShared
              : a[lane] - kLocalWindow < kWindowBytes     ? Space::kLocal
              : a[lane] - kParameterWindow < kWindowBytes ? Space::kParameter
                                                          : Space::kGlobal;
    if (s == Space::kGlobal && in.space == Space::kConstant) {
      s = Space::kGlobal;
      for (const Variable& v : warp.launch->module->variables())
        if (v.constant && a[lane] - v.address < v.bytes) s = Space::kConstant;
    }
    result |= uint32_t(s == in.space) << lane;
  });
  warp.set_predicate(in.args[0], mask, result);
}

/// ldmatrix: 8x8 matrices of 16 bits; lane 8 m + r holds the address of row r of matrix m. Lane l gets elements 2(l%4), +1 of row
/// l/4; with .trans of column l/4.
void load_matrix(Warp& warp, const Instruction& in, uint32_t mask) {
  require_full_warp(warp, in, mask, "ldmatrix");
  uint64_t address[kLanes];
  uint8_t* host[kLanes];
  addresses(warp, in, kAllLanes, 0, address);
  if (in.space == Space::kGeneric)
    for (int lane = 0; lane < 8 * in.count; ++lane) {
      if (address[lane] - kSharedWindow >= kWindowBytes)
        fault(warp, in, lane, Check::kOutOfBounds, "ldmatrix from an address that is not in shared memory");
      address[lane] -= kSharedWindow;
    }
  uint32_t used = in.count == 4 ? kAllLanes : (1u << (8 * in.count)) - 1;
  access_shared(warp, in, used, address, 16, AccessKind::kRead, host);
  for (int m = 0; m < in.count; ++m) {
    uint32_t* d = warp.out<uint32_t>(in.args[1 + m]);
    for (int lane = 0; lane < kLanes; ++lane) {
      int row = lane / 4, column = lane % 4 * 2;
      uint32_t low, high;
      if (in.mode) {
        low = read_as<uint16_t>(host[8 * m + column] + 2 * row);
        high = read_as<uint16_t>(host[8 * m + column + 1] + 2 * row);
      } else {
        low = read_as<uint16_t>(host[8 * m + row] + 2 * column);
        high = read_as<uint16_t>(host[8 * m + row] + 2 * column + 2);
      }
      d[lane] = low | high << 16;
    }
  }
}

// ---- cp.async

constexpr uint8_t kHasSourceBytes = 1;

void async_copy(Warp& warp, const Instruction& in, uint32_t mask) {
  uint64_t to[kLanes], from[kLanes];
  uint8_t *host_to[kLanes], *host_from[kLanes];
  addresses(warp, in, mask, 0, to);
  const uint64_t* source = warp.in<uint64_t>(in.args[1]);
  const uint32_t* source_bytes = in.flags & kHasSourceBytes ? warp.in<uint32_t>(in.args[2]) : nullptr;
  uint32_t reads = 0;
  for_lanes(mask, [&](int lane) {
    from[lane] = source[lane] + uint64_t(in.target + 1);
    if (to[lane] - kSharedWindow < kWindowBytes) to[lane] -= kSharedWindow;
    if (source_bytes && source_bytes[lane] > in.bytes)
      fault(warp, in, lane, Check::kAsyncCopy,
            "cp.async of " + std::to_string(in.bytes) + " bytes with src-size " + std::to_string(source_bytes[lane]));
    if (!source_bytes || source_bytes[lane] == in.bytes) reads |= 1u << lane;
  });
  if (reads) access_global(warp, in, reads, from, in.bytes, AccessKind::kRead, host_from);
  // a partial source is read byte by byte: only what it names must be valid
  uint32_t partial = mask & ~reads;
  for_lanes(partial, [&](int lane) {
    for (uint32_t i = 0; i < source_bytes[lane]; ++i) {
      uint64_t byte[kLanes];
      uint8_t* where[kLanes];
      byte[lane] = from[lane] + i;
      access_global(warp, in, 1u << lane, byte, 1, AccessKind::kRead, where);
    }
    host_from[lane] = reinterpret_cast<uint8_t*>(from[lane]);
  });
  access_shared(warp, in, mask, to, in.bytes, AccessKind::kWrite, host_to);
  for_lanes(mask, [&](int lane) {
    AsyncCopies& copies = warp.copies[size_t(lane)];
    PendingCopy copy;
    copy.shared_offset = uint32_t(to[lane]);
    copy.bytes = in.bytes;
    copy.group = copies.open_group;
    std::memset(copy.data, 0, sizeof copy.data);
    std::memcpy(copy.data, host_from[lane], source_bytes ? source_bytes[lane] : in.bytes);
    copies.pending.push_back(copy);
    // nothing has arrived yet: whoever looks now sees garbage, and the check says so
    std::memset(host_to[lane], 0xCD, in.bytes);
    std::memset(&warp.block->shared_pending[copy.shared_offset], 1, in.bytes);
    ++warp.block->copies_in_flight;
  });
}

void async_commit(Warp& warp, const Instruction&, uint32_t mask) {
  for_lanes(mask, [&](int lane) { ++warp.copies[size_t(lane)].open_group; });
}

void async_wait(Warp& warp, const Instruction& in, uint32_t mask) {
  const uint32_t* keep = in.mode ? nullptr : warp.in<uint32_t>(in.args[0]);
  for_lanes(mask, [&](int lane) { finish_async_copies(warp, in, lane, keep ? keep[lane] : 0, in.mode != 0); });
}

bool decode_async_copy(Decoder& d) {
  d.in.category = InstructionClass::kAsyncCopy;
  d.take("async");
  if (d.take("commit_group")) {
    d.expect_operands(0, 0);
    d.in.run = async_commit;
  } else if (d.take("wait_group")) {
    d.expect_operands(1, 1);
    d.in.args[0] = d.source(d.operands[0], 4);
    d.in.run = async_wait;
  } else if (d.take("wait_all")) {
    d.in.mode = 1;
    d.in.run = async_wait;
  } else {
    if (!d.take("ca") && !d.take("cg")) d.fail("this form of cp.async is not supported");
    for (const char* m : {"shared", "shared::cta", "global", "L2::64B", "L2::128B", "L2::256B"}) d.take(m);
    d.in.space = Space::kShared;
    d.expect_operands(3, 4);
    // destination address in args[0], source address in args[1], its offset in target (+1)
    d.address(d.operands[1], 1);
    if (!d.in.wide_address) d.fail("global address must have 64 bits");
    if (d.in.offset > INT32_MAX - 1 || d.in.offset < INT32_MIN + 1) d.fail("offset too large");
    d.in.target = int32_t(d.in.offset) - 1;
    d.in.offset = 0;
    d.address(d.operands[0], 0);
    int bytes = atoi(d.operands[2].c_str());
    if (bytes != 4 && bytes != 8 && bytes != 16) d.fail("cp.async copies 4, 8 or 16 bytes");
    d.in.bytes = uint8_t(bytes);
    if (d.operands.size() == 4) {
      if (d.slot_bytes(d.operands[3]) == 0 && !isdigit(static_cast<unsigned char>(d.operands[3][0])))
        d.fail("ignore-src and cache policies are not supported");
      d.in.flags = kHasSourceBytes;
      d.in.args[2] = d.source(d.operands[3], 4);
    }
    d.in.run = async_copy;
  }
  d.needs(false, true);
  return true;
}

Space take_space(Decoder& d) {
  if (d.take("global")) return Space::kGlobal;
  if (d.take("shared") || d.take("shared::cta")) return Space::kShared;
  if (d.take("local")) return Space::kLocal;
  if (d.take("param") || d.take("param::entry") || d.take("param::func")) return Space::kParameter;
  if (d.take("const")) return Space::kConstant;
  return Space::kGeneric;
}

Handler uniform_parameter_handler(int bytes, bool sign, bool wide) {
  if (wide) {
    switch (bytes) {
      case 1: return sign ? load_parameter_uniform<int8_t, uint64_t> : load_parameter_uniform<uint8_t, uint64_t>;
      case 2: return sign ? load_parameter_uniform<int16_t, uint64_t> : load_parameter_uniform<uint16_t, uint64_t>;
      case 4: return sign ? load_parameter_uniform<int32_t, uint64_t> : load_parameter_uniform<uint32_t, uint64_t>;
      default: return load_parameter_uniform<uint64_t, uint64_t>;
    }
  }
  switch (bytes) {
    case 1: return sign ? load_parameter_uniform<int8_t, uint32_t> : load_parameter_uniform<uint8_t, uint32_t>;
    case 2: return sign ? load_parameter_uniform<int16_t, uint32_t> : load_parameter_uniform<uint16_t, uint32_t>;
    default: return load_parameter_uniform<uint32_t, uint32_t>;
  }
}

bool decode_load_store(Decoder& d) {
  bool is_load = d.opcode != "st";
  Instruction& in = d.in;
  in.space = take_space(d);
  std::string type = d.type();
  int bytes = type_bytes(type);
  if (bytes == 0 || bytes > 8) d.fail("type not supported");
  in.bytes = uint8_t(bytes);
  in.flags = type[0] == 's' ? kSigned : 0;
  // Cache operators and hints change speed, not results.
  for (const char* m :
       {"ca", "cg", "cs", "lu", "cv", "wb", "wt", "L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
        "L1::no_allocate", "L2::64B", "L2::128B", "L2::256B", "L2::evict_first", "L2::evict_last", "L2::evict_normal"})
    d.take(m);
  if (d.take("volatile")) in.mode = kStrong;
  if (d.take("relaxed") || d.take("acquire") || d.take("release")) {
    for (const char* scope : {"cta", "gpu", "sys", "cluster"}) d.take(scope);
    in.mode = kStrong;
  }
  d.take("weak");
  if (d.take("nc")) in.mode = kNonCoherent;
  size_t vector = d.take("v2") ? 2 : d.take("v4") ? 4 : d.take("v8") ? 8 : 1;
  if (d.operands.size() > 2) d.fail("a cache policy operand is not supported");
  d.expect_operands(2, 2);
  auto data = d.vector(d.operands[is_load ? 0 : 1]);
  if (data.size() != vector || vector * size_t(bytes) > 32) d.fail("vector not understood");
  in.count = uint8_t(vector);
  d.address(d.operands[is_load ? 1 : 0], 0);
  in.wide_data = bytes > 4;
  for (const std::string& r : data) in.wide_data |= d.slot_bytes(r) == 8;
  for (size_t i = 0; i < data.size(); ++i)
    in.args[1 + i] = is_load ? d.dest(data[i], in.wide_data ? 8 : 4) : d.source(data[i], in.wide_data ? 8 : 4);
  switch (in.space) {
    case Space::kShared: in.category = is_load ? InstructionClass::kSharedLoad : InstructionClass::kSharedStore; break;
    case Space::kLocal: in.category = InstructionClass::kLocal; break;
    case Space::kParameter: in.category = InstructionClass::kParameter; break;
    default: in.category = is_load ? InstructionClass::kGlobalLoad : InstructionClass::kGlobalStore; break;
  }
  in.run = is_load ? load : store;
  return true;
}

}  // namespace

void finish_async_copies(Warp& warp, const Instruction& in, int lane, uint32_t keep, bool open_group_too) {
  AsyncCopies& copies = warp.copies[size_t(lane)];
  Block& block = *warp.block;
  size_t kept = 0;
  for (size_t i = 0; i < copies.pending.size(); ++i) {
    PendingCopy copy = copies.pending[i];
    bool done = open_group_too || copy.group + keep < copies.open_group;
    if (!done) {
      copies.pending[kept++] = copy;
      continue;
    }
    std::memset(&block.shared_pending[copy.shared_offset], 0, copy.bytes);
    --block.copies_in_flight;
    // the write happens here, for the checks too: readers need a barrier after the wait; it was counted when it was issued
    uint64_t to[kLanes];
    uint8_t* host[kLanes];
    to[lane] = copy.shared_offset;
    check_shared(warp, in, 1u << lane, to, copy.bytes, AccessKind::kWrite, host);
    std::memcpy(host[lane], copy.data, copy.bytes);
  }
  copies.pending.resize(kept);
}

bool decode_memory(Decoder& d) {
  const std::string& op = d.opcode;
  if (op == "ld" || op == "ldu" || op == "st") {
    decode_load_store(d);
    Instruction& in = d.in;
    // a parameter's address is a constant: all lanes read the same bytes
    if (op == "ld" && in.space == Space::kParameter && in.args[0].at < 0) {
      Operand base = in.args[0];
      in.offset += int64_t(d.constant_value(base));
      in.args[0] = {};
      in.run = uniform_parameter_handler(in.bytes, in.flags & kSigned, in.wide_data);
    }
    return true;
  }
  if (op == "cvta") {
    d.in.category = InstructionClass::kMove;
    d.in.mode = d.take("to");
    d.in.space = take_space(d);
    int bytes = type_bytes(d.type());
    d.expect_operands(2, 2);
    d.in.args[0] = d.dest(d.operands[0], bytes);
    d.in.args[1] = d.source(d.operands[1], bytes);
    if (bytes != 8) d.fail("generic addresses have 64 bits");
    d.in.run = convert_address<uint64_t>;
    return true;
  }
  if (op == "isspacep") {
    d.in.space = take_space(d);
    d.expect_operands(2, 2);
    d.in.args[0] = d.predicate_dest(d.operands[0]);
    d.in.args[1] = d.source(d.operands[1], 8);
    d.in.run = is_space;
    return true;
  }
  if (op == "ldmatrix") {
    d.in.category = InstructionClass::kSharedLoad;
    for (const char* m : {"sync", "aligned", "m8n8", "b16"})
      if (!d.take(m)) d.fail("this form of ldmatrix is not supported");
    d.in.count = d.take("x1") ? 1 : d.take("x2") ? 2 : d.take("x4") ? 4 : 0;
    if (d.in.count == 0) d.fail("ldmatrix needs x1, x2 or x4");
    d.in.mode = d.take("trans");
    d.in.space = take_space(d);
    d.in.bytes = 16;
    d.expect_operands(2, 2);
    auto data = d.vector(d.operands[0]);
    if (data.size() != d.in.count) d.fail("number of registers differs from the shape");
    d.address(d.operands[1], 0);
    for (size_t i = 0; i < data.size(); ++i) d.in.args[1 + i] = d.dest(data[i], 4);
    d.in.run = load_matrix;
    return true;
  }
  if (op == "cp") return decode_async_copy(d);
  return false;
}

}  // namespace bireal::ptx
