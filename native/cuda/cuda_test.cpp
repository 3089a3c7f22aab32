// The parts of native/cuda that no op's test covers: which image is loaded, the relabelled PTX, the limits of the compiled
// kernels, errors.
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "cuda/device.h"
#include "cuda/launch.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;
using cuda::ImageKind;

TEST(CudaImages, MachineCodeNeedsADriverAsNewAsTheToolkit) {
  EXPECT_EQ(cuda::choose_image_kind(13000, 13000), ImageKind::kMachineCode);
  EXPECT_EQ(cuda::choose_image_kind(13010, 13000), ImageKind::kMachineCode);
  EXPECT_EQ(cuda::choose_image_kind(12060, 13000), ImageKind::kOldPtx);
}

TEST(CudaImages, RelabelledPtxLosesItsLineInformationOnly) {
  const std::string text =
      ".version 9.0\n.target sm_75\n\t.file\t1 \"a.cu\"\n.visible .entry one_f32_kernel(\n)\n{\n\t.loc\t1 2 3\n\tret;\n}\n"
      ".visible .entry two_kernel(\n)\n{\nret;\n}\n\t.section\t.debug_str\n\t{\n.b8 95,90\n\t}\n.visible .global .u32 after;\n";
  EXPECT_EQ(cuda::relabelled_ptx(text, "6.4"),
            ".version 6.4\n.target sm_75\n.visible .entry one_f32_kernel(\n)\n{\n\tret;\n}\n.visible .entry "
            "two_kernel(\n)\n{\nret;\n}\n"
            ".visible .global .u32 after;\n");
  EXPECT_EQ(cuda::kernel_names(text), (std::vector<std::string>{"one_f32_kernel", "two_kernel"}));
}

TEST(CudaImages, PtxasTakesTheRelabelledPtxOfEveryFile) {
  const std::string folder = ::testing::TempDir();
  ASSERT_FALSE(cuda::images().empty());
  for (const cuda::Image& image : cuda::images()) {
    SCOPED_TRACE(image.name);
    const std::string path = folder + "bireal_relabelled.ptx";
    std::ofstream(path) << cuda::relabelled_ptx(image.ptx, image.relabel_to);
    const std::string command = std::string(BIREAL_PTXAS) + " -O0 -arch=sm_" + std::to_string(image.minimum_sm) + " -o " +
                                folder + "bireal_relabelled.cubin " + path + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    std::string output;
    char buffer[256];
    while (std::fgets(buffer, sizeof buffer, pipe)) output += buffer;
    EXPECT_EQ(pclose(pipe), 0) << command << "\n" << output;
  }
}

// Limits of the table that the build writes (compile_kernels.cmake): what every kernel must keep on every target.
TEST(CudaImages, EveryKernelKeepsItsLimitsOnEveryTarget) {
  std::set<std::string> expected;
  for (const cuda::Image& image : cuda::images())
    for (int sm : {75, 80, 86, 89, 90, 100, 120})
      if (image.minimum_sm <= sm && sm <= image.maximum_sm)
        for (const std::string& kernel : cuda::kernel_names(image.ptx)) expected.insert(kernel + " sm_" + std::to_string(sm));
  std::set<std::string> seen;
  for (const cuda::Image& image : cuda::images()) {
    std::ifstream table(std::string(BIREAL_CUDA_IMAGES_DIR) + "/" + image.name + ".ptxas");
    std::string kernel;
    int sm, registers, shared_bytes, stack_bytes, spilled_bytes;
    while (table >> kernel >> sm >> registers >> shared_bytes >> stack_bytes >> spilled_bytes) {
      const std::string where = kernel + " sm_" + std::to_string(sm);
      EXPECT_TRUE(seen.insert(where).second) << where << " is there twice";
      EXPECT_EQ(stack_bytes, 0) << where << " uses local memory";
      EXPECT_EQ(spilled_bytes, 0) << where << " spills";
      EXPECT_LE(registers, 128) << where << ": two blocks of 256 threads must fit a multiprocessor";
      EXPECT_LE(shared_bytes, 24 * 1024) << where << ": two blocks must fit the 64 KB of compute capability 7.5";
    }
  }
  EXPECT_EQ(seen, expected);
}

