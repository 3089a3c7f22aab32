// The stand-in libcuda.so.1: sound programs pass under every order of its streams, planted bugs are found, wrong calls are
// refused.
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "emulator/platform/platform_testing.h"

namespace bireal::emulator::testing {
namespace {

constexpr int kThreadLocal = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
constexpr int kSeeds = 40;

class Driver : public PlatformTest {};

TEST_F(Driver, callsNeedInitAndContext) {
  cuda().call<void>("bireal_emulator_reset");
  uint64_t address = 0;
  int count = 0;
  EXPECT_EQ(kNotInitialized, cu("cuDeviceGetCount", &count));
  OK(cu("cuInit", 0));
  OK(cu("cuDeviceGetCount", &count));
  EXPECT_EQ(1, count);
  EXPECT_EQ(kInvalidContext, cu("cuMemAlloc_v2", &address, 16));
  EXPECT_NE(std::string::npos, last_error().find("cuCtxSetCurrent")) << last_error();
  EXPECT_EQ(kInvalidValue, cu("cuInit", 1));
  set("device_count", 0);
  EXPECT_EQ(kNoDevice, cu("cuInit", 0));
}

TEST_F(Driver, deviceFollowsItsSettings) {
  for (int capability : {75, 80, 86, 89, 90, 100, 120}) {
    set("compute_capability", capability);
    int major = 0, minor = 0, optin = 0;
    OK(cu("cuDeviceGetAttribute", &major, 75, 0));
    OK(cu("cuDeviceGetAttribute", &minor, 76, 0));
    OK(cu("cuDeviceGetAttribute", &optin, 97, 0));
    EXPECT_EQ(capability, major * 10 + minor);
    EXPECT_GE(optin, 65536);
  }
  EXPECT_EQ(-1, cu("bireal_emulator_set", "compute_capability", 70));
  EXPECT_EQ(-1, cu("bireal_emulator_set", "compute_capabilty", 80));
  EXPECT_NE(std::string::npos, last_error().find("compute_capability")) << last_error();
  int value = 0;
  EXPECT_EQ(kInvalidValue, cu("cuDeviceGetAttribute", &value, 9999, 0));
  EXPECT_EQ(kInvalidDevice, cu("cuDeviceGetAttribute", &value, 75, 1));
  set("driver_version", 12040);
  OK(cu("cuDriverGetVersion", &value));
  EXPECT_EQ(12040, value);
}

TEST_F(Driver, errorsHaveNamesAndTexts) {
  const char* text = nullptr;
  OK(cu("cuGetErrorName", 2, &text));
  EXPECT_STREQ("CUDA_ERROR_OUT_OF_MEMORY", text);
  OK(cu("cuGetErrorString", 2, &text));
  EXPECT_STREQ("out of memory", text);
  EXPECT_EQ(kInvalidValue, cu("cuGetErrorName", 12345, &text));
}

TEST_F(Driver, entryPointsByName) {
  void* function = nullptr;
  int status = 0;
  OK(cu("cuGetProcAddress_v2", "cuMemAlloc", &function, 12000, 0, &status));
  EXPECT_NE(nullptr, function);
  EXPECT_EQ(kNotFound, cu("cuGetProcAddress_v2", "cuNoSuchCall", &function, 12000, 0, &status));
}

TEST_F(Driver, missingFunctionsAreReported) {
  EXPECT_EQ(kNotSupported, cu("cuCtxSetLimit", 0, 0));
  expect_finding("cuCtxSetLimit");
}

// ---- Memory

TEST_F(Driver, memoryIsCountedAndLimited) {
  set("memory_limit", 1 << 20);
  uint64_t a = allocate(1000), address = 0;
  EXPECT_EQ(1000, get("live_bytes"));
  size_t free_bytes = 0, total = 0;
  OK(cu("cuMemGetInfo_v2", &free_bytes, &total));
  EXPECT_EQ(size_t(1 << 20), total);
  EXPECT_EQ(total - 1000, free_bytes);
  EXPECT_EQ(kOutOfMemory, cu("cuMemAlloc_v2", &address, 1 << 20));
  EXPECT_EQ(kInvalidValue, cu("cuMemAlloc_v2", &address, 0));
  OK(cu("cuMemAlloc_v2", &address, (1 << 20) - 1000));
  OK(cu("cuMemFree_v2", address));
  OK(cu("cuMemFree_v2", a));
  EXPECT_EQ(0, get("live_bytes"));
  EXPECT_EQ(1 << 20, get("peak_bytes"));
  EXPECT_EQ(kInvalidValue, cu("cuMemFree_v2", a));  // twice
}

TEST_F(Driver, theNthAllocationFails) {
  set("fail_allocation", 2);
  uint64_t a = allocate(16), b = 0;
  EXPECT_EQ(kOutOfMemory, cu("cuMemAlloc_v2", &b, 16));
  b = allocate(16);
  OK(cu("cuMemFree_v2", a));
  OK(cu("cuMemFree_v2", b));
}

TEST_F(Driver, overrunIsSeenAtFree) {
  uint64_t a = allocate(100), b = allocate(100);
  reinterpret_cast<char*>(a)[100] = 1;
  OK(cu("cuMemFree_v2", a));
  expect_finding("overrun: byte 0 behind the end");
  reinterpret_cast<char*>(b)[-1] = 1;
  OK(cu("cuMemFree_v2", b));
  expect_finding("underrun: byte 1 before the start");
}

TEST_F(Driver, freshMemoryIsNaNAndUnwritten) {
  uint64_t a = allocate(8);
  std::vector<float> values = download(a, 2);
  EXPECT_TRUE(std::isnan(values[0]) && std::isnan(values[1]));
  expect_finding("uninitialised read: source: nobody wrote byte 0");
  OK(cu("cuMemsetD8_v2", a, 0, 4));
  download(a, 2);
  expect_finding("nobody wrote byte 4");
  uint64_t b = allocate(8);
  OK(cu("cuMemcpyDtoD_v2", b, a, 8));  // carries what is unwritten along
  download(b, 1);
  EXPECT_TRUE(findings().empty());
  download(b, 2);
  expect_finding("nobody wrote byte 4");
}

TEST_F(Driver, copiesOutsideAnAllocationAreRefused) {
  uint64_t a = allocate(16);
  char host[64] = "";
  EXPECT_EQ(kInvalidValue, cu("cuMemcpyHtoD_v2", a, host, 17));
  EXPECT_NE(std::string::npos, last_error().find("1 too many")) << last_error();
  EXPECT_EQ(kInvalidValue, cu("cuMemcpyHtoD_v2", a + 16, host, 1));
  EXPECT_EQ(kInvalidValue, cu("cuMemcpyDtoH_v2", host, 0, 1));
  EXPECT_EQ(kInvalidValue, cu("cuMemcpyHtoD_v2", a, a, 4));      // the source is no host memory
  EXPECT_EQ(kInvalidValue, cu("cuMemcpyDtoD_v2", a + 4, a, 8));  // overlap
  EXPECT_EQ(kInvalidValue, cu("cuMemsetD32_v2", a + 2, 0, 1));   // misaligned
  OK(cu("cuMemFree_v2", a));
  EXPECT_EQ(kInvalidValue, cu("cuMemcpyHtoD_v2", a, host, 4));
  EXPECT_NE(std::string::npos, last_error().find("use after free")) << last_error();
}

TEST_F(Driver, freeWhileInUseIsFound) {
  uint64_t a = allocate(16), s = stream();
  OK(cu("cuMemsetD8Async", a, 0, 16, s));
  OK(cu("cuMemFree_v2", a));
  expect_finding("cuMemFree of allocation 1 (16 bytes) while cuMemsetD8Async");
  a = allocate(16);
  OK(cu("cuMemsetD8Async", a, 0, 16, s));
  OK(cu("cuStreamSynchronize", s));
  OK(cu("cuMemFree_v2", a));
}

// ---- Streams

/// Two buffers go round: a copy stream uploads batch i from pinned memory while the compute stream copies batch i - 1 on. Each
/// wait can be left out. Returns what arrived.
struct Pipeline {
  bool wait_upload = true, wait_consumer = true, wait_host = true;
};

std::vector<float> run_pipeline(const Pipeline& p) {
  constexpr int kBatches = 6, kCount = 64;
  uint64_t copy = 0, compute = 0, slots[2] = {0, 0}, result = 0, uploaded[2], consumed[2];
  float* staging[2];
  EXPECT_EQ(0, cu("cuStreamCreate", &copy, 1));
  EXPECT_EQ(0, cu("cuStreamCreate", &compute, 1));
  EXPECT_EQ(0, cu("cuMemAlloc_v2", &result, kBatches * kCount * 4));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(0, cu("cuMemAlloc_v2", &slots[i], kCount * 4));
    EXPECT_EQ(0, cu("cuMemHostAlloc", &staging[i], kCount * 4, 0));
    EXPECT_EQ(0, cu("cuEventCreate", &uploaded[i], 2));
    EXPECT_EQ(0, cu("cuEventCreate", &consumed[i], 2));
  }
  for (int batch = 0; batch < kBatches; ++batch) {
    int slot = batch % 2;
    if (p.wait_host) {  // until the staging buffer is free again
      EXPECT_EQ(0, cu("cuEventSynchronize", uploaded[slot]));
    }
    for (int i = 0; i < kCount; ++i) staging[slot][i] = float(batch * 1000 + i);
    if (p.wait_consumer) {
      EXPECT_EQ(0, cu("cuStreamWaitEvent", copy, consumed[slot], 0));
    }
    EXPECT_EQ(0, cu("cuMemcpyHtoDAsync_v2", slots[slot], staging[slot], kCount * 4, copy));
    EXPECT_EQ(0, cu("cuEventRecord", uploaded[slot], copy));
    if (p.wait_upload) {
      EXPECT_EQ(0, cu("cuStreamWaitEvent", compute, uploaded[slot], 0));
    }
    EXPECT_EQ(0, cu("cuMemcpyDtoDAsync_v2", result + uint64_t(batch) * kCount * 4, slots[slot], kCount * 4, compute));
    EXPECT_EQ(0, cu("cuEventRecord", consumed[slot], compute));
  }
  std::vector<float> values(kBatches * kCount);
  EXPECT_EQ(0, cu("cuMemcpyDtoHAsync_v2", values.data(), result, values.size() * 4, compute));
  EXPECT_EQ(0, cu("cuCtxSynchronize"));
  return values;
}

bool pipeline_is_right(const std::vector<float>& values) {
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i] != float(i / 64 * 1000 + i % 64)) return false;
  return true;
}

