#include "ops/binary_conv/binary_conv.h"

#include "ops/binary_conv/binary_conv_cpu.h"
#include "ops/binary_conv/binary_conv_testing.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

template <class T>
void check_fwd(const Conv2dShape& s, int64_t n) {
  const DType v_type = sizeof(T) == 2 ? DType::kI16 : DType::kI32;
  Operands in(s, n, 1);
  Guarded<word_t> x(in.x), w(in.w);
  Guarded<T> expected(s.output_count(n));
  Guarded<int64_t> expected_sums(2 * s.K);
  ref::binary_conv_fwd(expected.data(), v_type, expected_sums.data(), x.data(), w.data(), s, n);
  for (auto& context : all_contexts())
    for (const char* kernel : cpu::binary_conv_kernel_names(*context, s)) {
      SCOPED_TRACE(s.text() + "_n" + std::to_string(n) + "__" + context_name(*context) + "_" + kernel);
      cpu::BinaryConvPlan plan = cpu::binary_conv_plan_kernel(*context, s, kernel);
      ASSERT_EQ(plan.v_type, v_type);
      Guarded<char> prepared(plan.prepared_bytes), workspace(plan.workspace_bytes);
      cpu::binary_conv_prepare(*context, plan, prepared.data(), w.data());
      for (bool with_sums : {true, false}) {
        Guarded<T> v(s.output_count(n));
        Guarded<int64_t> sums(2 * s.K);
        cpu::binary_conv_fwd(*context, plan, v.data(), with_sums ? sums.data() : nullptr, x.data(), prepared.data(), n,
                             workspace.data());
        expect_same_bits(v, expected, "v");
        if (with_sums) expect_same_bits(sums, expected_sums, "sums");
        v.expect_guards("v");
        sums.expect_guards("sums");
      }
      prepared.expect_guards("prepared");
      workspace.expect_guards("workspace");
    }
}

// The reference is the law of both ops: fused or not, every instruction set has its bits.
template <class T>
void check_norm_fwd(const Conv2dShape& s, int64_t n) {
  const DType v_type = sizeof(T) == 2 ? DType::kI16 : DType::kI32;
  const int64_t rows = n * s.P() * s.Q(), K = s.K;
  Operands in(s, n, 1);
  Guarded<word_t> x(in.x), w(in.w);
  Guarded<T> v(s.output_count(n));
  ref::binary_conv_fwd(v.data(), v_type, nullptr, x.data(), w.data(), s, n);
  Guarded<float> affine(random_floats(2 * K, 2)), shortcut(random_floats(rows * K, 3)), shortcut_affine(random_floats(2 * K, 4)),
      threshold(random_floats(K, 5)), bias1(random_floats(K, 6)), slope(random_floats(K, 7)), bias2(random_floats(K, 8));
  BatchNormApply norm{v.data(), v_type, affine.data(), nullptr, nullptr, nullptr};
  for (const char* kind : {"plain", "shortcut and threshold", "shortcut in place", "normalised shortcut and RPReLU"}) {
    const bool in_place = std::string(kind) == "shortcut in place",
               rprelu = std::string(kind) == "normalised shortcut and RPReLU";
    const bool with_bits = std::string(kind) != "plain";
    norm.shortcut = with_bits ? shortcut.data() : nullptr;
    norm.threshold = std::string(kind) == "shortcut and threshold" ? threshold.data() : nullptr;
    norm.shortcut_affine = rprelu ? shortcut_affine.data() : nullptr;
    norm.bias1 = rprelu ? bias1.data() : nullptr;
    norm.slope = rprelu ? slope.data() : nullptr;
    norm.bias2 = rprelu ? bias2.data() : nullptr;
    Guarded<float> expected(rows * K);
    Guarded<word_t> expected_bits(rows * word_count(K));
    ref::batch_norm_apply(expected.data(), expected_bits.data(), norm, rows, K);
    for (auto& context : all_contexts())
      for (const char* kernel : cpu::binary_conv_kernel_names(*context, s)) {
        SCOPED_TRACE(s.text() + "_n" + std::to_string(n) + "__" + context_name(*context) + "_" + kernel + ", " + kind);
        cpu::BinaryConvPlan plan = cpu::binary_conv_plan_kernel(*context, s, kernel);
        ASSERT_EQ(plan.v_type, v_type);
        Guarded<char> prepared(plan.prepared_bytes), workspace(plan.workspace_bytes);
        cpu::binary_conv_prepare(*context, plan, prepared.data(), w.data());
        Guarded<float> y(rows * K);
        if (in_place) y = Guarded<float>(shortcut.values());
        Guarded<word_t> bits(rows * word_count(K));
        BatchNormApply fused = norm;
        fused.v = nullptr;
        fused.v_type = DType::kF32;
        if (in_place) fused.shortcut = y.data();
        cpu::binary_conv_norm_fwd(*context, plan, y.data(), with_bits ? bits.data() : nullptr, fused, x.data(), prepared.data(),
                                  n, workspace.data());
        expect_same_bits(y, expected, "y");
        if (with_bits) expect_same_bits(bits, expected_bits, "bits");
        y.expect_guards("y");
        bits.expect_guards("bits");
        workspace.expect_guards("workspace");
      }
  }
}

}  // namespace

