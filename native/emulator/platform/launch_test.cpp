// Modules and kernel launches on the stand-in driver. The kernels are PTX text, so these tests need no nvcc.
#include <cmath>
#include <cstring>

#include "emulator/platform/platform_testing.h"

namespace bireal::emulator::testing {
namespace {

// scale_kernel: x[i] = x[i] * factor;  copy_kernel: y[i] = x[i];  shared_kernel: writes its dynamic shared memory.
const char kPtx[] = R"(
.version 6.4
.target sm_75
.address_size 64
.visible .global .align 4 .f32 factor;
.extern .shared .align 16 .b8 scratch[];

.visible .entry scale_kernel(.param .u64 x, .param .u32 n)
{
  .reg .pred %p<2>; .reg .f32 %f<4>; .reg .b32 %r<6>; .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [x];
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra DONE;
  cvta.to.global.u64 %rd2, %rd1;
  mul.wide.u32 %rd3, %r5, 4;
  add.s64 %rd4, %rd2, %rd3;
  ld.global.f32 %f1, [factor];
  ld.global.f32 %f2, [%rd4];
  mul.f32 %f3, %f2, %f1;
  st.global.f32 [%rd4], %f3;
DONE:
  ret;
}

.visible .entry copy_kernel(.param .u64 y, .param .u64 x)
{
  .reg .f32 %f<2>; .reg .b32 %r<2>; .reg .b64 %rd<8>;
  ld.param.u64 %rd1, [y];
  ld.param.u64 %rd2, [x];
  cvta.to.global.u64 %rd3, %rd1;
  cvta.to.global.u64 %rd4, %rd2;
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd5, %r1, 4;
  add.s64 %rd6, %rd3, %rd5;
  add.s64 %rd7, %rd4, %rd5;
  ld.global.f32 %f1, [%rd7];
  st.global.f32 [%rd6], %f1;
  ret;
}

.visible .entry shared_kernel()
{
  .reg .b32 %r<4>;
  mov.u32 %r1, %tid.x;
  shl.b32 %r2, %r1, 2;
  mov.u32 %r3, scratch;
  add.s32 %r2, %r2, %r3;
  st.shared.u32 [%r2], %r1;
  ret;
}
)";

constexpr int kSeeds = 30;

class Launch : public PlatformTest {
 protected:
  void SetUp() override {
    PlatformTest::SetUp();
    load();
  }
  void load() {
    OK(cu("cuModuleLoadData", &module_, kPtx));
    OK(cu("cuModuleGetFunction", &scale_, module_, "scale_kernel"));
    OK(cu("cuModuleGetFunction", &copy_, module_, "copy_kernel"));
    OK(cu("cuModuleGetFunction", &shared_, module_, "shared_kernel"));
    uint64_t factor = 0;
    size_t bytes = 0;
    OK(cu("cuModuleGetGlobal_v2", &factor, &bytes, module_, "factor"));
    EXPECT_EQ(4u, bytes);
    float two = 2;
    OK(cu("cuMemcpyHtoD_v2", factor, &two, 4));
    OK(cu("cuCtxSynchronize"));
  }
  static int launch(uint64_t function, uint64_t stream, std::vector<void*> parameters, int threads = 32, int blocks = 1,
                    int shared_bytes = 0) {
    return cu("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, parameters.data(), nullptr);
  }
  int scale(uint64_t x, uint32_t n, uint64_t stream) { return launch(scale_, stream, {&x, &n}, 32, int(n + 31) / 32); }
  int copy(uint64_t y, uint64_t x, uint64_t stream) { return launch(copy_, stream, {&y, &x}); }
  uint64_t module_ = 0, scale_ = 0, copy_ = 0, shared_ = 0;
};

TEST_F(Launch, runsWhatNvccWouldLoad) {
  uint64_t s = stream(), x = upload(std::vector<float>{1, 2, 3});
  cuda().call<void>("bireal_emulator_clear");
  uint32_t n = 3;
  uint64_t argument = x;
  OK(launch(scale_, s, {&argument, &n}));
  argument = 0;  // arguments are copied by the launch
  n = 100;
  OK(cu("cuStreamSynchronize", s));
  std::vector<bireal_emulator_record> all = records();
  ASSERT_EQ(1u, all.size());
  EXPECT_STREQ("scale_kernel", all[0].name);
  EXPECT_EQ(BIREAL_EMULATOR_KERNEL, all[0].kind);
  EXPECT_EQ(32u, all[0].block[0]);
  EXPECT_GT(all[0].thread_instructions, 3u * 10);
  EXPECT_EQ(12u, all[0].write.bytes);
  EXPECT_EQ(1u, all[0].write.sectors_distinct);
  const char* text = cuda().call<const char*>("bireal_emulator_record_text", 0, 3);
  EXPECT_EQ(0, std::strncmp(text, "scale_kernel", 12)) << text;
  EXPECT_EQ((std::vector<float>{2, 4, 6}), download(x, 3));
}

TEST_F(Launch, reverseOrderGivesTheSame) {
  set("reverse", 1);
  uint64_t s = stream(), x = upload(std::vector<float>(100, 1.5f));
  OK(scale(x, 100, s));
  EXPECT_EQ(std::vector<float>(100, 3.0f), download(x, 100));
}

TEST_F(Launch, outOfBoundsIsStickyAndNamesKernelAndAllocation) {
  uint64_t s = stream(), x = upload(std::vector<float>(10, 1.0f));
  OK(scale(x, 11, s));
  EXPECT_EQ(kIllegalAddress, cu("cuStreamSynchronize", s));
  ASSERT_EQ(1u, findings().size());
  EXPECT_NE(std::string::npos, findings()[0].find("0 bytes behind the end of allocation")) << findings()[0];
  expect_finding("scale_kernel");
  EXPECT_EQ(kIllegalAddress, scale(x, 1, s));
}

TEST_F(Launch, useAfterFreeIsNamed) {
  uint64_t s = stream(), x = upload(std::vector<float>(10, 1.0f));
  OK(cu("cuMemFree_v2", x));
  OK(scale(x, 10, s));
  EXPECT_EQ(kIllegalAddress, cu("cuStreamSynchronize", s));
  expect_finding("use after free");
}

TEST_F(Launch, uninitialisedReadIsFoundAndGoesOn) {
  uint64_t s = stream(), x = allocate(40);
  OK(scale(x, 10, s));
  OK(cu("cuStreamSynchronize", s));
  expect_finding("scale_kernel");
}

TEST_F(Launch, misalignedAddressHasItsOwnCode) {
  uint64_t s = stream(), x = upload(std::vector<float>(10, 1.0f));
  OK(scale(x + 2, 1, s));
  EXPECT_EQ(kMisalignedAddress, cu("cuStreamSynchronize", s));
  expect_finding("scale_kernel");
}

// scale on one stream, copy on another, with or without the event between them.
TEST_F(Launch, removedEventWaitBetweenKernelsIsFoundInEveryOrder) {
  int wrong = 0;
  for (int seed = 0; seed < kSeeds; ++seed)
    for (bool wait : {true, false}) {
      start();
      load();
      set("seed", seed);
      uint64_t producer = stream(), consumer = stream(), done = event(), x = upload(std::vector<float>(32, 1.0f)),
               y = upload(std::vector<float>(32, 0.0f));
      OK(scale(x, 32, producer));
      OK(cu("cuEventRecord", done, producer));
      if (wait) {
        OK(cu("cuStreamWaitEvent", consumer, done, 0));
      }
      OK(copy(y, x, consumer));
      float got = download(y, 1)[0];
      if (wait) {
        EXPECT_EQ(2.0f, got) << "seed " << seed;
        EXPECT_TRUE(findings().empty()) << "seed " << seed;
      } else {
        wrong += got != 2.0f;
        expect_finding("conflict: ");
      }
    }
  EXPECT_GT(wrong, kSeeds / 5);
}

TEST_F(Launch, kernelsInAGraph) {
  uint64_t s = stream(), x = upload(std::vector<float>(32, 1.0f)), y = allocate(128), graph = 0, exec = 0;
  OK(cu("cuStreamBeginCapture_v2", s, 1));
  OK(scale(x, 32, s));
  OK(copy(y, x, s));
  OK(cu("cuStreamEndCapture", s, &graph));
  OK(cu("cuGraphInstantiateWithFlags", &exec, graph, 0));
  for (int replay = 1; replay <= 3; ++replay) OK(cu("cuGraphLaunch", exec, s));
  EXPECT_EQ(8.0f, download(y, 32)[31]);
  EXPECT_EQ(1, records().back().kind == BIREAL_EMULATOR_COPY);
}

TEST_F(Launch, injectedFault) {
  set("fail_launch", 2);
  set("fail_launch_code", 719);
  uint64_t s = stream(), x = upload(std::vector<float>(32, 1.0f));
  OK(scale(x, 32, s));
  OK(cu("cuStreamSynchronize", s));
  OK(scale(x, 32, s));
  EXPECT_EQ(kLaunchFailed, cu("cuStreamSynchronize", s));
  EXPECT_EQ(kLaunchFailed, cu("cuStreamSynchronize", s));
}

TEST_F(Launch, launchesOutsideTheLimitsAreRefused) {
  uint64_t s = stream(), x = upload(std::vector<float>(32, 1.0f));
  uint32_t n = 1;
  EXPECT_EQ(kInvalidValue, launch(scale_, s, {&x, &n}, 1025));
  EXPECT_EQ(kInvalidValue, launch(scale_, s, {&x, &n}, 0));
  EXPECT_EQ(kInvalidValue, launch(scale_, s, {&x, &n}, 32, 0));
  EXPECT_EQ(kInvalidValue, launch(scale_, s, {&x, nullptr}));
  EXPECT_EQ(kInvalidHandle, launch(module_, s, {&x, &n}));
  EXPECT_EQ(kInvalidHandle, launch(scale_, 0, {&x, &n}));
  expect_finding("the null stream was used");
}

TEST_F(Launch, moreThan48KilobytesOfSharedMemoryMustBeAskedFor) {
  uint64_t s = stream();
  EXPECT_EQ(kInvalidValue, launch(shared_, s, {}, 32, 1, 49152 + 16));
  EXPECT_EQ(kInvalidValue, cu("cuFuncSetAttribute", shared_, 8, 166912 + 1));
  EXPECT_EQ(kInvalidValue, cu("cuFuncSetAttribute", shared_, 0, 1));
  OK(cu("cuFuncSetAttribute", shared_, 8, 65536));
  OK(launch(shared_, s, {}, 32, 1, 65536));
  OK(cu("cuStreamSynchronize", s));
  int value = 0;
  OK(cu("cuFuncGetAttribute", &value, 8, shared_));
  EXPECT_EQ(65536, value);
  set("compute_capability", 75);
  EXPECT_EQ(kInvalidValue, cu("cuFuncSetAttribute", shared_, 8, 65536 + 1));
}

TEST_F(Launch, modulesThatADeviceCannotRunAreRefused) {
  uint64_t module = 0;
  std::string ptx = kPtx;
  set("driver_version", 10000);
  EXPECT_EQ(kUnsupportedPtxVersion, cu("cuModuleLoadData", &module, ptx.c_str()));
  EXPECT_NE(std::string::npos, last_error().find("PTX 6.4 is newer than 6.3")) << last_error();
  set("driver_version", 13000);
  std::string newer = ptx;
  newer.replace(newer.find("sm_75"), 5, "sm_90");
  EXPECT_EQ(kNoBinaryForGpu, cu("cuModuleLoadData", &module, newer.c_str()));
  uint32_t fatbin[4] = {0xBA55ED50u, 0, 0, 0};
  EXPECT_EQ(kNoBinaryForGpu, cu("cuModuleLoadData", &module, fatbin));
  EXPECT_EQ(kInvalidImage, cu("cuModuleLoadData", &module, "no PTX at all"));
  std::string broken = ptx;
  broken.replace(broken.find("mul.f32"), 7, "mul.f99");
  char log[256] = "";
  int options[] = {5, 6};  // CU_JIT_ERROR_LOG_BUFFER and its size
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  EXPECT_EQ(kInvalidPtx, cu("cuModuleLoadDataEx", &module, broken.c_str(), 2, options, values));
  EXPECT_NE(nullptr, std::strstr(log, "mul.f99")) << log;
  expect_finding("PTX refused");
}

TEST_F(Launch, unloadedModulesAreGone) {
  uint64_t s = stream(), x = upload(std::vector<float>(32, 1.0f)), function = 0;
  EXPECT_EQ(kNotFound, cu("cuModuleGetFunction", &function, module_, "no_kernel"));
  EXPECT_EQ(kNotFound, cu("cuModuleGetGlobal_v2", &function, nullptr, module_, "no_variable"));
  OK(cu("cuModuleUnload", module_));
  EXPECT_EQ(kInvalidHandle, cu("cuModuleGetFunction", &function, module_, "scale_kernel"));
  EXPECT_EQ(kInvalidHandle, scale(x, 32, s));
}

}  // namespace
}  // namespace bireal::emulator::testing