TEST_F(Driver, soundPipelinePassesInEveryOrder) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    start();
    set("seed", seed);
    EXPECT_TRUE(pipeline_is_right(run_pipeline({}))) << "seed " << seed;
    EXPECT_TRUE(findings().empty()) << "seed " << seed;
  }
}

// The report does not depend on luck: it comes with every seed, also where the bits happen to be right.
TEST_F(Driver, removedWaitsAreFoundInEveryOrder) {
  int wrong_bits = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    start();
    set("seed", seed);
    Pipeline no_upload_wait;
    no_upload_wait.wait_upload = false;
    wrong_bits += !pipeline_is_right(run_pipeline(no_upload_wait));
    std::string all;
    for (const std::string& finding : findings()) all += finding + "\n";
    EXPECT_NE(std::string::npos, all.find("conflict: ")) << "seed " << seed << ": " << all;
    EXPECT_NE(std::string::npos, all.find("an event wait or a synchronisation is missing")) << all;
    start();
    set("seed", seed);
    Pipeline no_consumer_wait;
    no_consumer_wait.wait_consumer = false;
    run_pipeline(no_consumer_wait);
    expect_finding("conflict: ");
  }
  EXPECT_GT(wrong_bits, kSeeds / 4);
}

TEST_F(Driver, pinnedMemoryOverwrittenTooEarlyIsFound) {
  int found = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    start();
    set("seed", seed);
    Pipeline p;
    p.wait_host = false;
    run_pipeline(p);
    if (findings().empty()) continue;
    ++found;
    expect_finding("before the copy that was queued had read it");
  }
  EXPECT_EQ(kSeeds, found);  // nothing runs before the first synchronisation
}