TEST(BinaryConvNormFwd, EveryKernelHasTheBitsOfTheTwoOps) {
  for (const Conv2dShape& s : nasty_shapes()) {
    check_norm_fwd<int16_t>(s, s.N);
    if (HasFailure()) return;
  }
  for (int64_t n : {1, 2, 6}) check_norm_fwd<int16_t>({7, 4, 3, 33, 17, 3, 3, 1, 1}, n);
  check_norm_fwd<int16_t>({1, 63, 65, 33, 130, 3, 3, 1, 1}, 1);  // 2 MB: y and shortcut are fetched
  check_norm_fwd<int32_t>({2, 3, 4, 3641, 35, 3, 3, 1, 1}, 2);
}

TEST(BinaryConvFwd, HandWorkedThreeByThree) {
  // One channel, image rows (+ - +), (- - +), (+ + +); filter all +1 except the centre; pad 1.
  //   centre output: all nine taps: sum of the image is 3, minus twice the centre pixel (-1): 3 + 2 = 5
  //   top left:      taps (0,0) = filter centre: -(+1), (0,1) -1, (1,0) -1, (1,1) -1: -4
  //   bottom right:  taps (1,1) -1, (1,2) +1, (2,1) +1, (2,2) = filter centre: -(+1): 0
  Conv2dShape s{1, 3, 3, 1, 1, 3, 3, 1, 1};
  Guarded<word_t> x(std::vector<word_t>{0, 1, 0, 1, 1, 0, 0, 0, 0}), w(std::vector<word_t>{0, 0, 0, 0, 1, 0, 0, 0, 0});
  Guarded<int16_t> v(9);
  Guarded<int64_t> sums(2);
  ref::binary_conv_fwd(v.data(), DType::kI16, sums.data(), x.data(), w.data(), s, 1);
  EXPECT_EQ(v.values(), (std::vector<int16_t>{-4, 2, -2, 2, 5, 0, -2, 0, 0}));
  EXPECT_EQ(sums[0], 1);
  EXPECT_EQ(sums[1], 16 + 4 + 4 + 4 + 25 + 4);
}

TEST(BinaryConvFwd, EveryKernelMatchesRefOnNastyShapes) {
  for (const Conv2dShape& s : nasty_shapes()) {
    check_fwd<int16_t>(s, s.N);
    if (HasFatalFailure()) return;
  }
}

TEST(BinaryConvFwd, RunsAnyBatchUpToThePlans) {
  for (int64_t n : {1, 2, 6}) check_fwd<int16_t>({7, 4, 3, 33, 17, 3, 3, 1, 1}, n);
}

TEST(BinaryConvFwd, UsesInt32WhereInt16IsTooNarrow) {
  EXPECT_EQ(binary_conv_v_type({1, 3, 3, 3640, 1, 3, 3, 1, 1}), DType::kI16);  // 32760
  EXPECT_EQ(binary_conv_v_type({1, 3, 3, 3641, 1, 3, 3, 1, 1}), DType::kI32);  // 32769
  check_fwd<int16_t>({1, 3, 4, 3640, 5, 3, 3, 1, 1}, 1);
  check_fwd<int16_t>({1, 30, 30, 1820, 2, 3, 3, 1, 1}, 1);  // 16380: the largest with sums inside the kernel
  check_fwd<int32_t>({1, 3, 4, 3641, 35, 3, 3, 1, 1}, 1);
}

