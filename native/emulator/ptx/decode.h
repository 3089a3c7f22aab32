// What the op files see of an instruction while it is loaded: its modifiers and operands as text, and how to place them.
#pragma once
#include <string>
#include <vector>

#include "emulator/ptx/code.h"

namespace bireal::ptx {

/// One statement, being turned into an Instruction. The parser implements the operand look-ups.
class Decoder {
 public:
  virtual ~Decoder() = default;

  Instruction in;
  std::string opcode;                  ///< "add"
  std::vector<std::string> modifiers;  ///< {"rn", "f32"}: all behind the opcode
  std::vector<std::string> operands;

  /// True where `.name` stands among the modifiers; it counts as understood from then on.
  bool take(const char* name);
  /// The modifier at `index` from the front, counted as understood.
  std::string modifier(size_t index);
  /// The last modifier: usually the type.
  std::string type() { return modifier(modifiers.size() - 1); }
  /// The rounding of floating point: "rn" where none is given.
  std::string rounding();
  /// Fails unless every modifier was understood.
  void check_modifiers() const;
  bool understood(size_t index) const { return taken_.size() > index && taken_[index]; }

  /// A register to read or a constant of `bytes` (1, 2, 4, 8); is_float lets a decimal constant be one.
  virtual Operand source(const std::string& text, int bytes) = 0;
  /// A register to write; `_` is none.
  virtual Operand dest(const std::string& text, int bytes) = 0;
  virtual Operand predicate_source(const std::string& text) = 0;
  virtual Operand predicate_dest(const std::string& text) = 0;
  /// 4 or 8: the width of a register's slot; 0 for what is no register.
  virtual int slot_bytes(const std::string& text) = 0;
  /// "[base+offset]" into args[index], offset and wide_address.
  virtual void address(const std::string& text, int index) = 0;
  /// "{a, b}" or "a".
  std::vector<std::string> vector(const std::string& text) const;
  /// The value of a constant operand, in its first 8 (or 4) bytes.
  virtual uint64_t constant_value(Operand o, int bytes = 8) const = 0;
  virtual void needs(bool fence, bool async_copy) = 0;
  /// Throws LoadError with the line and the statement.
  [[noreturn]] void fail(const std::string& what) const { throw LoadError(explain(what)); }
  void expect_operands(size_t least, size_t most) const;
  /// All operands into args: a destination and then sources, of `bytes` each.
  void registers(const int* bytes, size_t count);

 protected:
  virtual std::string explain(const std::string& what) const = 0;
  std::vector<bool> taken_;
};

/// Bytes of "f32", "b16x2" and so on; 0 for what is no type.
int type_bytes(const std::string& type);

// Each family: true where the opcode is its own; fails for a form of it that it does not know.
bool decode_integer(Decoder& d);
bool decode_float(Decoder& d);
bool decode_half(Decoder& d);
bool decode_convert(Decoder& d);
bool decode_memory(Decoder& d);
bool decode_atomic(Decoder& d);
bool decode_warp(Decoder& d);
bool decode_tensor(Decoder& d);
bool decode_barrier(Decoder& d);

}  // namespace bireal::ptx