TEST_F(Driver, pinnedTargetShowsNaNUntilTheCopyRan) {
  uint64_t a = upload(std::vector<float>{1, 2}), s = stream();
  float* host = pinned(2);
  host[0] = host[1] = 7;
  OK(cu("cuMemcpyDtoHAsync_v2", host, a, 8, s));
  EXPECT_TRUE(std::isnan(host[0]));
  OK(cu("cuStreamSynchronize", s));
  EXPECT_EQ(2, host[1]);
}

TEST_F(Driver, pageableSourceIsReadAtTheCall) {
  uint64_t a = allocate(8), s = stream();
  std::vector<float> host = {1, 2};
  OK(cu("cuMemcpyHtoDAsync_v2", a, host.data(), 8, s));
  host = {8, 9};
  EXPECT_EQ(2, download(a, 2)[1]);
}

TEST_F(Driver, callsWithoutAStreamAreNotOrderedWithNonBlockingStreams) {
  for (unsigned flags : {0u, 1u}) {
    start();
    uint64_t a = allocate(8), b = allocate(8), s = stream(flags);
    std::vector<float> host = {1, 2};
    OK(cu("cuMemcpyHtoD_v2", a, host.data(), 8));
    OK(cu("cuMemcpyDtoDAsync_v2", b, a, 8, s));
    OK(cu("cuCtxSynchronize"));
    if (flags == 0) {
      EXPECT_TRUE(findings().empty());
    } else {
      expect_finding("a call without a stream is not ordered");
    }
  }
}

