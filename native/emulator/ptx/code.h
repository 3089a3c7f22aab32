// Internal form of a kernel: what the parser makes and the op files decode and execute.
//
// Registers are kept lane by lane ("structure of arrays"): a register of up to 32 bits is 32 uint32_t, one of 64 bits 32
// uint64_t. Bits of a slot above the type's width are unspecified; every reader truncates. A predicate is one bit of a uint32_t
// for each lane. Constants lie in a pool of the same form, so that a handler sees one kind of operand.
#pragma once
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "emulator/ptx/interpreter.h"

namespace bireal::ptx {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// Windows of the generic address space. None is a host address of user space.
constexpr uint64_t kSharedWindow = 1ull << 60;
constexpr uint64_t kLocalWindow = 2ull << 60;
constexpr uint64_t kParameterWindow = 3ull << 60;
constexpr uint64_t kWindowBytes = 1ull << 32;

enum class Space : uint8_t { kGeneric, kGlobal, kConstant, kShared, kLocal, kParameter };

struct Warp;
struct Instruction;
/// Executes `in` for the lanes in `mask` (never empty).
using Handler = void (*)(Warp&, const Instruction& in, uint32_t mask);

/// Where an operand lies: >= 0 bytes into the warp's registers (or the index of a predicate), < 0 ~at bytes into the pool.
struct Operand {
  static constexpr int32_t kNone = INT32_MAX;
  int32_t at = kNone;
  bool present() const { return at != kNone; }
  // Until place_registers(), registers are told from predicates, and those that are written from those that are read.
  static constexpr int32_t kRegister = 1 << 29, kWritten = 1 << 28, kMarks = kRegister | kWritten;
  bool is_register() const { return at >= 0 && present() && at & kRegister; }
  bool is_written() const { return at & kWritten; }
};

constexpr int kMaxOperands = 18;

/// What every execution looks at fills the first of two cache lines.
struct alignas(64) Instruction {
  Handler run = nullptr;
  int32_t guard = -1;  ///< predicate, or -1
  bool guard_negated = false;
  InstructionClass category = InstructionClass::kInteger;
  Space space = Space::kGeneric;
  uint8_t bytes = 0;            ///< of one element in memory
  uint8_t count = 1;            ///< elements of a vector
  uint8_t mode = 0, flags = 0;  ///< of the family
  bool wide_address = true;     ///< the address register has 64 bits
  bool wide_data = false;       ///< the data registers have 64 bits
  int32_t target = -1;          ///< of a branch; index of a table
  int64_t offset = 0;           ///< added to the address
  Operand args[kMaxOperands];
  int32_t place = 0;  ///< index into KernelCode::places
  int32_t ptx_line = 0;
};

/// A line of the source.
struct Place {
  int file = 0, line = 0;
  bool operator<(const Place& o) const { return std::tie(file, line) < std::tie(o.file, o.line); }
};

/// Read-only registers that the scheduler fills.
enum class Special : uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kNwarpId,
  kLanemaskEq,
  kLanemaskLt,
  kLanemaskLe,
  kLanemaskGt,
  kLanemaskGe,
  kDynamicSharedBytes,
  kTotalSharedBytes,
  kGridId,
  kClock,
  kSmId,
  kNsmId
};

struct KernelCode {
  std::string name;
  std::vector<Instruction> code;
  std::vector<std::string> texts;  ///< of each instruction
  std::vector<uint8_t> pool;
  int32_t register_bytes = 0;
  int32_t predicate_count = 2;  ///< 0 is always false, 1 always true
  std::vector<std::pair<Special, int32_t>> specials;
  std::vector<std::string> files;
  std::vector<Place> places;
  std::vector<std::vector<int32_t>> tables;           ///< of brx.idx
  uint32_t shared_granule = 16, global_granule = 16;  ///< smallest access to each: what the race checks tell apart
  bool has_fence = false, has_async_copy = false;
};

// ---- lanes

template <class T>
using Slot = std::conditional_t<sizeof(T) <= 4, uint32_t, uint64_t>;

/// 16-bit floating point and pairs of it, by their bits.
struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};
struct Half2 {
  Half low, high;
};
struct Bfloat2 {
  Bfloat low, high;
};

template <class T>
inline T from_slot(Slot<T> slot) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(slot);
  } else {
    T value;
    std::memcpy(&value, &slot, sizeof value);
    return value;
  }
}
template <class T>
inline Slot<T> to_slot(T value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<Slot<T>>(value);
  } else {
    Slot<T> slot = 0;
    std::memcpy(&slot, &value, sizeof value);
    return slot;
  }
}

/// Calls f(lane) for each lane in `mask`.
template <class F>
inline __attribute__((always_inline)) void for_set_lanes(uint32_t mask, F&& f) {
  for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
}
/// The same; a full warp is a plain loop that the compiler vectorises.
template <class F>
inline __attribute__((always_inline)) void for_lanes(uint32_t mask, F&& f) {
  if (mask == kAllLanes) {
    for (int lane = 0; lane < kLanes; ++lane) f(lane);
  } else {
    for_set_lanes(mask, f);
  }
}

}  // namespace bireal::ptx
