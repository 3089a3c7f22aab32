// Every planted bug of testdata/planted.cu is caught, at its line, in both thread orders; the sound kernels pass. Launch limits,
// counters of known value, refusals of the parser.
#include "emulator/ptx/ptx_testing.h"

namespace bireal::ptx::testing {
namespace {

/// What the comments of the source promise of a kernel.
struct Promise {
  std::string check;
  std::vector<int> lines;
};

std::map<std::string, Promise> promises() {
  std::map<std::string, Promise> result;
  std::istringstream text(read_text(std::string(PTX_SOURCE_FOLDER) + "/planted.cu"));
  std::string line, kernel;
  for (int number = 1; std::getline(text, line); ++number) {
    size_t at = line.find("__global__ void ");
    if (at != std::string::npos) kernel = line.substr(at + 16, line.find('(') - at - 16);
    at = line.find("// EXPECT ");
    if (at == std::string::npos) continue;
    result[kernel].check = line.substr(at + 10);
    result[kernel].lines.push_back(number);
  }
  return result;
}

/// The parameters of any planted kernel: pointers to one array of 1024 floats (two pointers: x and y = x), shift = 1.
Counters run(const std::string& name, bool reverse, uint32_t blocks, uint32_t threads) {
  Memory memory;
  const Kernel& kernel = module_of("planted").kernel(name);
  Options options = memory.options();
  options.reverse = reverse;
  float* o;
  if (name == "uninitialised_global_kernel") {
    o = memory.get<float>(1024);
    float* known = memory.put(std::vector<float>(1));
    (void)known;
  } else {
    o = memory.put(std::vector<float>(1024, 0.5f));
  }
  unsigned* counter = memory.put(std::vector<unsigned>(1));
  std::vector<uint8_t> bytes;
  bool counts = name == "missing_fence_kernel", two = name == "non_coherent_kernel";
  if (counts)
    bytes = parameters(kernel, o, counter);
  else if (two)
    bytes = parameters(kernel, o, o);
  else if (kernel.parameters.size() == 2)
    bytes = parameters(kernel, o, 1);
  else
    bytes = parameters(kernel, o);
  if (name == "endless_kernel") options.instruction_limit = 1000000;
  return launch(module_of("planted"), kernel, {blocks, 1, 1}, {threads, 1, 1}, 0, bytes, options);
}

TEST(PtxChecks, PlantedBugsAreCaughtAtTheirLine) {
  auto expected = promises();
  ASSERT_GE(expected.size(), 27u);
  for (const auto& [name, promise] : expected)
    for (bool reverse : {false, true}) {
      SCOPED_TRACE(name + (reverse ? " in reverse" : ""));
      bool blocks = promise.check == "race between blocks";
      try {
        run(name, reverse, blocks ? 2 : 1, 256);
        ADD_FAILURE() << "not caught";
      } catch (const KernelFault& fault) {
        const Finding& f = fault.finding();
        EXPECT_EQ(check_name(f.check), promise.check) << f.message;
        EXPECT_NE(std::find(promise.lines.begin(), promise.lines.end(), f.line), promise.lines.end()) << f.message;
        EXPECT_NE(f.message.find("planted.cu:" + std::to_string(f.line)), std::string::npos) << f.message;
        EXPECT_NE(f.message.find("kernel " + name + ", block "), std::string::npos) << f.message;
        EXPECT_NE(f.message.find("thread "), std::string::npos) << f.message;
      }
    }
}

TEST(PtxChecks, SoundKernelsPass) {
  for (const Kernel& kernel : module_of("planted").kernels())
    if (kernel.name.rfind("sound_", 0) == 0)
      for (bool reverse : {false, true}) {
        SCOPED_TRACE(kernel.name);
        EXPECT_NO_THROW(run(kernel.name, reverse, 1, 256));
      }
}

TEST(PtxChecks, ReportedFindingsDoNotEndTheLaunch) {
  Memory memory;
  const Kernel& kernel = module_of("planted").kernel("missing_barrier_kernel");
  std::vector<Finding> found;
  Options options = memory.options();
  options.report = [&](const Finding& f) { found.push_back(f); };
  float* o = memory.put(std::vector<float>(256, 1.0f));
  launch(module_of("planted"), kernel, {1, 1, 1}, {256, 1, 1}, 0, parameters(kernel, o), options);
  ASSERT_FALSE(found.empty());
  EXPECT_LE(found.size(), 4u);  // once for a kind and line, not for each thread
}

TEST(PtxChecks, LaunchLimits) {
  Memory memory;
  const Module& module = module_of("planted");
  const Kernel& kernel = module.kernel("sound_tile_kernel");
  float* o = memory.put(std::vector<float>(1024));
  auto message = [&](Dim3 grid, Dim3 block, uint32_t shared, std::vector<uint8_t> bytes) {
    try {
      launch(module, kernel, grid, block, shared, bytes, memory.options());
    } catch (const LoadError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  auto good = parameters(kernel, o);
  EXPECT_NE(message({1, 1, 1}, {1025, 1, 1}, 0, good).find("at most 1024"), std::string::npos);
  EXPECT_NE(message({1, 1, 1}, {1, 1, 65}, 0, good).find("at most 1024"), std::string::npos);
  EXPECT_NE(message({0, 1, 1}, {1, 1, 1}, 0, good).find("grid"), std::string::npos);
  EXPECT_NE(message({1, 65536, 1}, {1, 1, 1}, 0, good).find("grid"), std::string::npos);
  EXPECT_NE(message({1, 1, 1}, {1, 1, 1}, 49152, good).find("the limit is 49152"), std::string::npos);
  EXPECT_NE(message({1, 1, 1}, {1, 1, 1}, 0, {}).find("parameter bytes"), std::string::npos);
  EXPECT_EQ(message({1, 1, 1}, {256, 1, 1}, 49152 - 1024, good), "accepted");
  EXPECT_THROW(module.kernel("nothing"), LoadError);
}

TEST(PtxCounters, BankConflictsAndSectors) {
  Memory memory;
  const Module& module = module_of("planted");
  std::map<int, std::pair<std::string, uint32_t>> wanted;  // line -> what, value
  std::istringstream text(read_text(std::string(PTX_SOURCE_FOLDER) + "/planted.cu"));
  std::string line;
  for (int number = 1; std::getline(text, line); ++number)
    for (const char* word : {"DEGREE", "SECTORS"}) {
      size_t at = line.find(std::string("// ") + word);
      if (at != std::string::npos) wanted[number] = {word, uint32_t(atoi(line.c_str() + at + 4 + strlen(word)))};
    }
  ASSERT_EQ(wanted.size(), 6u);
  const Kernel& banks = module.kernel("bank_conflict_kernel");
  float* o = memory.put(std::vector<float>(1024));
  Counters c = launch(module, banks, {1, 1, 1}, {32, 1, 1}, 0, parameters(banks, o), memory.options());
  const Kernel& sectors = module.kernel("coalescing_kernel");
  float* y = memory.get<float>(32);
  Counters s = launch(module, sectors, {1, 1, 1}, {32, 1, 1}, 0, parameters(sectors, o, y), memory.options());
  EXPECT_EQ(s.read.sectors_requested, 37u);
  EXPECT_EQ(s.read.sectors_distinct, 32u);
  EXPECT_EQ(s.read.sectors_ideal, 4u + 4u + 1u);
  EXPECT_EQ(s.read.bytes, 3u * 128u);
  EXPECT_EQ(s.write.sectors_distinct, 4u);
  EXPECT_EQ(s.read.instructions, 3u);
  EXPECT_EQ(c.shared_read.worst_degree, 32u);
  accumulate(c, s);
  for (const LineCounters& l : c.lines) {
    auto w = wanted.find(l.line);
    if (w == wanted.end()) continue;
    if (w->second.first == "DEGREE") {
      EXPECT_EQ(l.shared.worst_degree, w->second.second) << l.line;
    } else {
      EXPECT_EQ(l.read.sectors_requested + l.write.sectors_requested, w->second.second) << l.line;
    }
    wanted.erase(w);
  }
  EXPECT_TRUE(wanted.empty());
  EXPECT_NE(to_string(c).find("worst degree 32"), std::string::npos) << to_string(c);
}

/// A kernel around `body`; %r0-9, %f0-9, %rd0-9, %p0-9 and the label END exist.
std::string around(const std::string& body) {
  return ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 k_param_0)\n{\n.reg .b32 %r<10>;\n.reg "
         ".f32 "
         "%f<10>;\n.reg .b64 %rd<10>;\n.reg .pred %p<10>;\n" +
         body + "\nEND:\nret;\n}\n";
}

TEST(PtxParser, UnknownTextIsRefusedWithItsLine) {
  auto message = [](const std::string& body) {
    try {
      parse(around(body), "text");
    } catch (const LoadError& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message("add.s32 %r1, %r2, 3;"), "accepted");
  EXPECT_EQ(message("frobnicate.s32 %r1, %r2, 3;"), "text:10: instruction not supported: frobnicate.s32 %r1, %r2, 3 [kernel k]");
  for (const char* body :
       {"add.sat.s32 %r1, %r2, 3;", "mov.u32 %r1, %clusterid.x;", "ld.global.f32 %f1, [%rd1], %rd2;", "bra NOWHERE;",
        "add.s32 %rd1, %r2, %r3;", "add.s32 %r1, %r2;", "shfl.bfly.b32 %r1, %r2, 1, 31;", "call.uni vprintf, (%rd1);",
        "mma.sync.aligned.m16n8k16.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r1}, {%f1};", "tex.1d.v4.s32.s32 %r1, %r2;",
        "cp.async.bulk.commit_group;", "ld.global.b128 %rd1, [%rd2];", "cvt.rn.f16.f32 %r1, %f1, %f2;"})
    EXPECT_EQ(message(body).rfind("text:1", 0), 0u) << body << ": " << message(body);
}

TEST(PtxParser, HandWrittenText) {
  auto module =
      parse(around("ld.param.u64 %rd1, [k_param_0];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, "
                   "%rd2;\n{ .reg .b32 %r1;\nmov.u32 %r1, 7;\nst.global.u32 [%rd3], %r1;\n}\nsetp.gt.u32 %p1, %r1, 3;\n@%p1 bra "
                   "END;\nst.global.u32 [%rd3], %r1;"));
  Memory memory;
  unsigned* out = memory.get<unsigned>(8);
  const Kernel& kernel = module->kernel("k");
  launch(*module, kernel, {1, 1, 1}, {8, 1, 1}, 0, parameters(kernel, out), memory.options());
  for (unsigned i = 0; i < 8; ++i) EXPECT_EQ(out[i], i > 3 ? 7u : i);
  EXPECT_EQ(module->target(), 80);
}

}  // namespace
}  // namespace bireal::ptx::testing