TEST_F(Driver, nullStreamIsRefused) {
  uint64_t a = allocate(8);
  for (uint64_t null_stream : {0, 1, 2}) {
    EXPECT_EQ(kInvalidHandle, cu("cuMemsetD8Async", a, 0, 8, null_stream));
    expect_finding("stream was used");
  }
  uint64_t s = stream();
  OK(cu("cuStreamDestroy_v2", s));
  EXPECT_EQ(kInvalidHandle, cu("cuStreamSynchronize", s));
}

TEST_F(Driver, aDestroyedStreamStillDrains) {
  uint64_t a = allocate(4), s = stream(), done = event();
  OK(cu("cuMemsetD32Async", a, 5, 1, s));
  OK(cu("cuEventRecord", done, s));
  OK(cu("cuStreamDestroy_v2", s));
  OK(cu("cuEventSynchronize", done));
  EXPECT_EQ(5, download<int>(a, 1)[0]);
}

TEST_F(Driver, queriesEndPollingLoops) {
  uint64_t a = allocate(4), s = stream(), done = event();
  for (int i = 0; i < 20; ++i) OK(cu("cuMemsetD32Async", a, i, 1, s));
  OK(cu("cuEventRecord", done, s));
  EXPECT_EQ(20, get("pending"));
  int polls = 0;
  while (cu("cuEventQuery", done) == kNotReady) ++polls;
  EXPECT_GT(polls, 0);
  OK(cu("cuStreamQuery", s));
  EXPECT_EQ(0, get("pending"));
}

TEST_F(Driver, eventTimes) {
  uint64_t s = stream(), first = event(0), last = event(0), untimed = event(2);
  float milliseconds = -1;
  EXPECT_EQ(kInvalidHandle, cu("cuEventElapsedTime", &milliseconds, first, last));  // never recorded
  OK(cu("cuEventRecord", first, s));
  OK(cu("cuEventRecord", last, s));
  OK(cu("cuEventRecord", untimed, s));
  EXPECT_EQ(kNotReady, cu("cuEventElapsedTime", &milliseconds, first, last));
  OK(cu("cuStreamSynchronize", s));
  OK(cu("cuEventElapsedTime", &milliseconds, first, last));
  EXPECT_GE(milliseconds, 0);
  EXPECT_EQ(kInvalidHandle, cu("cuEventElapsedTime", &milliseconds, first, untimed));
}

TEST_F(Driver, hostFunctionsRunInOrder) {
  uint64_t s = stream();
  std::vector<int> order;
  auto append = [](void* data) { static_cast<std::vector<int>*>(data)->push_back(1); };
  OK(cu("cuLaunchHostFunc", s, static_cast<void (*)(void*)>(append), &order));
  EXPECT_TRUE(order.empty());
  OK(cu("cuStreamSynchronize", s));
  EXPECT_EQ(1u, order.size());
}

