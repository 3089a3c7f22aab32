// The first pass over PTX text: statements, functions, source lines, variables of the module.
#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "emulator/ptx/parser.h"

namespace bireal::ptx {

static constexpr char kBlanks[] = " \t\r\n";

std::string trim(const std::string& s) {
  size_t a = s.find_first_not_of(kBlanks), b = s.find_last_not_of(kBlanks);
  return a == std::string::npos ? "" : s.substr(a, b - a + 1);
}

/// Splits at commas outside brackets; "a|b" (two predicates) counts as two.
std::vector<std::string> split_operands(const std::string& text) {
  std::vector<std::string> parts;
  std::string part;
  int depth = 0;
  for (char c : text) {
    if (c == '{' || c == '[' || c == '(') ++depth;
    if (c == '}' || c == ']' || c == ')') --depth;
    if ((c == ',' || c == '|') && depth == 0) {
      parts.push_back(trim(part));
      part.clear();
    } else {
      part += c;
    }
  }
  if (!trim(part).empty()) parts.push_back(trim(part));
  return parts;
}

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> result;
  for (size_t end = 0;;) {
    const size_t begin = text.find_first_not_of(kBlanks, end);
    if (begin == std::string::npos) return result;
    end = text.find_first_of(kBlanks, begin);
    result.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return result;
  }
}

bool starts_with(const std::string& s, const char* prefix) { return s.rfind(prefix, 0) == 0; }

/// Cuts the text into statements; collects functions; runs the module-level ones.
void ModuleBuilder::scan(const std::string& text) {
  module_ = std::make_unique<Module>();
  std::string token;  // without blanks at its front
  int line = 1, token_line = 1, depth = 0, operand_braces = 0;
  bool in_function = false;
  int location = 0;
  auto flush = [&](Statement::Kind kind) {
    Statement s;
    s.kind = kind;
    s.text = trim(token);
    s.line = token_line;
    s.location = location;
    statements_.push_back(std::move(s));
    token.clear();
  };
  auto directive_line = [&](const std::string& t) {
    if (starts_with(t, ".loc")) {
      location = add_location(t);
      return true;
    }
    if (starts_with(t, ".file")) {
      size_t a = t.find('"'), b = t.rfind('"');
      size_t index = size_t(atoi(t.c_str() + 5));
      if (a != std::string::npos && b > a && index < 100000) {
        if (files_.size() <= index) files_.resize(index + 1);
        files_[index] = t.substr(a + 1, b - a - 1);
      }
      return true;
    }
    if (starts_with(t, ".version")) {
      module_->version_ = atof(t.c_str() + 8);
      return true;
    }
    if (starts_with(t, ".target")) {
      size_t p = t.find("sm_");
      module_->target_ = p == std::string::npos ? 0 : atoi(t.c_str() + p + 3);
      return true;
    }
    if (starts_with(t, ".address_size")) {
      if (t.find("64") == std::string::npos) {
        statement_ = t;
        line_ = line;
        fail("only 64-bit addresses");
      }
      return true;
    }
    return false;
  };
  for (size_t i = 0; i <= text.size(); ++i) {
    char c = i < text.size() ? text[i] : '\n';
    if (c == 0) break;
    if (c == '/' && i + 1 < text.size() && text[i + 1] == '/') {
      while (i < text.size() && text[i] != '\n') ++i;
      c = '\n';
    } else if (c == '/' && i + 1 < text.size() && text[i + 1] == '*') {
      size_t end = text.find("*/", i);
      if (end == std::string::npos) break;
      line += int(std::count(text.begin() + long(i), text.begin() + long(end), '\n'));
      i = end + 1;
      continue;
    }
    if (c == '\n') {
      if (starts_with(token, ".section")) break;  // debug information: nothing executable follows
      if (!token.empty() && token[0] == '.' && directive_line(trim(token)))
        token.clear();
      else if (!token.empty())
        token += ' ';
      ++line;
      continue;
    }
    if (token.empty()) {
      token_line = line;
      if (c == ' ' || c == '\t' || c == '\r') continue;
    }
    if (!in_function) {
      if (c == '{') {
        std::string t = trim(token);
        bool entry = t.find(".entry") != std::string::npos;
        if (entry || t.find(".func") != std::string::npos) {
          Function f;
          f.entry = entry;
          size_t at = t.find(entry ? ".entry" : ".func") + (entry ? 6 : 5);
          std::string head = trim(t.substr(at));
          auto parameter_list = [&]() {
            size_t close = head.find(')');
            auto list = split_operands(head.substr(1, close - 1));
            head = trim(head.substr(close + 1));
            return list;
          };
          if (!entry && !head.empty() && head[0] == '(') f.results = parameter_list();
          size_t name_end = head.find_first_of(" (\t");
          f.name = head.substr(0, name_end);
          head = name_end == std::string::npos ? "" : trim(head.substr(name_end));
          if (!head.empty() && head[0] == '(') f.parameters = parameter_list();
          f.attributes = head;
          f.first = statements_.size();
          functions_.push_back(f);
          in_function = true;
          depth = 1;
          token.clear();
          location = 0;
          continue;
        }
      }
      if (c == ';') {
        line_ = token_line;
        statement_ = trim(token);
        module_statement(statement_);
        token.clear();
        continue;
      }
      token += c;
      continue;
    }
    if (c == '{') {
      if (token.empty()) {
        ++depth;
        flush(Statement::kOpen);
        continue;
      }
      ++operand_braces;
    } else if (c == '}') {
      if (operand_braces > 0) {
        --operand_braces;
      } else if (--depth == 0) {
        functions_.back().last = statements_.size();
        function_index_[functions_.back().name] = functions_.size() - 1;
        in_function = false;
        token.clear();
        continue;
      } else {
        token.clear();
        flush(Statement::kClose);
        continue;
      }
    } else if (c == ';') {
      flush(Statement::kText);
      continue;
    } else if (c == ':' && operand_braces == 0 && trim(token).find(' ') == std::string::npos && !token.empty() &&
               (i + 1 >= text.size() || text[i + 1] != ':')) {
      flush(Statement::kLabel);
      continue;
    }
    token += c;
  }
  if (in_function) {
    statement_ = functions_.back().name;
    line_ = line;
    fail("the text ends within a function");
  }
}

