// PTX text to Module: scanner.cpp cuts it into statements and reads the module level, parser.cpp builds the kernels.
#pragma once
#include <memory>

#include "emulator/ptx/decode.h"

namespace bireal::ptx {

std::string trim(const std::string& s);
/// Splits at commas outside brackets; "a|b" (two predicates) counts as two.
std::vector<std::string> split_operands(const std::string& text);
std::vector<std::string> words(const std::string& text);
bool starts_with(const std::string& s, const char* prefix);

/// A statement, a brace or a label, with its line.
struct Statement {
  enum Kind { kText, kOpen, kClose, kLabel } kind = kText;
  std::string text;
  int line = 0;
  int location = 0;  ///< index
};

/// A source position of .loc; the parent is where its function was inlined.
struct Location {
  int file = 0, line = 0, column = 0;
  bool operator<(const Location& o) const { return std::tie(file, line, column) < std::tie(o.file, o.line, o.column); }
};

struct Function {
  std::string name;
  bool entry = false;
  std::vector<std::string> parameters, results;  ///< declarations
  std::string attributes;
  size_t first = 0, last = 0;  ///< statements of the body
};

struct Symbol {
  Space space = Space::kGlobal;
  uint64_t value = 0;  ///< address or offset
  bool dynamic_shared = false;
};

struct Register {
  int32_t at = 0;
  int bytes = 0;  ///< 0: a predicate
};

struct Declaration {
  std::string name, type;
  uint64_t align = 1, bytes = 0;
  std::string initialiser;
  bool is_extern = false, open_array = false;
};

/// Builds a Module from text: one pass for declarations and functions, then one for each entry point.
class ModuleBuilder : public Decoder {
 public:
  ModuleBuilder(const std::string& text, const std::string& name) : module_name_(name) { scan(text); }
  std::unique_ptr<Module> build();

  Operand source(const std::string& text, int bytes) override;
  Operand dest(const std::string& text, int bytes) override;
  Operand predicate_source(const std::string& text) override;
  Operand predicate_dest(const std::string& text) override;
  int slot_bytes(const std::string& text) override;
  void address(const std::string& text, int index) override;
  uint64_t constant_value(Operand o, int bytes) const override {
    uint64_t value = 0;
    std::memcpy(&value, &code_->pool[size_t(~o.at)], size_t(bytes));
    return value;
  }
  void needs(bool fence, bool async_copy) override {
    code_->has_fence |= fence;
    code_->has_async_copy |= async_copy;
  }

 protected:
  std::string explain(const std::string& what) const override {
    return module_name_ + ":" + std::to_string(line_) + ": " + what + ": " + statement_ +
           (code_ ? " [kernel " + code_->name + "]" : "");
  }

 private:
  void scan(const std::string& text);
  void module_statement(const std::string& text);
  int add_location(const std::string& text);
  Place place_of(int location) const;
  Declaration declaration(const std::string& text) const;
  void add_variable(const Declaration& d, bool constant);
  void build_kernel(const Function& f);
  void body(size_t first, size_t last, const std::string& return_label, int depth);
  void statement(const std::string& text, const std::string& return_label, int depth);
  void local_declaration(const std::string& text);
  void instruction(const std::string& text, const std::string& return_label, int depth);
  bool control(const std::string& return_label, int depth);
  void call(int depth);
  void finish_instruction(const std::string& text);
  void declare_registers(const std::string& text);
  const Register* find_register(const std::string& name) const;
  const Symbol* find_symbol(const std::string& name) const;
  Operand constant(uint64_t bits, int bytes);
  Operand special(const std::string& name, int bytes);
  uint64_t number(const std::string& text, int bytes) const;
  bool is_number(const std::string& text) const;
  std::string label_key(const std::string& label) const { return label_scope_ + label; }

  std::string module_name_;
  std::vector<Statement> statements_;
  std::vector<Function> functions_;
  std::map<std::string, size_t> function_index_;
  std::unique_ptr<Module> module_;
  std::map<std::string, Symbol> globals_;
  std::vector<Declaration> module_shared_;
  std::vector<std::string> files_ = {""};
  std::vector<std::pair<Location, Location>> locations_ = {{}};  ///< each .loc and where it was inlined
  std::map<Location, Location> inlined_at_;

  // the kernel that is being built
  std::shared_ptr<KernelCode> code_;
  Kernel* kernel_ = nullptr;
  std::vector<std::map<std::string, Register>> registers_;
  std::vector<std::map<std::string, Symbol>> symbols_;
  size_t scope_floor_ = 0;  ///< scopes below it belong to the callers of the function that is being expanded
  std::map<std::string, int32_t> labels_;
  std::vector<std::pair<size_t, std::string>> branch_fixes_;
  std::map<std::string, std::vector<std::string>> tables_;  ///< labels of .branchtargets
  std::vector<std::pair<size_t, std::vector<std::string>>> table_fixes_;
  std::map<std::pair<uint64_t, int>, int32_t> constants_;
  std::map<int, int32_t> specials_;
  std::vector<Operand> wide_registers_;
  std::map<Place, int32_t> place_index_;
  std::string label_scope_;
  int inline_count_ = 0;
  std::vector<std::pair<size_t, int>> dynamic_shared_uses_;  ///< pool offset, bytes
  int line_ = 0;
  Place place_;
  std::string statement_;
};

}  // namespace bireal::ptx