TEST_F(Driver, wrongEnumsAreRefused) {
  uint64_t handle = 0;
  float* host = nullptr;
  char memory[64];
  EXPECT_EQ(kInvalidValue, cu("cuStreamCreate", &handle, 2));
  EXPECT_EQ(kInvalidValue, cu("cuEventCreate", &handle, 8));
  EXPECT_EQ(kInvalidValue, cu("cuMemHostAlloc", &host, 16, 8));
  EXPECT_EQ(kInvalidValue, cu("cuMemHostRegister_v2", memory, 64, 16));
  uint64_t s = stream(), e = event();
  EXPECT_EQ(kInvalidValue, cu("cuStreamBeginCapture_v2", s, 3));
  EXPECT_EQ(kInvalidValue, cu("cuStreamWaitEvent", s, e, 2));
  EXPECT_EQ(kInvalidHandle, cu("cuStreamWaitEvent", e, s, 0));
  EXPECT_EQ(kInvalidValue, cu("cuGraphInstantiateWithFlags", &handle, 12345, 0));
}

TEST_F(Driver, registeredHostMemoryIsPinned) {
  std::vector<float> host(16, 1.0f);
  OK(cu("cuMemHostRegister_v2", host.data(), 64, 0));
  EXPECT_EQ(kHostMemoryAlreadyRegistered, cu("cuMemHostRegister_v2", host.data(), 64, 0));
  uint64_t a = allocate(64), s = stream();
  OK(cu("cuMemcpyHtoDAsync_v2", a, host.data(), 64, s));
  host[3] = 2;
  OK(cu("cuStreamSynchronize", s));
  expect_finding("the host changed registered host memory");
  OK(cu("cuMemHostUnregister", host.data()));
  EXPECT_EQ(kHostMemoryNotRegistered, cu("cuMemHostUnregister", host.data()));
}

// ---- Capture and graphs

TEST_F(Driver, graphReplaysItsArgumentsOnNewData) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    start();
    set("seed", seed);
    // main: upload, fork; side: copies b; main: copies c; join; d = b's copy.
    uint64_t a = allocate(4), b = allocate(4), c = allocate(4), d = allocate(4), main = stream(), side = stream();
    uint64_t fork = event(), join = event(), graph = 0, exec = 0;
    float *in = pinned(1), *out = pinned(1);
    *in = 1;
    OK(cu("cuStreamBeginCapture_v2", main, kThreadLocal));
    OK(cu("cuMemcpyHtoDAsync_v2", a, in, 4, main));
    OK(cu("cuEventRecord", fork, main));
    OK(cu("cuStreamWaitEvent", side, fork, 0));
    OK(cu("cuMemcpyDtoDAsync_v2", b, a, 4, side));
    OK(cu("cuMemcpyDtoDAsync_v2", c, a, 4, main));
    OK(cu("cuEventRecord", join, side));
    OK(cu("cuStreamWaitEvent", main, join, 0));
    OK(cu("cuMemcpyDtoDAsync_v2", d, b, 4, main));
    OK(cu("cuMemcpyDtoHAsync_v2", out, d, 4, main));
    int status = 0;
    OK(cu("cuStreamIsCapturing", side, &status));
    EXPECT_EQ(1, status);
    OK(cu("cuStreamEndCapture", main, &graph));
    OK(cu("cuStreamIsCapturing", side, &status));
    EXPECT_EQ(0, status);
    EXPECT_EQ(0, get("records")) << "a capture runs nothing";
    size_t nodes = 0;
    OK(cu("cuGraphGetNodes", graph, nullptr, &nodes));
    EXPECT_EQ(5u, nodes);
    OK(cu("cuGraphInstantiateWithFlags", &exec, graph, 0));
    OK(cu("cuGraphDestroy", graph));
    for (int replay = 0; replay < 3; ++replay) {
      *in = float(replay + 10);
      OK(cu("cuGraphLaunch", exec, main));
      OK(cu("cuStreamSynchronize", main));
      EXPECT_EQ(float(replay + 10), *out);
    }
    EXPECT_EQ(15, get("records"));
    EXPECT_TRUE(findings().empty()) << "seed " << seed;
    OK(cu("cuGraphExecDestroy", exec));
    EXPECT_EQ(kInvalidValue, cu("cuGraphLaunch", exec, main));
  }
}