/// ".loc file line column, function_name name, inlined_at file line column".
int ModuleBuilder::add_location(const std::string& text) {
  auto read = [](const std::string& numbers) {
    Location l;
    char* end = nullptr;
    l.file = int(strtol(numbers.c_str(), &end, 10));
    l.line = int(strtol(end, &end, 10));
    l.column = int(strtol(end, &end, 10));
    return l;
  };
  locations_.emplace_back(read(text.substr(4)), Location());
  size_t at = text.find("inlined_at");
  if (at != std::string::npos) inlined_at_[locations_.back().first] = locations_.back().second = read(text.substr(at + 10));
  return int(locations_.size()) - 1;
}

/// The line of an instruction; for code of the toolkit's headers the line that called it.
Place ModuleBuilder::place_of(int location) const {
  Location l = locations_[size_t(location)].first, caller = locations_[size_t(location)].second;
  for (int depth = 0; depth < 32 && caller.line; ++depth) {
    const std::string& file = l.file < int(files_.size()) ? files_[size_t(l.file)] : files_[0];
    if (file.find("/include/") == std::string::npos || file.find("cuda") == std::string::npos) break;
    l = caller;
    auto next = inlined_at_.find(l);
    caller = next == inlined_at_.end() ? Location() : next->second;
  }
  return {l.file, l.line};
}

Declaration ModuleBuilder::declaration(const std::string& text) const {
  Declaration d;
  std::string head = text;
  size_t eq = text.find('=');
  if (eq != std::string::npos) {
    head = trim(text.substr(0, eq));
    d.initialiser = trim(text.substr(eq + 1));
  }
  auto w = words(head);
  for (size_t i = 0; i < w.size(); ++i) {
    if (w[i] == ".align" && i + 1 < w.size()) {
      d.align = uint64_t(atoi(w[++i].c_str()));
    } else if (w[i] == ".ptr" || w[i] == ".extern") {
      d.is_extern |= w[i] == ".extern";
    } else if (w[i][0] == '.') {
      if (type_bytes(w[i].substr(1)) && d.type.empty()) d.type = w[i].substr(1);
    } else {
      d.name = w[i];
      for (++i; i < w.size(); ++i) d.name += w[i];
    }
  }
  if (d.type.empty() || d.name.empty()) fail("declaration not understood");
  d.bytes = uint64_t(type_bytes(d.type));
  d.align = std::max<uint64_t>(d.align, d.bytes);
  size_t bracket = d.name.find('[');
  if (bracket != std::string::npos) {
    std::string dims = d.name.substr(bracket);
    d.name = d.name.substr(0, bracket);
    while (!dims.empty() && dims[0] == '[') {
      size_t close = dims.find(']');
      std::string count = dims.substr(1, close - 1);
      if (count.empty()) d.open_array = true;
      d.bytes *= count.empty() ? 0 : strtoull(count.c_str(), nullptr, 0);
      dims = dims.substr(close + 1);
    }
  }
  return d;
}

void ModuleBuilder::module_statement(const std::string& text) {
  if (text.empty() || starts_with(text, ".pragma")) return;
  if (text.find(".func") != std::string::npos || text.find(".entry") != std::string::npos) return;  // a forward declaration
  auto w = words(text);
  auto has = [&](const char* word) { return std::find(w.begin(), w.end(), word) != w.end(); };
  if (has(".shared")) return module_shared_.push_back(declaration(text));
  if (has(".const")) return add_variable(declaration(text), true);
  if (has(".global")) return add_variable(declaration(text), false);
  if (has(".alias")) return;
  fail("module-level statement not supported");
}

void ModuleBuilder::add_variable(const Declaration& d, bool constant) {
  if (d.is_extern) fail("extern variables are not supported: there is no linker");
  auto storage = std::make_unique<uint64_t[]>(size_t(d.bytes / 8 + 3));
  // 16-byte aligned; larger alignments are not needed by any access
  uint64_t address = (reinterpret_cast<uint64_t>(storage.get()) + 15) / 16 * 16;
  if (!d.initialiser.empty()) {
    std::string flat;
    for (char c : d.initialiser)
      if (c != '{' && c != '}') flat += c;
    int bytes = type_bytes(d.type);
    uint64_t at = 0;
    for (const std::string& item : split_operands(flat)) {
      if (at + uint64_t(bytes) > d.bytes) fail("too many initialisers");
      uint64_t value;
      if (is_number(item)) {
        value = number(item, bytes);
      } else {
        auto g = globals_.find(item.rfind("generic(", 0) == 0 ? item.substr(8, item.size() - 9) : item);
        if (g == globals_.end()) fail("initialiser not understood: " + item);
        value = g->second.value;
      }
      std::memcpy(reinterpret_cast<void*>(address + at), &value, size_t(bytes));
      at += uint64_t(bytes);
    }
  }
  module_->storage_.push_back(std::move(storage));
  module_->variables_.push_back({d.name, address, d.bytes, constant});
  globals_[d.name] = {constant ? Space::kConstant : Space::kGlobal, address, false};
}

}  // namespace bireal::ptx