TEST(BinaryConvFwd, ExtremeValuesFitTheirTypes) {
  // All products equal: |v| = R*S*C, v^2 sums at their largest, for all x = w and x = -w.
  for (int64_t C : {1820, 3640})
    for (word_t flip : {0u, 0xFFFFFFFFu})
      for (auto& context : all_contexts())
        for (const char* kernel : cpu::binary_conv_kernel_names(*context, {1, 20, 20, C, 2, 3, 3, 1, 1})) {
          Conv2dShape s{1, 20, 20, C, 2, 3, 3, 1, 1};
          SCOPED_TRACE(s.text() + context_name(*context) + kernel);
          cpu::BinaryConvPlan plan = cpu::binary_conv_plan_kernel(*context, s, kernel);
          Guarded<word_t> x(400 * word_count(C)), w(18 * word_count(C));
          for (int64_t i = 0; i < x.count(); ++i) x[i] = flip & valid_mask(C, i % word_count(C));
          for (int64_t i = 0; i < w.count(); ++i) w[i] = 0;
          Guarded<char> prepared(plan.prepared_bytes), workspace(plan.workspace_bytes);
          Guarded<int16_t> v(800);
          Guarded<int64_t> sums(4);
          cpu::binary_conv_prepare(*context, plan, prepared.data(), w.data());
          cpu::binary_conv_fwd(*context, plan, v.data(), sums.data(), x.data(), prepared.data(), 1, workspace.data());
          const int64_t sign = flip ? -1 : 1;
          EXPECT_EQ(v[2 * 21], sign * 9 * C);
          EXPECT_EQ(v[0], sign * 4 * C);
          // 18*18 pixels with 9 taps, 4*18 with 6, 4 with 4.
          EXPECT_EQ(sums[1], sign * C * (324 * 9 + 72 * 6 + 4 * 4));
          EXPECT_EQ(sums[3], C * C * (324 * 81 + 72 * 36 + 4 * 16));
        }
}

TEST(BinaryConvFwd, EqualsTheFloatConvolutionOfTheUnpackedSignsWithZeroPadding) {
  // The independent oracle: multiplies floats, pads with zeros that are really there, knows nothing of bits. Sums of up to
  // 9 * 65 values of +-1 are exact in float.
  for (const Conv2dShape& s : nasty_shapes()) {
    SCOPED_TRACE(s.text());
    const int64_t n = s.N, Hp = s.H + 2 * s.pad, Wp = s.W + 2 * s.pad;
    Operands in(s, n, 11);
    std::vector<float> xf = unpacked(in.x, s.C), wf = unpacked(in.w, s.C);
    std::vector<float> padded(size_t(n * Hp * Wp * s.C), 0.0f);
    for (int64_t i = 0; i < n * s.H * s.W; ++i)
      for (int64_t c = 0; c < s.C; ++c) {
        int64_t image = i / (s.H * s.W), h = i / s.W % s.H, w = i % s.W;
        padded[size_t(((image * Hp + h + s.pad) * Wp + w + s.pad) * s.C + c)] = xf[size_t(i * s.C + c)];
      }
    auto context = std::make_shared<cpu::Context>(1, cpu::default_isa());
    cpu::BinaryConvPlan plan = cpu::binary_conv_plan(*context, s);
    Guarded<char> prepared(plan.prepared_bytes), workspace(plan.workspace_bytes);
    Guarded<int16_t> v(s.output_count(n));
    cpu::binary_conv_prepare(*context, plan, prepared.data(), in.w.data());
    cpu::binary_conv_fwd(*context, plan, v.data(), nullptr, in.x.data(), prepared.data(), n, workspace.data());
    for (int64_t out = 0; out < n * s.P() * s.Q(); ++out)
      for (int64_t k = 0; k < s.K; ++k) {
        int64_t image = out / (s.P() * s.Q()), p = out / s.Q() % s.P(), q = out % s.Q();
        float sum = 0.0f;
        for (int64_t r = 0; r < s.R; ++r)
          for (int64_t i = 0; i < s.S * s.C; ++i)
            sum += padded[size_t(((image * Hp + p * s.stride + r) * Wp + q * s.stride) * s.C + i)] *
                   wf[size_t((k * s.R + r) * s.S * s.C + i)];
        ASSERT_EQ(float(v[out * s.K + k]), sum) << "pixel " << out << " channel " << k;
      }
  }
}