TEST(CudaDriver, AMissingLibrarySaysWhatToDo) {
  try {
    cuda::Driver driver("/nowhere/libcuda.so.1");
    FAIL() << "loaded";
  } catch (const DeviceError& e) {
    EXPECT_NE(std::string(e.what()).find("/nowhere/libcuda.so.1"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("install the NVIDIA driver"), std::string::npos) << e.what();
    EXPECT_FALSE(e.fatal());
  }
}

TEST(CudaDriver, ALibraryThatIsNotADriverNamesWhatItLacks) {
  try {
    cuda::Driver driver("libm.so.6");
    FAIL() << "loaded";
  } catch (const DeviceError& e) {
    EXPECT_NE(std::string(e.what()).find("has no cuInit"), std::string::npos) << e.what();
  }
}

TEST(CudaDriver, StickyErrorsAreFatalAndOthersAreNot) {
  for (int code : {214, 700, 702, 709, 714, 715, 716, 717, 718, 719, 999}) EXPECT_TRUE(cuda::is_fatal(code)) << code;
  for (int code : {0, 1, 2, 100, 101, 200, 218, 222, 500, 600, 801, 900}) EXPECT_FALSE(cuda::is_fatal(code)) << code;
}

class CudaDeviceTest : public CudaTest {};

TEST_F(CudaDeviceTest, HasEveryKernelThatItsGenerationCanRun) {
  const cuda::Device& device = cuda_device();
  for (const cuda::Image& image : cuda::images())
    for (const std::string& kernel : cuda::kernel_names(image.ptx))
      EXPECT_EQ(device.has_kernel(kernel), image.minimum_sm <= device.sm() && device.sm() <= image.maximum_sm) << kernel;
  try {
    device.function("no_such_kernel");
    FAIL() << "found";
  } catch (const InvalidArgument& e) {
    EXPECT_NE(std::string(e.what()).find("cuda: no kernel no_such_kernel for "), std::string::npos) << e.what();
  }
}

TEST_F(CudaDeviceTest, AnOrdinalThatDoesNotExistIsRefusedWithTheCount) {
  cuda::Device::Config config;
  config.library = cuda_library();
  config.ordinal = 99;
  try {
    cuda::Device device(config);
    FAIL() << "opened";
  } catch (const InvalidArgument& e) {
    EXPECT_NE(std::string(e.what()).find("cuda: device 99 does not exist; this machine has "), std::string::npos) << e.what();
  }
}

TEST_F(CudaDeviceTest, ALaunchThatTheDriverRefusesNamesItsKernel) {
  struct {
    char bytes[64];
  } p{};
  try {
    cuda::launch(cuda_device(), "weight_binarize_fwd_kernel", cuda::LaunchShape(2048, 1), p, cuda_stream());
    FAIL() << "launched";
  } catch (const DeviceError& e) {
    EXPECT_EQ(e.op(), "weight_binarize_fwd_kernel");
    EXPECT_FALSE(e.fatal());
  }
  if (cuda_is_emulated()) emulator<void()>("bireal_emulator_clear")();
  EXPECT_THROW(cuda::launch(cuda_device(), "weight_binarize_fwd_kernel", cuda::LaunchShape(128, 1, 70000), p, cuda_stream()),
               InvalidArgument);
}

TEST_F(CudaDeviceTest, LoadsTheRelabelledPtxToo) {
  cuda::Device::Config config;
  config.library = cuda_library();
  config.images = cuda::Device::Config::Images::kOldPtx;
  cuda::Device device(config);
  EXPECT_EQ(device.image_kind(), ImageKind::kOldPtx);
}

}  // namespace bireal
