#include "cuda/images.h"

#include <cstring>

namespace bireal::cuda {

const char* image_kind_name(ImageKind kind) {
  switch (kind) {
    case ImageKind::kMachineCode: return "machine code";
    case ImageKind::kPtx: return "PTX";
    case ImageKind::kOldPtx: return "PTX for older drivers";
  }
  return "?";
}

ImageKind choose_image_kind(int driver_version, int toolkit_version) {
  return driver_version >= toolkit_version ? ImageKind::kMachineCode : ImageKind::kOldPtx;
}

// Calls body(begin, end) for every line of text, without its newline.
template <class Body>
static void for_each_line(const std::string& text, const Body& body) {
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    body(begin, end);
    begin = end + 1;
  }
}

static bool starts_with(const std::string& text, size_t begin, const char* word) {
  return text.compare(begin, std::strlen(word), word) == 0;
}

std::string relabelled_ptx(const std::string& ptx, const std::string& version) {
  std::string out;
  out.reserve(ptx.size());
  bool in_section = false;
  for_each_line(ptx, [&](size_t begin, size_t end) {
    size_t word = ptx.find_first_not_of(" \t", begin);
    if (word == std::string::npos || word > end) word = end;
    if (starts_with(ptx, word, ".version")) {
      out += ".version " + version + "\n";
      return;
    }
    // A debug section is ".section .debug_str", then lines in braces.
    if (starts_with(ptx, word, ".section")) in_section = true;
    bool line_information = in_section || starts_with(ptx, word, ".loc") || starts_with(ptx, word, ".file");
    bool hint = starts_with(ptx, word, ".pragma \"used_bytes_mask");  // which bytes of a load are needed: 8.3
    if (in_section && ptx.find('}', word) < end) in_section = false;
    if (!line_information && !hint) out.append(ptx, begin, end - begin).append("\n");
  });
  return out;
}

std::vector<std::string> kernel_names(const std::string& ptx) {
  const std::string marker = ".visible .entry ";
  std::vector<std::string> names;
  for (size_t at = ptx.find(marker); at != std::string::npos; at = ptx.find(marker, at)) {
    at += marker.size();
    names.push_back(ptx.substr(at, ptx.find('(', at) - at));
  }
  return names;
}

}  // namespace bireal::cuda