TEST(BinaryConvPlan, RejectsBadShapesWithTheirNumbers) {
  cpu::Context context(1, cpu::Isa::kScalar);
  auto message = [&](const Conv2dShape& s) -> std::string {
    try {
      cpu::binary_conv_plan(context, s);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({1, 4, 4, 0, 8, 3, 3, 1, 1}), "binary_conv: C must be >= 1, got 0");
  EXPECT_EQ(message({1, 4, 4, 8, 8, 3, 3, 0, 1}), "binary_conv: stride must be >= 1, got 0");
  EXPECT_EQ(message({1, 4, 4, 8, 8, 3, 3, 1, 3}), "binary_conv: pad must be smaller than the filter, got pad 3 for 3x3");
  EXPECT_EQ(message({1, 1, 4, 8, 8, 5, 3, 1, 1}).rfind("binary_conv: filter 5x3 is larger than the padded", 0), 0u);
  EXPECT_EQ(message({1, 4, 4, 1 << 27, 8, 3, 3, 1, 1}),
            "binary_conv: R*S*C must be < 2^30, got N1_H4_W4_C134217728_K8_R3_S3_st1_pad1");
  EXPECT_EQ(message({1, 20000, 20000, 32, 8, 3, 3, 1, 1}),
            "binary_conv: a padded image must have fewer than 2^27 words of 32 channels, got "
            "N1_H20000_W20000_C32_K8_R3_S3_st1_pad1");
}

TEST(BinaryConvPlan, SaysWhichKernelItChose) {
  cpu::Context scalar(1, cpu::Isa::kScalar);
  EXPECT_STREQ(cpu::binary_conv_plan(scalar, {1, 4, 4, 64, 64, 3, 3, 1, 1}).kernel_name, "portable");
  EXPECT_STREQ(cpu::binary_conv_plan(scalar, {1, 4, 4, 4000, 8, 3, 3, 1, 1}).kernel_name, "portable_i32");
  if (cpu::default_isa() < cpu::Isa::kAvx2) GTEST_SKIP() << "no AVX2 here";
  cpu::Context avx2(1, cpu::Isa::kAvx2);
  EXPECT_STREQ(cpu::binary_conv_plan(avx2, {1, 4, 4, 64, 64, 3, 3, 1, 1}).kernel_name, "avx2_nibble_table");
  if (cpu::default_isa() < cpu::Isa::kAvx512) GTEST_SKIP() << "no AVX-512 here";
  cpu::Context avx512(1, cpu::Isa::kAvx512);
  EXPECT_STREQ(cpu::binary_conv_plan(avx512, {1, 4, 4, 64, 64, 3, 3, 1, 1}).kernel_name, "avx512_nibble_table");
  if (cpu::default_isa() < cpu::Isa::kAvx512Vpopcntdq) GTEST_SKIP() << "no VPOPCNTDQ here";
  cpu::Context vpopcntdq(1, cpu::Isa::kAvx512Vpopcntdq);
  EXPECT_STREQ(cpu::binary_conv_plan(vpopcntdq, {1, 4, 4, 64, 64, 3, 3, 1, 1}).kernel_name, "avx512_vpopcntdq");
}

TEST(BinaryConvBwdInput, EveryContextIsWithinTheBoundAndThreadsDoNotChangeABit) {
  for (const Conv2dShape& s : backward_shapes())
    for (int64_t n : {s.N, std::max<int64_t>(1, s.N / 2)}) {
      Operands in(s, n, 21);
      Guarded<float> dz(random_floats(s.output_count(n), 22)), alpha(random_floats(s.K, 23));
      Guarded<float> expected(s.input_count(n));
      ref::binary_conv_bwd_input(expected.data(), dz.data(), alpha.data(), in.w.data(), s, n);
      Bound bound(s.input_count(n));
      for_each_pair(s, n, [&](int64_t i, int64_t, int64_t out) {
        for (int64_t c = 0; c < s.C; ++c)
          for (int64_t k = 0; k < s.K; ++k) bound.add(i * s.C + c, double(dz[out * s.K + k]) * alpha[k]);
      });
      Guarded<float> first(0);
      for (auto& context : all_contexts({1, 3})) {
        SCOPED_TRACE(s.text() + "_n" + std::to_string(n) + "__" + context_name(*context));
        cpu::BinaryConvPlan plan = cpu::binary_conv_plan(*context, s);
        Guarded<char> workspace(plan.workspace_bytes);
        Guarded<float> dx(s.input_count(n));
        cpu::binary_conv_bwd_input(*context, plan, dx.data(), dz.data(), alpha.data(), in.w.data(), n, workspace.data());
        expect_within(dx, expected, bound.values(), "dx");
        dx.expect_guards("dx");
        workspace.expect_guards("workspace");
        if (HasFatalFailure()) return;
        if (context->thread_count() == 1)
          first = Guarded<float>(dx.values());
        else
          expect_same_bits(dx, first, "dx of 3 threads against 1");
      }
    }
}

TEST(BinaryConvBwdWeight, EveryContextIsWithinTheBoundAndThreadsDoNotChangeABit) {
  for (const Conv2dShape& s : backward_shapes())
    for (int64_t n : {s.N, std::max<int64_t>(1, s.N / 2)})
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAccumulate}) {
        const int64_t count = s.K * s.taps() * s.C;
        Operands in(s, n, 31);
        Guarded<float> dz(random_floats(s.output_count(n), 32)), before(random_floats(count, 33));
        Guarded<float> expected(before.values());
        ref::binary_conv_bwd_weight(expected.data(), in.x.data(), dz.data(), s, n, mode);
        Bound bound(count);
        for_each_pair(s, n, [&](int64_t, int64_t tap, int64_t out) {
          for (int64_t k = 0; k < s.K; ++k)
            for (int64_t c = 0; c < s.C; ++c) bound.add((k * s.taps() + tap) * s.C + c, dz[out * s.K + k]);
        });
        if (mode == GradMode::kAccumulate)
          for (int64_t i = 0; i < count; ++i) bound.add(i, before[i]);
        Guarded<float> first(0);
        for (auto& context : all_contexts({1, 3})) {
          SCOPED_TRACE(s.text() + "_n" + std::to_string(n) + "_mode" + std::to_string(int(mode)) + "__" + context_name(*context));
          cpu::BinaryConvPlan plan = cpu::binary_conv_plan(*context, s);
          Guarded<char> workspace(plan.workspace_bytes);
          Guarded<float> dw(before.values());
          if (mode == GradMode::kOverwrite) dw = Guarded<float>(count);  // NaN: must not be read
          cpu::binary_conv_bwd_weight(*context, plan, dw.data(), in.x.data(), dz.data(), n, mode, workspace.data());
          expect_within(dw, expected, bound.values(), "dw");
          dw.expect_guards("dw");
          workspace.expect_guards("workspace");
          if (HasFatalFailure()) return;
          if (context->thread_count() == 1)
            first = Guarded<float>(dw.values());
          else
            expect_same_bits(dw, first, "dw of 3 threads against 1");
        }
      }
}

