// The two errors that native code raises on purpose. native/jni/jni_guard.h turns them into Java exceptions.
#pragma once
#include <stdexcept>
#include <string>
#include <type_traits>

namespace bireal {

/// The caller passed a shape or value that the op cannot take. Thrown while planning, never while running.
class InvalidArgument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// A call into a device or library failed. `fatal` means that the device cannot be used any more.
class DeviceError : public std::runtime_error {
 public:
  DeviceError(std::string op, int code, const std::string& name, bool fatal)
      : std::runtime_error(op + " failed: " + name + " (" + std::to_string(code) + ")"),
        op_(std::move(op)),
        code_(code),
        fatal_(fatal) {}
  const std::string& op() const { return op_; }
  int code() const { return code_; }
  bool fatal() const { return fatal_; }

 private:
  std::string op_;
  int code_;
  bool fatal_;
};

/// Throws InvalidArgument(message) unless `condition`.
inline void require(bool condition, const char* message) {
  if (!condition) throw InvalidArgument(message);
}
inline void require(bool condition, const std::string& message) { require(condition, message.c_str()); }

/// The same for checks within a step, which allocates nothing: message() is called only where it is needed.
template <class Message, class = std::enable_if_t<std::is_invocable_v<const Message&>>>
void require(bool condition, const Message& message) {
  if (!condition) throw InvalidArgument(message());
}

}  // namespace bireal
