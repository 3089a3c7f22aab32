#include "emulator/platform/memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace bireal::emulator {
namespace {

constexpr unsigned char kGuardByte = 0xA5;
constexpr unsigned char kPoisonByte = 0xFF;

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

void merge(std::vector<Range>& ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.address < b.address; });
  size_t kept = 0;
  for (const Range& range : ranges) {
    if (range.bytes == 0) continue;
    if (kept > 0 && range.address <= ranges[kept - 1].address + ranges[kept - 1].bytes) {
      Range& last = ranges[kept - 1];
      last.bytes = std::max(last.address + last.bytes, range.address + range.bytes) - last.address;
    } else {
      ranges[kept++] = range;
    }
  }
  ranges.resize(kept);
}

Range first_overlap(const std::vector<Range>& a, const std::vector<Range>& b) {
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    uint64_t begin = std::max(a[i].address, b[j].address);
    uint64_t a_end = a[i].address + a[i].bytes, b_end = b[j].address + b[j].bytes;
    if (begin < std::min(a_end, b_end)) return {begin, std::min(a_end, b_end) - begin};
    if (a_end <= b_end)
      ++i;
    else
      ++j;
  }
  return {};
}

}  // namespace

std::string Block::text() const {
  const char* names[] = {"allocation ", "pinned memory ", "registered host memory ", "module variable "};
  return names[int(kind)] + std::to_string(id) + " (" + std::to_string(bytes) + " bytes)";
}

Block& Memory::insert(std::unique_ptr<Block> block) {
  block->id = next_id_++;
  Block& result = *block;
  blocks_[result.address] = std::move(block);
  return result;
}

Block& Memory::allocate(Block::Kind kind, uint64_t bytes) {
  auto block = std::make_unique<Block>();
  block->kind = kind;
  block->bytes = bytes;
  // The guard before the memory is at least kGuardBytes, the one behind starts right after the last byte.
  block->storage = std::make_unique<unsigned char[]>(bytes + 3 * kGuardBytes);
  uint64_t start = reinterpret_cast<uint64_t>(block->storage.get());
  block->address = (start + 2 * kGuardBytes - 1) / kGuardBytes * kGuardBytes;
  std::memset(block->data() - kGuardBytes, kGuardByte, kGuardBytes);
  std::memset(block->data(), kPoisonByte, bytes);
  std::memset(block->data() + bytes, kGuardByte, kGuardBytes);
  if (kind == Block::Kind::kDevice) {
    block->initialised.assign(bytes, 0);
    live_bytes_ += bytes;
    peak_bytes_ = std::max(peak_bytes_, live_bytes_);
    ++live_allocations_;
  } else {
    pinned_bytes_ += bytes;
  }
  return insert(std::move(block));
}

Block& Memory::adopt(Block::Kind kind, uint64_t address, uint64_t bytes) {
  auto block = std::make_unique<Block>();
  block->kind = kind;
  block->address = address;
  block->bytes = bytes;
  return insert(std::move(block));
}

std::string Memory::guard_message(const Block& block) {
  if (!block.storage) return "";
  for (uint64_t i = 0; i < kGuardBytes; ++i) {
    if (block.data()[block.bytes + i] != kGuardByte)
      return "overrun: byte " + std::to_string(i) + " behind the end of " + block.text() + " was overwritten";
    if (block.data()[-1 - int64_t(i)] != kGuardByte)
      return "underrun: byte " + std::to_string(i + 1) + " before the start of " + block.text() + " was overwritten";
  }
  return "";
}

std::string Memory::release(Block& block) {
  std::string message = guard_message(block);
  if (!block.storage) {
    blocks_.erase(block.address);
    return message;
  }
  if (block.kind == Block::Kind::kDevice) {
    live_bytes_ -= block.bytes;
    --live_allocations_;
  } else {
    pinned_bytes_ -= block.bytes;
  }
  block.freed = true;
  std::memset(block.data(), kPoisonByte, block.bytes);
  block.initialised = {};
  quarantine_.push_back(block.address);
  quarantined_bytes_ += block.bytes;
  while (quarantined_bytes_ > kQuarantineBytes) {
    auto oldest = blocks_.find(quarantine_.front());
    quarantine_.pop_front();
    quarantined_bytes_ -= oldest->second->bytes;
    blocks_.erase(oldest);
  }
  return message;
}

Block* Memory::find(uint64_t address) {
  auto next = blocks_.upper_bound(address);
  if (next == blocks_.begin()) return nullptr;
  Block& block = *std::prev(next)->second;
  return address < block.address + block.bytes ? &block : nullptr;
}

Block* Memory::find_live(Range range, std::string* why) {
  Block* block = find(range.address);
  if (block == nullptr) {
    *why = "out of bounds: " + hex(range.address) + " lies in no allocation";
    auto next = blocks_.upper_bound(range.address);
    if (next != blocks_.begin()) {
      const Block& before = *std::prev(next)->second;
      uint64_t distance = range.address - before.address - before.bytes;
      if (distance < 4096) *why += ", " + std::to_string(distance) + " bytes behind the end of " + before.text();
    }
    return nullptr;
  }
  if (block->freed) {
    *why = "use after free: " + hex(range.address) + " lies in " + block->text() + ", which was freed";
    return nullptr;
  }
  uint64_t offset = range.address - block->address;
  if (range.bytes > block->bytes - offset) {
    *why = "out of bounds: " + std::to_string(range.bytes) + " bytes at offset " + std::to_string(offset) + " of " +
           block->text() + ", " + std::to_string(range.bytes - (block->bytes - offset)) + " too many";
    return nullptr;
  }
  return block;
}

std::vector<std::string> Memory::check_guards() const {
  std::vector<std::string> messages;
  for (const auto& [address, block] : blocks_) {
    std::string message = block->freed ? "" : guard_message(*block);
    if (!message.empty()) messages.push_back(message);
  }
  return messages;
}

void AccessSet::normalise() {
  merge(reads_);
  merge(writes_);
}

bool AccessSet::touches(Range range) const {
  return first_overlap(reads_, {range}).bytes > 0 || first_overlap(writes_, {range}).bytes > 0;
}

AccessSet::Conflict AccessSet::conflict(const AccessSet& first, const AccessSet& second) {
  Range range = first_overlap(first.writes_, second.writes_);
  if (range.bytes > 0) return {range, true, true};
  range = first_overlap(first.writes_, second.reads_);
  if (range.bytes > 0) return {range, true, false};
  range = first_overlap(first.reads_, second.writes_);
  return {range, false, range.bytes > 0};
}

}  // namespace bireal::emulator