namespace {

// L = sum dz * alpha * conv(x, w) in double, for x and w of any real values: what the gradients must be derivatives of.
double loss(const Conv2dShape& s, int64_t n, const std::vector<double>& x, const std::vector<double>& w, const float* alpha,
            const float* dz) {
  double sum = 0;
  for_each_pair(s, n, [&](int64_t in, int64_t tap, int64_t out) {
    for (int64_t k = 0; k < s.K; ++k)
      for (int64_t c = 0; c < s.C; ++c)
        sum += double(dz[out * s.K + k]) * alpha[k] * x[size_t(in * s.C + c)] * w[size_t((k * s.taps() + tap) * s.C + c)];
  });
  return sum;
}

}  // namespace

TEST(BinaryConvRef, GradientsMatchFiniteDifferencesOfTheConvolution) {
  // The convolution is linear in x and in w, so the difference quotient of any step is the derivative; what is left is the
  // rounding of the loss in double and of the result to float.
  for (const Conv2dShape& s : {Conv2dShape{2, 4, 3, 3, 2, 3, 3, 1, 1}, Conv2dShape{1, 5, 4, 2, 3, 3, 3, 2, 1},
                               Conv2dShape{1, 4, 4, 2, 2, 1, 1, 2, 0}, Conv2dShape{1, 6, 5, 2, 2, 5, 5, 1, 2}}) {
    SCOPED_TRACE(s.text());
    const int64_t n = s.N, w_count = s.K * s.taps() * s.C;
    Operands in(s, n, 41);
    std::vector<float> xf = unpacked(in.x, s.C), wf = unpacked(in.w, s.C);
    std::vector<double> x(xf.begin(), xf.end()), w(wf.begin(), wf.end());
    Guarded<float> dz(random_floats(s.output_count(n), 42)), alpha(random_floats(s.K, 43)),
        one(std::vector<float>(size_t(s.K), 1.0f));
    Guarded<float> dx(s.input_count(n)), dw(w_count);
    ref::binary_conv_bwd_input(dx.data(), dz.data(), alpha.data(), in.w.data(), s, n);
    ref::binary_conv_bwd_weight(dw.data(), in.x.data(), dz.data(), s, n, GradMode::kOverwrite);
    auto derivative = [&](std::vector<double>& values, int64_t i, const float* scale) {
      const double kept = values[size_t(i)];
      values[size_t(i)] = kept + 1;
      double up = loss(s, n, x, w, scale, dz.data());
      values[size_t(i)] = kept - 1;
      double down = loss(s, n, x, w, scale, dz.data());
      values[size_t(i)] = kept;
      return (up - down) / 2;
    };
    for (int64_t i = 0; i < dx.count(); ++i) ASSERT_NEAR(dx[i], derivative(x, i, alpha.data()), 1e-6) << "dx[" << i << "]";
    for (int64_t i = 0; i < w_count; ++i) ASSERT_NEAR(dw[i], derivative(w, i, one.data()), 2e-6) << "dw[" << i << "]";
  }
}

}  // namespace bireal