TEST_F(Driver, graphBranchesWithoutOrderConflict) {
  uint64_t a = allocate(4), main = stream(), side = stream(), fork = event(), join = event(), graph = 0, exec = 0;
  OK(cu("cuStreamBeginCapture_v2", main, kThreadLocal));
  OK(cu("cuEventRecord", fork, main));
  OK(cu("cuStreamWaitEvent", side, fork, 0));
  OK(cu("cuMemsetD32Async", a, 1, 1, side));
  OK(cu("cuMemsetD32Async", a, 2, 1, main));
  OK(cu("cuEventRecord", join, side));
  OK(cu("cuStreamWaitEvent", main, join, 0));
  OK(cu("cuStreamEndCapture", main, &graph));
  OK(cu("cuGraphInstantiateWithFlags", &exec, graph, 0));
  OK(cu("cuGraphLaunch", exec, main));
  OK(cu("cuStreamSynchronize", main));
  expect_finding("in a graph) writes and cuMemsetD32Async");
}

TEST_F(Driver, graphLaunchedWhileItsInputChangesIsFound) {
  uint64_t a = allocate(4), s = stream(), graph = 0, exec = 0;
  float* in = pinned(1);
  *in = 1;
  OK(cu("cuStreamBeginCapture_v2", s, kThreadLocal));
  OK(cu("cuMemcpyHtoDAsync_v2", a, in, 4, s));
  OK(cu("cuStreamEndCapture", s, &graph));
  OK(cu("cuGraphInstantiateWithFlags", &exec, graph, 0));
  OK(cu("cuGraphLaunch", exec, s));
  *in = 2;
  OK(cu("cuStreamSynchronize", s));
  expect_finding("the host changed pinned memory");
}

TEST_F(Driver, graphThatUsesFreedMemoryIsFound) {
  uint64_t a = allocate(4), s = stream(), graph = 0, exec = 0;
  OK(cu("cuStreamBeginCapture_v2", s, kThreadLocal));
  OK(cu("cuMemsetD32Async", a, 1, 1, s));
  OK(cu("cuStreamEndCapture", s, &graph));
  OK(cu("cuGraphInstantiateWithFlags", &exec, graph, 0));
  OK(cu("cuMemFree_v2", a));
  OK(cu("cuGraphLaunch", exec, s));
  EXPECT_EQ(kIllegalAddress, cu("cuStreamSynchronize", s));
  EXPECT_EQ(kIllegalAddress, cu("cuMemFree_v2", a)) << "a fault is sticky";
  expect_finding("use after free");
}

/// Begins a capture, makes the call, and expects its code; then the capture must be invalid and end with 901.
template <class Call>
void expect_invalidated(int code, Call&& call) {
  uint64_t s = 0, graph = 1;
  OK(cu("cuStreamCreate", &s, 1));
  OK(cu("cuStreamBeginCapture_v2", s, kThreadLocal));
  EXPECT_EQ(code, call(s)) << last_error();
  int status = 0;
  OK(cu("cuStreamIsCapturing", s, &status));
  EXPECT_EQ(2, status);
  EXPECT_EQ(kCaptureInvalidated, cu("cuStreamEndCapture", s, &graph));
  EXPECT_EQ(0u, graph);
  OK(cu("cuStreamIsCapturing", s, &status));
  EXPECT_EQ(0, status);
}

