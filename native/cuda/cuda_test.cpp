// The parts of native/cuda that no op's test covers: which image is loaded, the relabelled PTX, the limits of the compiled
// kernels, errors.
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "cuda/device.h"
#include "cuda/launch.h"
#include "ops/sign_pack/sign_pack.h"
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

// Shared memory of a block, static and dynamic, after cuFuncSetAttribute (CUDA programming guide, "Technical specifications per
// compute capability").
static int most_shared_bytes(int sm) {
  switch (sm) {
    case 75: return 64 * 1024;
    case 80: return 163 * 1024;
    case 86:
    case 89:
    case 120: return 99 * 1024;
    default: return 227 * 1024;  // 9.0, 10.0
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
      if (image.minimum_sm >= 80) {  // as Device::load allows them
        EXPECT_LE(shared_bytes + cuda::kMoreSharedBytes, most_shared_bytes(sm)) << where;
      }
      if (kernel.rfind("binary_conv_fwd_popc", 0) == 0) {  // binary_conv_cuda.cpp asks for the rest of the 48 KB
        EXPECT_LE(shared_bytes, 1024) << where;
      }
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

TEST_F(CudaDeviceTest, ALaunchWithMoreSharedMemoryThanItsKernelMayHaveNamesIt) {
  struct {
    char bytes[4096];
  } p{};
  for (const auto& [kernel, most] : {std::pair("binary_conv_fwd_mma_narrow_kernel", cuda::kMoreSharedBytes),
                                     std::pair("binary_conv_fwd_popc_i16_kernel", cuda::kSharedBytes - 1024)}) {
    if (!cuda_device().has_kernel(kernel)) continue;
    try {
      cuda::launch(cuda_device(), kernel, cuda::LaunchShape(256, 1, 1, 1, most + 1), p, cuda_stream());
      FAIL() << kernel << " launched";
    } catch (const DeviceError& e) {
      EXPECT_EQ(e.op(), kernel);
      EXPECT_EQ(e.code(), 1) << "CUDA_ERROR_INVALID_VALUE";
      EXPECT_FALSE(e.fatal());
    }
    if (!cuda_is_emulated()) continue;
    EXPECT_EQ(std::string(emulator<const char*()>("bireal_emulator_last_error")()),
              std::string("cuLaunchKernel: ") + kernel + ": " + std::to_string(most + 1) +
                  " bytes of dynamic shared memory; allowed are " + std::to_string(most) + " (cuFuncSetAttribute raises it)");
    emulator<void()>("bireal_emulator_clear")();
  }
}

// By the driver: an older one than the toolkit is handed PTX that it compiles, a newer one the machine code.
TEST_F(CudaDeviceTest, AnOlderDriverRunsTheRelabelledPtx) {
  if (!cuda_is_emulated()) GTEST_SKIP() << "sets the driver's version";
  const EmulatorSetting older("driver_version", 12000);
  cuda::Device::Config config;
  config.library = cuda_library();
  config.synchronize = true;
  const cuda::Device device(config);
  EXPECT_EQ(device.image_kind(), ImageKind::kOldPtx);
  EXPECT_TRUE(device.has_kernel("binary_conv_fwd_mma_wide_kernel"));
  const int64_t rows = 5, C = 70;
  const std::vector<float> x = nasty_floats(rows * C, 1, true);
  Guarded<word_t> expected(rows * word_count(C));
  ref::sign_pack_fwd(expected.data(), x.data(), nullptr, rows, C);
  DeviceArray<float> device_x(x);
  DeviceArray<word_t> bits(expected.count());
  cuda::sign_pack_fwd(device, bits.data(), device_x.data(), DType::kF32, nullptr, rows, C, cuda_stream());
  expect_same_bits(bits.values(), expected, "bits");
}

TEST_F(CudaDeviceTest, ADriverAsNewAsTheToolkitIsHandedTheMachineCode) {
  if (!cuda_is_emulated()) GTEST_SKIP() << "the emulator refuses machine code by name";
  const EmulatorSetting as_new("driver_version", cuda::toolkit_version());
  cuda::Device::Config config;
  config.library = cuda_library();
  try {
    cuda::Device device(config);
    FAIL() << "loaded as " << cuda::image_kind_name(device.image_kind());
  } catch (const DeviceError& e) {
    EXPECT_EQ(e.op(), std::string("load kernels of ") + cuda::images()[0].name + " as machine code on " + cuda_device().name() +
                          ", driver " + std::to_string(cuda::toolkit_version()) +
                          " [cuModuleLoadData: the image is machine code; the emulator runs PTX text only, so hand it the PTX of "
                          "the same kernels]");
    EXPECT_EQ(e.code(), 209) << "CUDA_ERROR_NO_BINARY_FOR_GPU";
  }
  emulator<void()>("bireal_emulator_clear")();
}

TEST_F(CudaDeviceTest, LoadsTheRelabelledPtxToo) {
  cuda::Device::Config config;
  config.library = cuda_library();
  config.images = cuda::Device::Config::Images::kOldPtx;
  cuda::Device device(config);
  EXPECT_EQ(device.image_kind(), ImageKind::kOldPtx);
}

}  // namespace bireal
