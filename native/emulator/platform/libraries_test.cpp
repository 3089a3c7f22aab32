// The stand-in libcublas.so.12 and libcudnn.so.9 against plain loops, and what they must refuse.
#include <cmath>
#include <cstring>
#include <random>

#include "emulator/platform/numbers.h"
#include "emulator/platform/platform_testing.h"

namespace bireal::emulator::testing {
namespace {

constexpr int kSuccessStatus = 0;
// cudaDataType
constexpr int kR32F = 0, kR64F = 1, kR16F = 2, kR16BF = 14;
// cublasComputeType_t
constexpr int kCompute16F = 64, kCompute32F = 68, kCompute32FPedantic = 69, kCompute32FFastTf32 = 77;

std::vector<float> random_values(size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(engine);
  return values;
}

std::vector<unsigned char> pack(Storage type, const std::vector<float>& values) {
  std::vector<unsigned char> bytes(values.size() * storage_bytes(type));
  for (size_t i = 0; i < values.size(); ++i) store(type, bytes.data() + i * storage_bytes(type), values[i]);
  return bytes;
}

std::vector<float> unpack(Storage type, const std::vector<unsigned char>& bytes) {
  std::vector<float> values(bytes.size() / storage_bytes(type));
  for (size_t i = 0; i < values.size(); ++i) values[i] = load(type, bytes.data() + i * storage_bytes(type));
  return values;
}

TEST(Numbers, roundToNearestEven) {
  EXPECT_EQ(1.0f, round_mantissa(1.0f + 1.0f / 2048, 10));                // half way, down to even
  EXPECT_EQ(1.0f + 2.0f / 1024, round_mantissa(1.0f + 3.0f / 2048, 10));  // half way, up to even
  EXPECT_EQ(-1.0f - 1.0f / 1024, round_mantissa(-1.0f - 1.1f / 1024, 10));
  EXPECT_TRUE(std::isnan(round_mantissa(NAN, 10)));
  unsigned char bytes[4];
  for (Storage type : {Storage::kHalf, Storage::kBfloat16})
    for (float value : {0.0f, -1.5f, 0.25f, INFINITY}) {
      store(type, bytes, value);
      EXPECT_EQ(value, load(type, bytes));
    }
  store(Storage::kBfloat16, bytes, NAN);
  EXPECT_TRUE(std::isnan(load(Storage::kBfloat16, bytes)));
}

class Cublas : public PlatformTest {
 protected:
  void SetUp() override {
    PlatformTest::SetUp();
    stream_ = stream();
    ASSERT_EQ(0, cublas().call("cublasCreate_v2", &handle_));
    ASSERT_EQ(0, cublas().call("cublasSetStream_v2", handle_, stream_));
  }
  void TearDown() override {
    cublas().call("cublasDestroy_v2", handle_);
    PlatformTest::TearDown();
  }
  uint64_t handle_ = 0, stream_ = 0;
  float one_ = 1, zero_ = 0;
};

TEST_F(Cublas, sgemmInAllTranspositions) {
  const int m = 5, n = 4, k = 3, pad = 2;
  for (int ta : {0, 1, 2})
    for (int tb : {0, 1})
      for (float beta : {0.0f, 0.5f}) {
        int lda = (ta != 0 ? k : m) + pad, ldb = (tb != 0 ? n : k) + pad, ldc = m + pad;
        std::vector<float> a = random_values(size_t(lda * 8), 1), b = random_values(size_t(ldb * 8), 2),
                           c = random_values(size_t(ldc * n), 3);
        uint64_t da = upload(a), db = upload(b), dc = upload(c);
        float alpha = 2;
        ASSERT_EQ(0, cublas().call("cublasSgemm_v2", handle_, ta, tb, m, n, k, &alpha, da, lda, db, ldb, &beta, dc, ldc))
            << last_error();
        std::vector<float> got = download(dc, c.size());
        for (int j = 0; j < n; ++j)
          for (int i = 0; i < ldc; ++i) {
            double expected = c[size_t(j * ldc + i)];
            if (i < m) {
              double sum = 0;
              for (int l = 0; l < k; ++l)
                sum += double(a[size_t(ta != 0 ? i * lda + l : l * lda + i)]) * b[size_t(tb != 0 ? l * ldb + j : j * ldb + l)];
              expected = 2 * sum + (beta != 0 ? 0.5 * c[size_t(j * ldc + i)] : 0);
            }
            ASSERT_NEAR(expected, got[size_t(j * ldc + i)], 1e-6) << ta << tb << i << j;
          }
      }
}

TEST_F(Cublas, gemmExTypes) {
  struct Case {
    Storage in, out;
    int in_type, out_type, compute;
    double tolerance;  // one rounding of a result below 4
  };
  const Case cases[] = {{Storage::kHalf, Storage::kHalf, kR16F, kR16F, kCompute32F, 2e-3},
                        {Storage::kHalf, Storage::kFloat, kR16F, kR32F, kCompute32F, 1e-6},
                        {Storage::kBfloat16, Storage::kBfloat16, kR16BF, kR16BF, kCompute32F, 1.6e-2},
                        {Storage::kBfloat16, Storage::kFloat, kR16BF, kR32F, kCompute32FPedantic, 1e-6},
                        {Storage::kFloat, Storage::kFloat, kR32F, kR32F, kCompute32FPedantic, 1e-6}};
  const int m = 3, n = 2, k = 4;
  for (const Case& test : cases) {
    std::vector<unsigned char> a = pack(test.in, random_values(m * k, 1)), b = pack(test.in, random_values(k * n, 2));
    uint64_t da = upload(a), db = upload(b), dc = allocate(m * n * storage_bytes(test.out));
    ASSERT_EQ(0, cublas().call("cublasGemmEx", handle_, 0, 0, m, n, k, &one_, da, test.in_type, m, db, test.in_type, k, &zero_,
                               dc, test.out_type, m, test.compute, -1))
        << last_error();
    std::vector<float> x = unpack(test.in, a), y = unpack(test.in, b),
                       got = unpack(test.out, download<unsigned char>(dc, m * n * storage_bytes(test.out)));
    for (int j = 0; j < n; ++j)
      for (int i = 0; i < m; ++i) {
        double sum = 0;
        for (int l = 0; l < k; ++l) sum += double(x[size_t(l * m + i)]) * y[size_t(j * k + l)];
        ASSERT_NEAR(sum, got[size_t(j * m + i)], test.tolerance);
      }
  }
}

TEST_F(Cublas, tf32IsVisibleWhereItIsAllowed) {
  float value = 1.0f + 1.0f / 4096;  // TF32 drops the last bit
  uint64_t a = upload(std::vector<float>{value}), b = upload(std::vector<float>{1.0f}), c = allocate(4);
  auto product = [&](int compute) {
    EXPECT_EQ(0, cublas().call("cublasGemmEx", handle_, 0, 0, 1, 1, 1, &one_, a, kR32F, 1, b, kR32F, 1, &zero_, c, kR32F, 1,
                               compute, -1))
        << last_error();
    return download(c, 1)[0];
  };
  EXPECT_EQ(value, product(kCompute32F));
  EXPECT_EQ(1.0f, product(kCompute32FFastTf32));
  ASSERT_EQ(0, cublas().call("cublasSetMathMode", handle_, 3));
  EXPECT_EQ(1.0f, product(kCompute32F));
  EXPECT_EQ(value, product(kCompute32FPedantic));
  set("compute_capability", 75);
  EXPECT_EQ(value, product(kCompute32F)) << "no TF32 before 8.0";
}

TEST_F(Cublas, illegalCallsAreRefused) {
  uint64_t a = upload(random_values(64, 1)), c = allocate(256);
  auto gemm = [&](int in, int out, int compute, int algorithm, int operation = 0, int lda = 4) {
    return cublas().call("cublasGemmEx", handle_, operation, 0, 4, 4, 4, &one_, a, in, lda, a, in, 4, &zero_, c, out, 4, compute,
                         algorithm);
  };
  EXPECT_EQ(7, gemm(kR32F, kR32F, kR32F, -1)) << "a data type is no compute type";
  EXPECT_EQ(15, gemm(kR16F, kR16F, kCompute16F, -1));
  EXPECT_EQ(15, gemm(kR64F, kR64F, kCompute32F, -1));
  EXPECT_EQ(15, gemm(kR32F, kR16F, kCompute32F, -1));
  EXPECT_EQ(15, gemm(kR16F, kR16F, kCompute32FFastTf32, -1));
  EXPECT_EQ(7, gemm(kR32F, kR32F, kCompute32F, 50));
  EXPECT_EQ(7, gemm(kR32F, kR32F, kCompute32F, -1, 3));
  EXPECT_EQ(7, gemm(kR32F, kR32F, kCompute32F, -1, 0, 3));
  EXPECT_NE(std::string::npos, last_error().find("leading dimension 3 of A")) << last_error();
  EXPECT_EQ(7, cublas().call("cublasSetMathMode", handle_, 4));
  EXPECT_EQ(7, cublas().call("cublasSetWorkspace_v2", handle_, c + 4, 64));
  EXPECT_EQ(1, cublas().call("cublasSetStream_v2", 12345, stream_));
  set("compute_capability", 75);
  EXPECT_EQ(15, gemm(kR16BF, kR16BF, kCompute32F, -1));
}

TEST_F(Cublas, badMemoryIsFound) {
  uint64_t a = upload(random_values(16, 1)), fresh = allocate(64), c = allocate(64);
  ASSERT_EQ(0, cublas().call("cublasSgemm_v2", handle_, 0, 0, 4, 4, 4, &one_, a, 4, fresh, 4, &zero_, c, 4));
  OK(cu("cuStreamSynchronize", stream_));
  expect_finding("uninitialised read: B");
  ASSERT_EQ(0, cublas().call("cublasSgemm_v2", handle_, 0, 0, 4, 4, 4, &one_, a, 4, a, 4, &zero_, c + 16, 4));
  EXPECT_EQ(kIllegalAddress, cu("cuStreamSynchronize", stream_));
  expect_finding("out of bounds");
}

TEST_F(Cublas, theWorkspaceIsScratchAndLostWithTheStream) {
  uint64_t a = upload(random_values(16, 1)), c = allocate(64), workspace = allocate(4096);
  ASSERT_EQ(0, cublas().call("cublasSetWorkspace_v2", handle_, workspace, 4096));
  ASSERT_EQ(0, cublas().call("cublasSgemm_v2", handle_, 0, 0, 4, 4, 4, &one_, a, 4, a, 4, &zero_, c, 4));
  // Another stream uses the same workspace without waiting.
  uint64_t other = 0, second = stream();
  ASSERT_EQ(0, cublas().call("cublasCreate_v2", &other));
  ASSERT_EQ(0, cublas().call("cublasSetStream_v2", other, second));
  ASSERT_EQ(0, cublas().call("cublasSetWorkspace_v2", other, workspace, 4096));
  uint64_t c2 = allocate(64);
  ASSERT_EQ(0, cublas().call("cublasSgemm_v2", other, 0, 0, 4, 4, 4, &one_, a, 4, a, 4, &zero_, c2, 4));
  OK(cu("cuCtxSynchronize"));
  expect_finding("conflict: cublasSgemm");
  ASSERT_EQ(0, cublas().call("cublasSetStream_v2", other, second));
  ASSERT_EQ(0, cublas().call("cublasSgemm_v2", other, 0, 0, 4, 4, 4, &one_, a, 4, a, 4, &zero_, c2, 4));
  OK(cu("cuCtxSynchronize"));
  expect_finding("took the workspace");
  cublas().call("cublasDestroy_v2", other);
}

TEST_F(Cublas, theDefaultStreamIsRefused) {
  uint64_t handle = 0, a = upload(random_values(16, 1)), c = allocate(64);
  ASSERT_EQ(0, cublas().call("cublasCreate_v2", &handle));
  EXPECT_EQ(13, cublas().call("cublasSgemm_v2", handle, 0, 0, 4, 4, 4, &one_, a, 4, a, 4, &zero_, c, 4));
  expect_finding("the null stream was used");
  cublas().call("cublasDestroy_v2", handle);
}

TEST_F(Cublas, injectedFaultIsSticky) {
  uint64_t a = upload(random_values(16, 1)), c = allocate(64);
  set("fail_launch", 2);
  set("fail_launch_code", 719);
  for (int i = 0; i < 2; ++i)
    ASSERT_EQ(0, cublas().call("cublasSgemm_v2", handle_, 0, 0, 4, 4, 4, &one_, a, 4, a, 4, &zero_, c, 4));
  EXPECT_EQ(kLaunchFailed, cu("cuStreamSynchronize", stream_));
  EXPECT_EQ(13, cublas().call("cublasSgemm_v2", handle_, 0, 0, 4, 4, 4, &one_, a, 4, a, 4, &zero_, c, 4));
  EXPECT_EQ(kLaunchFailed, cu("cuMemFree_v2", a));
  EXPECT_EQ(kLaunchFailed, get("sticky"));
}

TEST_F(Cublas, callsAreRecorded) {
  uint64_t a = upload(random_values(16, 1)), c = allocate(64);
  cuda().call<void>("bireal_emulator_clear");
  ASSERT_EQ(0, cublas().call("cublasSgemm_v2", handle_, 0, 0, 4, 4, 4, &one_, a, 4, a, 4, &zero_, c, 4));
  OK(cu("cuStreamSynchronize", stream_));
  std::vector<bireal_emulator_record> all = records();
  ASSERT_EQ(1u, all.size());
  EXPECT_STREQ("cublasSgemm", all[0].name);
  EXPECT_EQ(BIREAL_EMULATOR_LIBRARY, all[0].kind);
  EXPECT_EQ(64u, all[0].read.bytes) << "every operand once; A and B are the same here";
  EXPECT_EQ(2u, all[0].write.sectors_distinct);
}

// ---- cuDNN

constexpr int kNchw = 0, kNhwc = 1;
constexpr int kFloatType = 0, kHalfType = 2, kBfloat16Type = 9;
constexpr int kFmaMath = 3, kTensorOpMath = 1;

struct Performance {
  int algorithm, status;
  float time;
  size_t memory;
  int determinism, math_type;
  int reserved[3];
};

struct Geometry {
  int n = 2, c = 3, h = 5, w = 4, k = 4, r = 3, s = 2, pad = 1, pad_w = 2, stride = 2, stride_w = 1, dilation = 1, mode = 1;
  int p() const { return 1 + (h + 2 * pad - ((r - 1) * dilation + 1)) / stride; }
  int q() const { return 1 + (w + 2 * pad_w - ((s - 1) * dilation + 1)) / stride_w; }
};

class Cudnn : public PlatformTest {
 protected:
  void SetUp() override {
    PlatformTest::SetUp();
    stream_ = stream();
    dnn("cudnnCreate", &handle_);
    dnn("cudnnSetStream", handle_, stream_);
    dnn("cudnnCreateTensorDescriptor", &x_);
    dnn("cudnnCreateTensorDescriptor", &y_);
    dnn("cudnnCreateFilterDescriptor", &w_);
    dnn("cudnnCreateConvolutionDescriptor", &options_);
  }
  template <class... Arguments>
  static int raw(const char* name, Arguments... arguments) {
    return cudnn().call(name, arguments...);
  }
  template <class... Arguments>
  static void dnn(const char* name, Arguments... arguments) {
    ASSERT_EQ(0, raw(name, arguments...)) << name << ": " << last_error();
  }
  void describe(const Geometry& g, int type, int format, int math_type) {
    dnn("cudnnSetTensor4dDescriptor", x_, format, type, g.n, g.c, g.h, g.w);
    dnn("cudnnSetTensor4dDescriptor", y_, format, type, g.n, g.k, g.p(), g.q());
    dnn("cudnnSetFilter4dDescriptor", w_, type, format, g.k, g.c, g.r, g.s);
    dnn("cudnnSetConvolution2dDescriptor", options_, g.pad, g.pad_w, g.stride, g.stride_w, g.dilation, g.dilation, g.mode,
        kFloatType);
    dnn("cudnnSetConvolutionMathType", options_, math_type);
    int n = 0, k = 0, p = 0, q = 0;
    dnn("cudnnGetConvolution2dForwardOutputDim", options_, x_, w_, &n, &k, &p, &q);
    EXPECT_EQ(g.p(), p);
    EXPECT_EQ(g.q(), q);
  }
  uint64_t handle_ = 0, stream_ = 0, x_ = 0, y_ = 0, w_ = 0, options_ = 0;
  float one_ = 1, zero_ = 0;
};

size_t place(int format, int c, int h, int w, int in, int ic, int ih, int iw) {
  return format == kNhwc ? size_t(((in * h + ih) * w + iw) * c + ic) : size_t(((in * c + ic) * h + ih) * w + iw);
}

// Forward against the formula; the two backward passes by <conv(x, w), dy> = <x, bwd_data(w, dy)> = <w, bwd_filter(x, dy)>.
TEST_F(Cudnn, convolutionsOfEveryTypeAndLayout) {
  struct Case {
    Storage storage;
    int type, format, math;
    double tolerance;
  };
  const Case cases[] = {{Storage::kFloat, kFloatType, kNchw, kFmaMath, 1e-5},
                        {Storage::kFloat, kFloatType, kNhwc, kFmaMath, 1e-5},
                        {Storage::kHalf, kHalfType, kNhwc, kTensorOpMath, 3e-2},
                        {Storage::kBfloat16, kBfloat16Type, kNhwc, kTensorOpMath, 3e-1}};
  for (const Case& test : cases)
    for (int mode : {0, 1})
      for (int dilation : {1, 2}) {
        Geometry g;
        g.mode = mode;
        g.dilation = dilation;
        describe(g, test.type, test.format, test.math);
        size_t x_count = size_t(g.n * g.c * g.h * g.w), w_count = size_t(g.k * g.c * g.r * g.s),
               y_count = size_t(g.n * g.k * g.p() * g.q()), size = storage_bytes(test.storage);
        std::vector<unsigned char> x = pack(test.storage, random_values(x_count, 1)),
                                   w = pack(test.storage, random_values(w_count, 2)),
                                   dy = pack(test.storage, random_values(y_count, 3));
        uint64_t dx_ = allocate(x_count * size), dw_ = allocate(w_count * size), out = allocate(y_count * size),
                 x_device = upload(x), w_device = upload(w), dy_device = upload(dy), workspace = allocate(1 << 16);
        dnn("cudnnConvolutionForward", handle_, &one_, x_, x_device, w_, w_device, options_, 1, workspace, 1 << 16, &zero_, y_,
            out);
        bool deterministic = test.storage != Storage::kFloat || test.format == kNchw;
        int algorithm = deterministic ? 1 : 0;
        dnn("cudnnConvolutionBackwardData", handle_, &one_, w_, w_device, y_, dy_device, options_, algorithm, workspace, 1 << 16,
            &zero_, x_, dx_);
        dnn("cudnnConvolutionBackwardFilter", handle_, &one_, x_, x_device, y_, dy_device, options_, algorithm, workspace,
            1 << 16, &zero_, w_, dw_);
        auto values = [&](uint64_t address, size_t count) {
          return unpack(test.storage, download<unsigned char>(address, count * size));
        };
        std::vector<float> y = values(out, y_count), dx = values(dx_, x_count), dw = values(dw_, w_count),
                           fx = unpack(test.storage, x), fw = unpack(test.storage, w), fdy = unpack(test.storage, dy);
        for (int n = 0; n < g.n; ++n)
          for (int k = 0; k < g.k; ++k)
            for (int i = 0; i < g.p(); ++i)
              for (int j = 0; j < g.q(); ++j) {
                double sum = 0;
                for (int c = 0; c < g.c; ++c)
                  for (int r = 0; r < g.r; ++r)
                    for (int s = 0; s < g.s; ++s) {
                      int h = i * g.stride - g.pad + r * g.dilation, v = j * g.stride_w - g.pad_w + s * g.dilation;
                      if (h < 0 || v < 0 || h >= g.h || v >= g.w) continue;
                      int fr = mode == 0 ? g.r - 1 - r : r, fs = mode == 0 ? g.s - 1 - s : s;
                      sum += double(fx[place(test.format, g.c, g.h, g.w, n, c, h, v)]) *
                             fw[place(test.format, g.c, g.r, g.s, k, c, fr, fs)];
                    }
                ASSERT_NEAR(sum, y[place(test.format, g.k, g.p(), g.q(), n, k, i, j)], test.tolerance);
              }
        double forward = 0, data = 0, filter = 0;
        for (size_t i = 0; i < y_count; ++i) forward += double(y[i]) * fdy[i];
        for (size_t i = 0; i < x_count; ++i) data += double(dx[i]) * fx[i];
        for (size_t i = 0; i < w_count; ++i) filter += double(dw[i]) * fw[i];
        EXPECT_NEAR(forward, data, test.tolerance * 10);
        EXPECT_NEAR(forward, filter, test.tolerance * 10);
      }
}

TEST_F(Cudnn, alphaAndBeta) {
  Geometry g;
  describe(g, kFloatType, kNchw, kFmaMath);
  size_t y_count = size_t(g.n * g.k * g.p() * g.q());
  uint64_t x = upload(random_values(size_t(g.n * g.c * g.h * g.w), 1)),
           w = upload(random_values(size_t(g.k * g.c * g.r * g.s), 2)), plain = allocate(y_count * 4),
           mixed = upload(std::vector<float>(y_count, 10.0f));
  dnn("cudnnConvolutionForward", handle_, &one_, x_, x, w_, w, options_, 0, 0, 0, &zero_, y_, plain);
  float alpha = 2, beta = 0.5f;
  dnn("cudnnConvolutionForward", handle_, &alpha, x_, x, w_, w, options_, 0, 0, 0, &beta, y_, mixed);
  std::vector<float> first = download(plain, y_count), second = download(mixed, y_count);
  for (size_t i = 0; i < y_count; ++i) EXPECT_NEAR(2 * first[i] + 5, second[i], 1e-5);
}

TEST_F(Cudnn, float32IsTf32UnlessFmaIsAskedFor) {
  Geometry g;
  g.n = g.c = g.h = g.w = g.k = g.r = g.s = g.stride = 1;
  g.pad = g.pad_w = 0;
  float value = 1.0f + 1.0f / 4096;
  uint64_t x = upload(std::vector<float>{value}), w = upload(std::vector<float>{1.0f}), y = allocate(4);
  for (int math : {0, 3}) {
    describe(g, kFloatType, kNchw, math);
    dnn("cudnnConvolutionForward", handle_, &one_, x_, x, w_, w, options_, 0, 0, 0, &zero_, y_, y);
    EXPECT_EQ(math == 3 ? value : 1.0f, download(y, 1)[0]);
  }
}

TEST_F(Cudnn, algorithmsSayWhatTheyAre) {
  Geometry g;
  struct Case {
    int type, format, math, capability;
    bool deterministic_exists;
  };
  const Case cases[] = {{kFloatType, kNchw, kFmaMath, 80, true},
                        {kFloatType, kNhwc, kFmaMath, 80, false},
                        {kFloatType, kNhwc, 0, 80, true},
                        {kFloatType, kNhwc, 0, 75, false},
                        {kHalfType, kNhwc, kTensorOpMath, 75, true},
                        {kBfloat16Type, kNhwc, kTensorOpMath, 90, true}};
  for (const Case& test : cases) {
    set("compute_capability", test.capability);
    describe(g, test.type, test.format, test.math);
    for (const char* pass : {"BackwardData", "BackwardFilter"}) {
      Performance list[16];
      int count = 0;
      std::string name = std::string("cudnnGetConvolution") + pass + "Algorithm_v7";
      bool data = std::strcmp(pass, "BackwardData") == 0;
      dnn(name.c_str(), handle_, data ? w_ : x_, y_, options_, data ? x_ : w_, 16, &count, list);
      ASSERT_GT(count, 0);
      EXPECT_EQ(0, list[0].status);
      EXPECT_EQ(0, list[0].determinism) << "the first is the trap: atomics are often the fastest";
      bool found = false;
      for (int i = 0; i < count; ++i) {
        if (list[i].status != 0 || list[i].determinism == 0) continue;
        found = true;
        EXPECT_EQ(1, list[i].algorithm);
        EXPECT_GT(list[i].memory, 0u);
        dnn("cudnnSetConvolutionMathType", options_, list[i].math_type);
        size_t bytes = 0;
        std::string size = std::string("cudnnGetConvolution") + pass + "WorkspaceSize";
        dnn(size.c_str(), handle_, data ? w_ : x_, y_, options_, data ? x_ : w_, list[i].algorithm, &bytes);
        EXPECT_EQ(list[i].memory, bytes);
        dnn("cudnnSetConvolutionMathType", options_, test.math);
      }
      EXPECT_EQ(test.deterministic_exists, found) << pass << " type " << test.type << " format " << test.format;
    }
  }
}

TEST_F(Cudnn, illegalCallsAreRefused) {
  EXPECT_EQ(2000, raw("cudnnSetTensor4dDescriptor", x_, 0, 0, 1, 0, 1, 1));
  EXPECT_EQ(2000, raw("cudnnSetTensor4dDescriptor", x_, 5, 0, 1, 1, 1, 1));
  EXPECT_EQ(2000, raw("cudnnSetTensor4dDescriptor", x_, 0, 99, 1, 1, 1, 1));
  EXPECT_EQ(2000, raw("cudnnSetConvolution2dDescriptor", options_, 0, 0, 0, 1, 1, 1, 1, 0));
  EXPECT_EQ(2000, raw("cudnnSetConvolutionMathType", options_, 4));
  Geometry g;
  describe(g, kFloatType, kNhwc, kFmaMath);
  size_t x_count = size_t(g.n * g.c * g.h * g.w), w_count = size_t(g.k * g.c * g.r * g.s),
         y_count = size_t(g.n * g.k * g.p() * g.q());
  uint64_t x = upload(random_values(x_count, 1)), w = upload(random_values(w_count, 2)), y = allocate(y_count * 4),
           workspace = allocate(1 << 16);
  auto forward = [&](int algorithm, uint64_t space, size_t bytes) {
    return raw("cudnnConvolutionForward", handle_, &one_, x_, x, w_, w, options_, algorithm, space, bytes, &zero_, y_, y);
  };
  EXPECT_EQ(3004, forward(0, 0, 0));  // NHWC needs IMPLICIT_PRECOMP_GEMM
  EXPECT_EQ(3000, forward(3, workspace, 1 << 16));
  EXPECT_EQ(2000, forward(8, workspace, 1 << 16));
  EXPECT_EQ(2006, forward(1, workspace, 16));
  EXPECT_EQ(2006, forward(1, 0, 1 << 16));
  EXPECT_EQ(0, forward(1, workspace, 1 << 16));
  EXPECT_EQ(3000,
            raw("cudnnConvolutionBackwardData", handle_, &one_, w_, w, y_, y, options_, 1, workspace, 1 << 16, &zero_, x_, x))
      << "true float32 NHWC has no deterministic algorithm";
  dnn("cudnnSetConvolutionGroupCount", options_, 3);
  EXPECT_EQ(3000, forward(1, workspace, 1 << 16));
  dnn("cudnnSetConvolutionGroupCount", options_, 1);
  dnn("cudnnSetTensor4dDescriptor", y_, kNhwc, kFloatType, g.n, g.k, g.p() + 1, g.q());
  EXPECT_EQ(2008, forward(1, workspace, 1 << 16));
  EXPECT_NE(std::string::npos, last_error().find("y must be 2 x 4")) << last_error();
  describe(g, kBfloat16Type, kNhwc, kTensorOpMath);
  set("compute_capability", 75);
  EXPECT_EQ(3007, forward(1, workspace, 1 << 16));
  EXPECT_STREQ("CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH", cudnn().call<const char*>("cudnnGetErrorString", 3007));
  EXPECT_EQ(90501u, cudnn().call<size_t>("cudnnGetVersion"));
  EXPECT_EQ(kNotSupported, raw("cudnnBackendFinalize", 0));
  expect_finding("cudnnBackendFinalize");
}

TEST_F(Cudnn, injectedFaultsAreOfNhwcAlone) {
  Geometry g;
  g.n = g.c = g.h = g.w = g.k = g.r = g.s = g.stride = 1;
  g.pad = g.pad_w = 0;
  uint64_t x = upload(std::vector<float>{3.0f}), w = upload(std::vector<float>{2.0f}), y = allocate(4), workspace = allocate(256);
  Performance list[8];
  int count = 0;
  for (int format : {kNhwc, kNchw}) {
    describe(g, kFloatType, format, kFmaMath);
    set("wrong_algorithm", 1);
    dnn("cudnnConvolutionForward", handle_, &one_, x_, x, w_, w, options_, 1, workspace, 256, &zero_, y_, y);
    EXPECT_EQ(format == kNhwc ? 7.0f : 6.0f, download(y, 1)[0]);
    set("wrong_algorithm", 0);
    dnn("cudnnConvolutionForward", handle_, &one_, x_, x, w_, w, options_, 1, workspace, 256, &zero_, y_, y);
    EXPECT_EQ(6.0f, download(y, 1)[0]);
    set("list_status", 3000);
    for (const char* call : {"cudnnGetConvolutionForwardAlgorithm_v7", "cudnnFindConvolutionForwardAlgorithm"})
      EXPECT_EQ(format == kNhwc ? 3000 : 0, raw(call, handle_, x_, w_, options_, y_, 8, &count, list)) << call;
    set("list_status", 13000);
    EXPECT_EQ(format == kNhwc ? 3000 : 0,
              raw("cudnnFindConvolutionForwardAlgorithm", handle_, x_, w_, options_, y_, 8, &count, list));
    EXPECT_EQ(format == kNhwc, count == 99);
    set("list_status", 0);
  }
}

TEST_F(Cudnn, workspaceIsPoisonedAndCaptureRefusesTiming) {
  Geometry g;
  describe(g, kHalfType, kNhwc, kTensorOpMath);
  size_t x_count = size_t(g.n * g.c * g.h * g.w), w_count = size_t(g.k * g.c * g.r * g.s),
         y_count = size_t(g.n * g.k * g.p() * g.q());
  uint64_t x = upload(pack(Storage::kHalf, random_values(x_count, 1))),
           w = upload(pack(Storage::kHalf, random_values(w_count, 2))), y = allocate(y_count * 2),
           workspace = upload(std::vector<float>(1 << 12, 1.0f));
  dnn("cudnnConvolutionForward", handle_, &one_, x_, x, w_, w, options_, 1, workspace, 1 << 14, &zero_, y_, y);
  OK(cu("cuStreamSynchronize", stream_));
  EXPECT_TRUE(std::isnan(download(workspace, 1)[0]));
  expect_finding("uninitialised read");
  Performance list[8];
  int count = 0;
  uint64_t graph = 0;
  dnn("cudnnFindConvolutionForwardAlgorithm", handle_, x_, w_, options_, y_, 8, &count, list);
  OK(cu("cuStreamBeginCapture_v2", stream_, 1));
  EXPECT_EQ(4000, raw("cudnnFindConvolutionForwardAlgorithm", handle_, x_, w_, options_, y_, 8, &count, list));
  OK(cu("cuStreamEndCapture", stream_, &graph));
  EXPECT_EQ(kSuccessStatus, cu("cuGraphDestroy", graph));
}

}  // namespace
}  // namespace bireal::emulator::testing
