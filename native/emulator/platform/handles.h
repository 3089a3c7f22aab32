// handles: numbers for opaque objects of the stand-in libraries. No number is used twice, so a stale handle is recognised.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

namespace bireal::emulator {

template <class T>
class Handles {
 public:
  /// `tag` keeps kinds apart.
  explicit Handles(uint64_t tag) : tag_(tag << 40) {}
  uint64_t create() {
    std::lock_guard<std::mutex> lock(mutex_);
    uint64_t handle = tag_ | next_++ << 4;
    objects_[handle] = std::make_unique<T>();
    return handle;
  }
  /// nullptr for a handle that is none.
  T* get(uint64_t handle) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second.get();
  }
  bool destroy(uint64_t handle) {
    std::lock_guard<std::mutex> lock(mutex_);
    return objects_.erase(handle) > 0;
  }

 private:
  uint64_t tag_, next_ = 1;
  std::mutex mutex_;
  std::map<uint64_t, std::unique_ptr<T>> objects_;
};

}  // namespace bireal::emulator
