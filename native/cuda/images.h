// The compiled kernels, one entry for each .cu file, embedded into the library by CMake; none where nvcc was missing.
#pragma once
#include <string>
#include <vector>

namespace bireal::cuda {

struct Image {
  const char* name;            // stem of the .cu file
  int minimum_sm, maximum_sm;  // GPUs that it is for: 75 and up, 80 and up (*_sm80.cu), 80 to 90 (*_sm80to90.cu)
  const char* ptx;             // what nvcc wrote, NUL-terminated
  const void* fatbin;          // machine code for every target, and PTX for targets to come
  const char* relabel_to;      // the lowest PTX version that the file's instructions allow
};

/// All images, and the toolkit that made them as cuDriverGetVersion counts (13000 is 13.0); 0 without kernels.
const std::vector<Image>& images();
int toolkit_version();

/// What is handed to the driver. kPtx is PTX as nvcc wrote it; kOldPtx is the same text under relabel_to.
enum class ImageKind { kMachineCode, kPtx, kOldPtx };
const char* image_kind_name(ImageKind kind);

/// Machine code and PTX of a toolkit need a driver at least as new; an older driver compiles the relabelled PTX itself.
ImageKind choose_image_kind(int driver_version, int toolkit_version);

/// The PTX with another .version, and without what older versions cannot express and nobody needs: line information, hints.
std::string relabelled_ptx(const std::string& ptx, const std::string& version);

/// Names of the kernels in a PTX text, in its order.
std::vector<std::string> kernel_names(const std::string& ptx);

}  // namespace bireal::cuda
