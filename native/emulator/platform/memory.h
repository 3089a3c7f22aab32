// memory: what the emulated device and host can address. Device memory is host memory between guard bytes; fresh memory is NaN
// and counted as unwritten byte by byte; freed memory stays poisoned and known, so a later use is recognised.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace bireal::emulator {

struct Range {
  uint64_t address = 0;
  uint64_t bytes = 0;
};

/// One piece of memory that the driver knows.
struct Block {
  enum class Kind { kDevice, kPinned, kRegistered, kVariable };
  uint64_t id = 0;  ///< counts up from 1: "allocation 7" in messages
  Kind kind = Kind::kDevice;
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool freed = false;
  bool read_only = false;                    ///< a __constant__ variable: kernels must not write it
  unsigned flags = 0;                        ///< of cuMemHostAlloc, cuMemHostRegister
  uint64_t device_writes = 0;                ///< how often device work wrote it (pinned memory)
  std::vector<uint8_t> initialised;          ///< one byte for each byte, 0 = unwritten; empty for host memory and variables
  std::unique_ptr<unsigned char[]> storage;  ///< guard, memory, guard; empty where the memory is the caller's

  bool host() const { return kind == Kind::kPinned || kind == Kind::kRegistered; }
  unsigned char* data() const { return reinterpret_cast<unsigned char*>(address); }
  /// "allocation 7 (1024 bytes)", "pinned memory 8 (...)"
  std::string text() const;
};

class Memory {
 public:
  /// Device or pinned memory, aligned to 256 bytes, filled with 0xFF: NaN as float, half, bfloat16 and double.
  Block& allocate(Block::Kind kind, uint64_t bytes);
  /// Memory that the caller owns: registered host memory, module variables.
  Block& adopt(Block::Kind kind, uint64_t address, uint64_t bytes);
  /// Frees a block; a message if its guard bytes were overwritten, else "".
  std::string release(Block& block);

  /// The block, live or freed, that holds `address`; nullptr where there is none.
  Block* find(uint64_t address);
  /// The live block that holds the whole range, or nullptr; `why` then says what is there instead.
  Block* find_live(Range range, std::string* why);

  uint64_t live_bytes() const { return live_bytes_; }
  uint64_t peak_bytes() const { return peak_bytes_; }
  uint64_t live_allocations() const { return live_allocations_; }
  uint64_t pinned_bytes() const { return pinned_bytes_; }
  /// Messages of live blocks whose guard bytes were overwritten.
  std::vector<std::string> check_guards() const;

 private:
  static constexpr uint64_t kGuardBytes = 256;
  static constexpr uint64_t kQuarantineBytes = uint64_t(64) << 20;  // freed memory that stays recognisable
  Block& insert(std::unique_ptr<Block> block);
  static std::string guard_message(const Block& block);

  std::map<uint64_t, std::unique_ptr<Block>> blocks_;  // by address
  std::deque<uint64_t> quarantine_;
  uint64_t quarantined_bytes_ = 0;
  uint64_t next_id_ = 1;
  uint64_t live_bytes_ = 0, peak_bytes_ = 0, live_allocations_ = 0, pinned_bytes_ = 0;
};

/// What one piece of work read and wrote, as sorted ranges.
class AccessSet {
 public:
  void read(Range range) { reads_.push_back(range); }
  void write(Range range) { writes_.push_back(range); }
  /// Sorts and merges; call once all is recorded.
  void normalise();
  const std::vector<Range>& reads() const { return reads_; }
  const std::vector<Range>& writes() const { return writes_; }
  bool touches(Range range) const;
  /// The first overlap of two normalised sets of which one side writes; bytes = 0 where there is none.
  struct Conflict {
    Range range;
    bool first_writes = false, second_writes = false;
  };
  static Conflict conflict(const AccessSet& first, const AccessSet& second);

 private:
  std::vector<Range> reads_, writes_;
};

}  // namespace bireal::emulator
