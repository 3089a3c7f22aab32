// Replaces the embedded kernels by PTX files from the folder BIREAL_PTX_DIR, so that scripts/mutate_kernels.sh can run the tests
// on changed kernels without linking again. Part of the target bireal_mutants only.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <list>

#include "core/error.h"
#include "cuda/images.h"

namespace bireal::cuda {

const std::vector<Image>& images() {
  static std::list<std::string> texts;  // keeps what the images point to
  static const std::vector<Image> list = [] {
    const char* folder = std::getenv("BIREAL_PTX_DIR");
    require(folder != nullptr, "bireal_mutants: BIREAL_PTX_DIR must name the folder of the PTX files");
    std::vector<Image> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() != ".ptx") continue;
      std::ifstream file(entry.path());
      const std::string& name = texts.emplace_back(entry.path().stem().string());
      const std::string& text = texts.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
      const bool sm80 = name.find("_sm80") != std::string::npos, to90 = name.find("_sm80to90") != std::string::npos;
      found.push_back({name.c_str(), sm80 ? 80 : 75, to90 ? 90 : 999, text.c_str(), nullptr, ""});
    }
    return found;
  }();
  return list;
}

int toolkit_version() { return 13000; }

}  // namespace bireal::cuda