TEST_F(Driver, forbiddenCallsInvalidateACapture) {
  uint64_t a = allocate(64), other = stream(), outside = event(), inside = event(), ignored = 0;
  char host[64] = "";
  OK(cu("cuEventRecord", outside, other));
  expect_invalidated(kCaptureUnsupported, [&](uint64_t s) { return cu("cuStreamSynchronize", s); });
  expect_invalidated(kCaptureUnsupported, [&](uint64_t s) { return cu("cuStreamQuery", s); });
  expect_invalidated(kCaptureUnsupported, [&](uint64_t) { return cu("cuCtxSynchronize"); });
  expect_invalidated(kCaptureUnsupported, [&](uint64_t) { return cu("cuMemAlloc_v2", &ignored, 16); });
  expect_invalidated(kCaptureUnsupported, [&](uint64_t) { return cu("cuMemFree_v2", a); });
  expect_invalidated(kCaptureUnsupported, [&](uint64_t) { return cu("cuMemcpyHtoD_v2", a, host, 16); });
  expect_invalidated(kCaptureUnsupported, [&](uint64_t s) { return cu("cuMemcpyHtoDAsync_v2", a, host, 16, s); });
  expect_invalidated(kCaptureIsolation, [&](uint64_t s) { return cu("cuStreamWaitEvent", s, outside, 0); });
  expect_invalidated(kCapturedEvent, [&](uint64_t s) {
    EXPECT_EQ(0, cu("cuEventRecord", inside, s));
    return cu("cuEventSynchronize", inside);
  });
  expect_invalidated(kCaptureUnmatched, [&](uint64_t s) {
    EXPECT_EQ(0, cu("cuEventRecord", inside, s));
    EXPECT_EQ(0, cu("cuStreamWaitEvent", other, inside, 0));
    return cu("cuStreamEndCapture", other, &ignored);
  });
  EXPECT_EQ(kIllegalState, cu("cuStreamEndCapture", other, &ignored));
}

TEST_F(Driver, unjoinedCaptureIsRefused) {
  uint64_t a = allocate(4), main = stream(), side = stream(), fork = event(), graph = 0;
  OK(cu("cuStreamBeginCapture_v2", main, kThreadLocal));
  OK(cu("cuEventRecord", fork, main));
  OK(cu("cuStreamWaitEvent", side, fork, 0));
  OK(cu("cuMemsetD32Async", a, 1, 1, side));
  EXPECT_EQ(kCaptureUnjoined, cu("cuStreamEndCapture", main, &graph));
}

TEST_F(Driver, capturesBelongToTheirThread) {
  uint64_t s = stream(), graph = 0, context = 0;
  OK(cu("cuCtxGetCurrent", &context));
  OK(cu("cuStreamBeginCapture_v2", s, kThreadLocal));
  std::thread([&] {
    EXPECT_EQ(0, cu("cuCtxSetCurrent", context));
    uint64_t address = 0;
    EXPECT_EQ(0, cu("cuMemAlloc_v2", &address, 16)) << "another thread may allocate in THREAD_LOCAL mode";
    EXPECT_EQ(0, cu("cuMemFree_v2", address));
    EXPECT_EQ(kCaptureWrongThread, cu("cuStreamEndCapture", s, &graph));
  }).join();
  OK(cu("cuStreamEndCapture", s, &graph));
  OK(cu("cuStreamBeginCapture_v2", s, 0));  // GLOBAL
  std::thread([&] {
    EXPECT_EQ(0, cu("cuCtxSetCurrent", context));
    uint64_t address = 0;
    EXPECT_EQ(kCaptureUnsupported, cu("cuMemAlloc_v2", &address, 16));
  }).join();
  EXPECT_EQ(kCaptureInvalidated, cu("cuStreamEndCapture", s, &graph));
}

// ---- Process

TEST_F(Driver, findingsEndAProcessWithTheChosenStatus) {
  EXPECT_EXIT(
      {
        set("exit_status", 99);
        cu("cuCtxSetLimit", 0, 0);
        std::exit(0);
      },
      ::testing::ExitedWithCode(99), "1 findings, exit status 99");
  EXPECT_EXIT(
      {
        set("exit_status", 99);
        std::exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(Driver, settingsComeFromTheEnvironment) {
  setenv("BIREAL_EMULATOR", "seed=77,compute_capability=90", 1);
  cuda().call<void>("bireal_emulator_reset");
  EXPECT_EQ(77, get("seed"));
  EXPECT_EQ(90, get("compute_capability"));
  for (const char* wrong : {"sede=1", "seed", "seed=x", "compute_capability=70"}) {
    setenv("BIREAL_EMULATOR", wrong, 1);
    cuda().call<void>("bireal_emulator_reset");
    EXPECT_EQ(kUnknown, cu("cuInit", 0)) << wrong;
    expect_finding("BIREAL_EMULATOR: ");
  }
  unsetenv("BIREAL_EMULATOR");
}

}  // namespace
}  // namespace bireal::emulator::testing
