// The second pass: a kernel's declarations, labels and instructions; device functions are expanded where they are called.
#include "emulator/ptx/parser.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "emulator/ptx/machine.h"

namespace bireal::ptx {

int type_bytes(const std::string& t) {
  if (t == "f16x2" || t == "bf16x2" || t == "b16x2" || t == "u16x2" || t == "s16x2") return 4;
  if (t == "bf16") return 2;
  if (t.size() < 2 || !strchr("subf", t[0]) || !isdigit(static_cast<unsigned char>(t[1]))) return 0;
  char* end = nullptr;
  long bits = strtol(t.c_str() + 1, &end, 10);
  return *end == 0 && (bits == 8 || bits == 16 || bits == 32 || bits == 64 || bits == 128) ? int(bits / 8) : 0;
}

bool Decoder::take(const char* name) {
  taken_.resize(modifiers.size());
  for (size_t i = 0; i < modifiers.size(); ++i)
    if (modifiers[i] == name) {
      taken_[i] = true;
      return true;
    }
  return false;
}

std::string Decoder::modifier(size_t index) {
  taken_.resize(modifiers.size());
  if (index >= modifiers.size()) fail("a modifier is missing");
  taken_[index] = true;
  return modifiers[index];
}

std::string Decoder::rounding() {
  for (const char* r : {"rn", "rz", "rm", "rp"})
    if (take(r)) return r;
  return "rn";
}

void Decoder::check_modifiers() const {
  for (size_t i = 0; i < modifiers.size(); ++i)
    if (!understood(i)) fail("modifier ." + modifiers[i] + " is not supported here");
}

std::vector<std::string> Decoder::vector(const std::string& text) const {
  if (text.empty() || text[0] != '{') return {text};
  return split_operands(text.substr(1, text.size() - 2));
}

void Decoder::expect_operands(size_t least, size_t most) const {
  if (operands.size() < least || operands.size() > most)
    fail("expected " + std::to_string(least) + (most > least ? " to " + std::to_string(most) : std::string()) +
         " operands, found " + std::to_string(operands.size()));
}

void Decoder::registers(const int* bytes, size_t count) {
  expect_operands(count, count);
  in.args[0] = dest(operands[0], bytes[0]);
  for (size_t i = 1; i < count; ++i) in.args[i] = source(operands[i], bytes[i]);
}

std::unique_ptr<Module> ModuleBuilder::build() {
  size_t entries = 0;
  for (const Function& f : functions_) entries += f.entry;
  module_->kernels_.reserve(entries);
  for (const Function& f : functions_)
    if (f.entry) build_kernel(f);
  return std::move(module_);
}

void ModuleBuilder::build_kernel(const Function& f) {
  module_->kernels_.emplace_back();
  kernel_ = &module_->kernels_.back();
  kernel_->name = f.name;
  code_ = std::make_shared<KernelCode>();
  code_->name = f.name;
  code_->files = files_;
  registers_.assign(1, {});
  symbols_.assign(1, {});
  scope_floor_ = 0;
  labels_.clear();
  branch_fixes_.clear();
  tables_.clear();
  table_fixes_.clear();
  constants_.clear();
  specials_.clear();
  wide_registers_.clear();
  place_index_.clear();
  dynamic_shared_uses_.clear();
  label_scope_.clear();
  inline_count_ = 0;
  auto attributes = words(f.attributes);
  for (size_t i = 0; i < attributes.size(); ++i)
    if (attributes[i] == ".maxntid" || attributes[i] == ".reqntid") {
      std::string rest;
      for (size_t k = i + 1; k < attributes.size() && attributes[k][0] != '.'; ++k) rest += attributes[k];
      kernel_->max_threads = 1;
      for (const std::string& n : split_operands(rest)) kernel_->max_threads *= uint32_t(std::max(1, atoi(n.c_str())));
    }
  for (const std::string& p : f.parameters) {
    statement_ = p;
    Declaration d = declaration(p);
    uint32_t offset = uint32_t((kernel_->parameter_bytes + d.align - 1) / d.align * d.align);
    kernel_->parameters.push_back({offset, uint32_t(d.bytes)});
    kernel_->parameter_bytes = offset + uint32_t(d.bytes);
    symbols_[0][d.name] = {Space::kParameter, offset, false};
  }
  // Module-scope shared variables: each kernel that could use them gets them; nvcc puts every __shared__ of a template there.
  std::string whole;
  for (size_t i = f.first; i < f.last; ++i) whole += statements_[i].text + "\n";
  bool may_call = functions_.size() > module_->kernels_.capacity();
  for (const Declaration& d : module_shared_) {
    if (d.open_array) {
      symbols_[0][d.name] = {Space::kShared, 0, true};
    } else if (may_call || whole.find(d.name) != std::string::npos) {
      uint32_t offset = uint32_t((kernel_->static_shared_bytes + d.align - 1) / d.align * d.align);
      kernel_->static_shared_bytes = offset + uint32_t(d.bytes);
      symbols_[0][d.name] = {Space::kShared, offset, false};
    }
  }
  body(f.first, f.last, "", 0);
  statement_ = "ret";
  line_ = f.last > f.first ? statements_[f.last - 1].line : line_;
  instruction("ret", "", 0);
  for (auto& fix : branch_fixes_) {
    auto label = labels_.find(fix.second);
    line_ = code_->code[fix.first].ptx_line;
    statement_ = code_->texts[fix.first];
    if (label == labels_.end()) fail("label not found");
    code_->code[fix.first].target = label->second;
  }
  for (auto& fix : table_fixes_)
    for (size_t i = 0; i < fix.second.size(); ++i) {
      auto label = labels_.find(fix.second[i]);
      statement_ = fix.second[i];
      if (label == labels_.end()) fail("label of a branch table not found");
      code_->tables[fix.first][i] = label->second;
    }
  uint32_t dynamic = (kernel_->static_shared_bytes + 15) / 16 * 16;
  for (auto& use : dynamic_shared_uses_)
    for (int lane = 0; lane < kLanes; ++lane) {
      uint64_t value = 0;
      uint8_t* at = &code_->pool[use.first + size_t(lane * use.second)];
      std::memcpy(&value, at, size_t(use.second));
      value += dynamic;
      std::memcpy(at, &value, size_t(use.second));
    }
  kernel_->local_bytes = (kernel_->local_bytes + 15) / 16 * 16;
  place_registers(*code_, wide_registers_);
  kernel_->code = code_;
  code_.reset();
}

void ModuleBuilder::body(size_t first, size_t last, const std::string& return_label, int depth) {
  for (size_t i = first; i < last; ++i) {
    const Statement& s = statements_[i];
    line_ = s.line;
    place_ = place_of(s.location);
    statement_ = s.text;
    switch (s.kind) {
      case Statement::kOpen:
        registers_.emplace_back();
        symbols_.emplace_back();
        break;
      case Statement::kClose:
        registers_.pop_back();
        symbols_.pop_back();
        break;
      case Statement::kLabel: {
        // "name: .branchtargets a, b;" is a table, not a place
        if (i + 1 < last && statements_[i + 1].kind == Statement::kText &&
            starts_with(statements_[i + 1].text, ".branchtargets")) {
          std::vector<std::string> targets;
          for (const std::string& t : split_operands(statements_[i + 1].text.substr(14))) targets.push_back(label_key(t));
          tables_[label_key(s.text)] = targets;
          ++i;
        } else if (i + 1 < last && starts_with(statements_[i + 1].text, ".callprototype")) {
          ++i;  // only indirect calls need it, and those are refused
        } else {
          labels_[label_key(s.text)] = int32_t(code_->code.size());
        }
        break;
      }
      case Statement::kText: statement(s.text, return_label, depth); break;
    }
  }
}

void ModuleBuilder::statement(const std::string& text, const std::string& return_label, int depth) {
  if (text.empty()) return;
  if (text[0] == '.') {
    if (starts_with(text, ".pragma")) return;
    if (starts_with(text, ".reg")) return declare_registers(text);
    return local_declaration(text);
  }
  instruction(text, return_label, depth);
}

void ModuleBuilder::declare_registers(const std::string& text) {
  auto w = words(text);
  if (w.size() < 3) fail("declaration not understood");
  std::string type = w[1].substr(1);
  int bytes = type == "pred" ? 0 : type_bytes(type);
  if (type != "pred" && bytes == 0) fail("register type not supported");
  if (bytes == 16) fail("128-bit registers are not supported");
  auto add = [&](const std::string& name) {
    Register r;
    r.bytes = bytes;
    if (bytes == 0) {
      r.at = code_->predicate_count++;
    } else {
      r.at = code_->register_bytes;
      if (bytes > 4) wide_registers_.push_back({r.at});
      code_->register_bytes += kLanes * (bytes <= 4 ? 4 : 8);
      if (code_->register_bytes >= Operand::kWritten) fail("too many registers");
    }
    registers_.back()[name] = r;
  };
  for (const std::string& item : split_operands(text.substr(text.find(w[1]) + w[1].size()))) {
    size_t open = item.find('<');
    if (open == std::string::npos) {
      add(item);
    } else {
      int count = atoi(item.c_str() + open + 1);
      for (int i = 0; i < count; ++i) add(item.substr(0, open) + std::to_string(i));
    }
  }
}

void ModuleBuilder::local_declaration(const std::string& text) {
  Declaration d = declaration(text);
  std::string space = words(text)[0];
  if (space == ".shared") {
    if (d.open_array) {
      symbols_.back()[d.name] = {Space::kShared, 0, true};
      return;
    }
    uint32_t offset = uint32_t((kernel_->static_shared_bytes + d.align - 1) / d.align * d.align);
    kernel_->static_shared_bytes = offset + uint32_t(d.bytes);
    symbols_.back()[d.name] = {Space::kShared, offset, false};
  } else if (space == ".local" || space == ".param") {  // .param within a body: arguments of a call, kept in local memory
    uint32_t offset = uint32_t((kernel_->local_bytes + d.align - 1) / d.align * d.align);
    kernel_->local_bytes = offset + uint32_t(d.bytes);
    symbols_.back()[d.name] = {Space::kLocal, offset, false};
  } else {
    fail("declaration not supported in a function");
  }
}

void ModuleBuilder::instruction(const std::string& text, const std::string& return_label, int depth) {
  in = Instruction();
  taken_.clear();
  modifiers.clear();
  std::string rest = text;
  if (rest[0] == '@') {
    size_t end = rest.find_first_of(" \t");
    std::string guard = rest.substr(1, end - 1);
    if (guard[0] == '!') {
      in.guard_negated = true;
      guard = guard.substr(1);
    }
    const Register* r = find_register(guard);
    if (!r || r->bytes) fail("guard is no predicate");
    in.guard = r->at;
    rest = trim(rest.substr(end));
  }
  size_t end = rest.find_first_of(" \t");
  std::string op = rest.substr(0, end);
  operands = end == std::string::npos ? std::vector<std::string>() : split_operands(rest.substr(end));
  size_t dot = op.find('.');
  opcode = op.substr(0, dot);
  for (size_t next; dot != std::string::npos; dot = next) {
    next = op.find('.', dot + 1);
    modifiers.push_back(op.substr(dot + 1, next - dot - 1));
  }
  taken_.resize(modifiers.size());
  if (opcode == "call") return call(depth);
  bool known = control(return_label, depth) || decode_memory(*this) || decode_atomic(*this) || decode_convert(*this) ||
               decode_half(*this) || decode_float(*this) || decode_integer(*this) || decode_warp(*this) ||
               decode_barrier(*this) || decode_tensor(*this);
  if (!known || !in.run) fail("instruction not supported");
  check_modifiers();
  finish_instruction(text);
}

void ModuleBuilder::finish_instruction(const std::string& text) {
  auto place = place_index_.find(place_);
  if (place == place_index_.end()) {
    place = place_index_.emplace(place_, int32_t(code_->places.size())).first;
    code_->places.push_back(place_);
  }
  in.place = place->second;
  in.ptx_line = line_;
  bool shared = in.space == Space::kShared || in.space == Space::kGeneric;
  bool global = in.space == Space::kGlobal || in.space == Space::kConstant || in.space == Space::kGeneric;
  bool memory = in.bytes > 0;
  if (memory && (shared || in.category == InstructionClass::kAsyncCopy))
    code_->shared_granule = std::min<uint32_t>(code_->shared_granule, in.bytes);
  if (memory && (global || in.category == InstructionClass::kAsyncCopy))
    code_->global_granule = std::min<uint32_t>(code_->global_granule, in.bytes);
  code_->code.push_back(in);
  code_->texts.push_back(text);
}

bool ModuleBuilder::control(const std::string& return_label, int depth) {
  in.category = InstructionClass::kControl;
  if (opcode == "bra") {
    take("uni");
    expect_operands(1, 1);
    branch_fixes_.emplace_back(code_->code.size(), label_key(operands[0]));
    in.run = control_flow::branch;
  } else if (opcode == "brx") {
    take("idx");
    take("uni");
    expect_operands(2, 2);
    in.args[0] = source(operands[0], 4);
    auto table = tables_.find(label_key(operands[1]));
    if (table == tables_.end()) fail("branch table not found (it must stand before its use)");
    in.target = int32_t(code_->tables.size());
    table_fixes_.emplace_back(code_->tables.size(), table->second);
    code_->tables.emplace_back(table->second.size(), -1);
    in.run = control_flow::indexed_branch;
  } else if (opcode == "ret" && depth > 0) {
    take("uni");
    branch_fixes_.emplace_back(code_->code.size(), return_label);
    in.run = control_flow::branch;
  } else if (opcode == "ret" || opcode == "exit") {
    take("uni");
    in.run = control_flow::exit_lanes;
  } else if (opcode == "trap") {
    in.run = control_flow::trap;
  } else if (opcode == "nanosleep" || opcode == "discard" || opcode == "prefetch" || opcode == "prefetchu") {
    for (size_t i = 0; i < modifiers.size(); ++i) modifier(i);
    in.run = control_flow::nothing;
  } else {
    return false;
  }
  return true;
}

/// "call.uni (result), name, (arguments)": the body of the function, with registers and labels of its own.
void ModuleBuilder::call(int depth) {
  if (in.guard >= 0) fail("a predicated call is not supported");
  if (depth > 16) fail("calls are nested too deeply (recursion?)");
  take("uni");
  std::vector<std::string> results, arguments;
  std::string name;
  for (const std::string& o : operands) {
    if (o[0] == '(') {
      auto list = split_operands(o.substr(1, o.size() - 2));
      (name.empty() ? results : arguments) = list;
    } else if (name.empty()) {
      name = o;
    } else {
      fail("an indirect call is not supported");
    }
  }
  auto index = function_index_.find(name);
  if (index == function_index_.end())
    fail(name == "vprintf" ? "printf in a kernel is not supported" : "call of " + name + ", which this text does not define");
  const Function f = functions_[index->second];
  if (f.parameters.size() != arguments.size() || f.results.size() != results.size())
    fail("number of arguments differs from the declaration of " + name);
  std::map<std::string, Symbol> bound;
  for (const auto& g : symbols_[0])
    if (g.second.space == Space::kShared) bound.insert(g);
  auto bind = [&](const std::vector<std::string>& formal, const std::vector<std::string>& actual) {
    for (size_t i = 0; i < formal.size(); ++i) {
      const Symbol* s = find_symbol(actual[i]);
      if (!s) fail("argument " + actual[i] + " of a call must be a .param variable");
      bound[declaration(formal[i]).name] = *s;
    }
  };
  bind(f.parameters, arguments);
  bind(f.results, results);
  std::string scope = label_scope_;
  size_t floor = scope_floor_;
  label_scope_ = name + "#" + std::to_string(++inline_count_) + ":";
  scope_floor_ = registers_.size();
  registers_.emplace_back();
  symbols_.push_back(bound);
  std::string end = label_scope_ + "end of call";
  body(f.first, f.last, end, depth + 1);
  labels_[end] = int32_t(code_->code.size());
  registers_.pop_back();
  symbols_.pop_back();
  scope_floor_ = floor;
  label_scope_ = scope;
}

const Register* ModuleBuilder::find_register(const std::string& name) const {
  for (size_t i = registers_.size(); i-- > scope_floor_;) {
    auto r = registers_[i].find(name);
    if (r != registers_[i].end()) return &r->second;
  }
  return nullptr;
}

const Symbol* ModuleBuilder::find_symbol(const std::string& name) const {
  for (size_t i = symbols_.size(); i-- > scope_floor_;) {
    auto s = symbols_[i].find(name);
    if (s != symbols_[i].end()) return &s->second;
  }
  auto g = globals_.find(name);
  return g == globals_.end() ? nullptr : &g->second;
}

bool ModuleBuilder::is_number(const std::string& t) const {
  return !t.empty() && (isdigit(static_cast<unsigned char>(t[0])) ||
                        (t[0] == '-' && t.size() > 1 && isdigit(static_cast<unsigned char>(t[1]))));
}

/// 12, -3, 0x1F, 17U, 0f3F800000, 0d3FF0000000000000. A 0f constant widens where 8 bytes are asked for.
uint64_t ModuleBuilder::number(const std::string& text, int bytes) const {
  std::string t = text;
  if (t.size() == 10 && t[0] == '0' && (t[1] == 'f' || t[1] == 'F')) {
    uint32_t bits = uint32_t(strtoul(t.c_str() + 2, nullptr, 16));
    if (bytes != 8) return bits;
    float f;
    std::memcpy(&f, &bits, 4);
    double wide = f;
    uint64_t result;
    std::memcpy(&result, &wide, 8);
    return result;
  }
  if (t.size() == 18 && t[0] == '0' && (t[1] == 'd' || t[1] == 'D')) return strtoull(t.c_str() + 2, nullptr, 16);
  if (t.back() == 'U' || t.back() == 'u') t.pop_back();
  if (t.find_first_of(".eE") != std::string::npos && t.find('x') == std::string::npos)
    fail("decimal floating-point constant " + text + " is not supported");
  char* end = nullptr;
  uint64_t value = t[0] == '-' ? uint64_t(strtoll(t.c_str(), &end, 0)) : strtoull(t.c_str(), &end, 0);
  if (*end != 0) fail("constant " + text + " not understood");
  if (bytes < 8) value &= (1ull << (8 * bytes)) - 1;
  return value;
}

Operand ModuleBuilder::constant(uint64_t bits, int bytes) {
  int slot = bytes <= 4 ? 4 : 8;
  auto known = constants_.find({bits, slot});
  if (known == constants_.end()) {
    size_t at = (code_->pool.size() + 7) / 8 * 8;
    code_->pool.resize(at + size_t(kLanes * slot));
    for (int lane = 0; lane < kLanes; ++lane) std::memcpy(&code_->pool[at + size_t(lane * slot)], &bits, size_t(slot));
    known = constants_.emplace(std::make_pair(bits, slot), int32_t(at)).first;
  }
  return {~known->second};
}

Operand ModuleBuilder::special(const std::string& name, int bytes) {
  static const std::map<std::string, Special> known = {{"%tid.x", Special::kTidX},
                                                       {"%tid.y", Special::kTidY},
                                                       {"%tid.z", Special::kTidZ},
                                                       {"%ntid.x", Special::kNtidX},
                                                       {"%ntid.y", Special::kNtidY},
                                                       {"%ntid.z", Special::kNtidZ},
                                                       {"%ctaid.x", Special::kCtaidX},
                                                       {"%ctaid.y", Special::kCtaidY},
                                                       {"%ctaid.z", Special::kCtaidZ},
                                                       {"%nctaid.x", Special::kNctaidX},
                                                       {"%nctaid.y", Special::kNctaidY},
                                                       {"%nctaid.z", Special::kNctaidZ},
                                                       {"%laneid", Special::kLaneId},
                                                       {"%warpid", Special::kWarpId},
                                                       {"%nwarpid", Special::kNwarpId},
                                                       {"%lanemask_eq", Special::kLanemaskEq},
                                                       {"%lanemask_lt", Special::kLanemaskLt},
                                                       {"%lanemask_le", Special::kLanemaskLe},
                                                       {"%lanemask_gt", Special::kLanemaskGt},
                                                       {"%lanemask_ge", Special::kLanemaskGe},
                                                       {"%dynamic_smem_size", Special::kDynamicSharedBytes},
                                                       {"%total_smem_size", Special::kTotalSharedBytes},
                                                       {"%clock", Special::kClock},
                                                       {"%smid", Special::kSmId},
                                                       {"%nsmid", Special::kNsmId}};
  auto s = known.find(name);
  if (s == known.end()) fail("unknown register " + name);
  if (bytes > 4) fail("special register " + name + " has 32 bits");
  auto at = specials_.find(int(s->second));
  if (at == specials_.end()) {
    at = specials_.emplace(int(s->second), code_->register_bytes).first;
    code_->specials.emplace_back(s->second, code_->register_bytes);
    code_->register_bytes += kLanes * 4;
  }
  return {at->second | Operand::kRegister};
}

Operand ModuleBuilder::source(const std::string& text, int bytes) {
  if (const Register* r = find_register(text)) {
    if (r->bytes == 0) fail("predicate " + text + " where a value is expected");
    if ((r->bytes > 4) != (bytes > 4)) fail("register " + text + " has the wrong width");
    return {r->at | Operand::kRegister};
  }
  if (text[0] == '%') return special(text, bytes);
  if (text == "WARP_SZ") return constant(32, bytes);
  if (is_number(text)) return constant(number(text, bytes), bytes);
  size_t plus = text.find('+');
  const Symbol* s = find_symbol(trim(text.substr(0, plus)));
  if (!s) fail("unknown operand " + text);
  uint64_t value = s->value + (plus == std::string::npos ? 0 : number(trim(text.substr(plus + 1)), 8));
  if (!s->dynamic_shared) return constant(value, bytes);
  // the dynamic part begins behind the static one, whose size is known at the end only
  int slot = bytes <= 4 ? 4 : 8;
  size_t at = (code_->pool.size() + 7) / 8 * 8;
  code_->pool.resize(at + size_t(kLanes * slot));
  for (int lane = 0; lane < kLanes; ++lane) std::memcpy(&code_->pool[at + size_t(lane * slot)], &value, size_t(slot));
  dynamic_shared_uses_.emplace_back(at, slot);
  return {~int32_t(at)};
}

Operand ModuleBuilder::dest(const std::string& text, int bytes) {
  if (text == "_") return {};
  const Register* r = find_register(text);
  if (!r || r->bytes == 0) fail("unknown register " + text);
  if ((r->bytes > 4) != (bytes > 4)) fail("register " + text + " has the wrong width");
  return {r->at | Operand::kMarks};
}

Operand ModuleBuilder::predicate_source(const std::string& text) {
  const Register* r = find_register(text);
  if (r && r->bytes == 0) return {r->at};
  if (!is_number(text)) fail("unknown predicate " + text);
  return {number(text, 4) != 0 ? 1 : 0};
}

Operand ModuleBuilder::predicate_dest(const std::string& text) {
  if (text == "_") return {};
  const Register* r = find_register(text);
  if (!r || r->bytes) fail("unknown predicate " + text);
  return {r->at};
}

int ModuleBuilder::slot_bytes(const std::string& text) {
  const Register* r = find_register(text);
  return !r || r->bytes == 0 ? 0 : r->bytes <= 4 ? 4 : 8;
}

void ModuleBuilder::address(const std::string& text, int index) {
  if (text.size() < 3 || text.front() != '[' || text.back() != ']') fail("address expected");
  std::string inner = trim(text.substr(1, text.size() - 2));
  size_t sign = inner.find_first_of("+", 1);
  std::string base = trim(inner.substr(0, sign));
  if (sign != std::string::npos) in.offset = int64_t(number(trim(inner.substr(sign + 1)), 8));
  int width = slot_bytes(base);
  in.wide_address = width != 4;
  if (const Symbol* s = width ? nullptr : find_symbol(base))
    if (s->space == Space::kLocal && in.space == Space::kParameter) in.space = Space::kLocal;
  in.args[index] = source(base, in.wide_address ? 8 : 4);
}

const Kernel* Module::find_kernel(const std::string& name) const {
  for (const Kernel& k : kernels_)
    if (k.name == name) return &k;
  return nullptr;
}

const Variable* Module::find_variable(const std::string& name) const {
  for (const Variable& v : variables_)
    if (v.name == name) return &v;
  return nullptr;
}

const Kernel& Module::kernel(const std::string& name) const {
  if (const Kernel* k = find_kernel(name)) return *k;
  std::string names;
  for (const Kernel& k : kernels_) names += (names.empty() ? "" : ", ") + k.name;
  throw LoadError("no kernel '" + name + "' in the module; it has: " + (names.empty() ? "none" : names));
}

const Variable& Module::variable(const std::string& name) const {
  if (const Variable* v = find_variable(name)) return *v;
  std::string names;
  for (const Variable& v : variables_) names += (names.empty() ? "" : ", ") + v.name;
  throw LoadError("no variable '" + name + "' in the module; it has: " + (names.empty() ? "none" : names));
}

std::unique_ptr<Module> parse(const std::string& text, const std::string& name) {
  for (const char* feature : {"avx2", "fma", "f16c", "popcnt"}) {
    bool has = feature == std::string("avx2")   ? __builtin_cpu_supports("avx2")
               : feature == std::string("fma")  ? __builtin_cpu_supports("fma")
               : feature == std::string("f16c") ? __builtin_cpu_supports("f16c")
                                                : __builtin_cpu_supports("popcnt");
    if (!has) throw LoadError(std::string("the PTX interpreter needs a CPU with ") + feature);
  }
  return ModuleBuilder(text, name).build();
}

}  // namespace bireal::ptx
