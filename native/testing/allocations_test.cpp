// A step allocates nothing after the first: every run function that the Java side calls, with its plans made before.
#include "testing/allocations.h"

#include <map>
#include <string>

#include "ops/activation/activation.h"
#include "ops/adam/adam.h"
#include "ops/approx_sign/approx_sign.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/binary_conv/binary_conv.h"
#include "ops/conv2d/conv2d.h"
#include "ops/finite_norm/finite_norm.h"
#include "ops/image/image.h"
#include "ops/linear/linear.h"
#include "ops/pool2d/pool2d.h"
#include "ops/sgd/sgd.h"
#include "ops/sign_pack/sign_pack.h"
#include "ops/softmax_xent/softmax_xent.h"
#include "ops/weight_binarize/weight_binarize.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

TEST(Allocations, AreCounted) {
  reset_allocations();
  auto* volatile number = new int(7);
  EXPECT_EQ(1, allocations().calls);
  EXPECT_EQ(4, allocations().most_bytes);
  EXPECT_EQ(1, allocations().live);
  delete number;
  EXPECT_EQ(0, allocations().live);
  void* volatile memory = std::aligned_alloc(64, 6400);
  EXPECT_EQ(6400, allocations().most_bytes);
  std::free(memory);
  // Also those of a shared library: a plan makes oneDNN's primitives.
  cpu::Context context(1, cpu::default_isa());
  reset_allocations();
  linear_plan(context, 2, 3, 4);
  EXPECT_GT(allocations().calls, 10);
}

namespace {

constexpr int64_t n = 8, H = 8, C = 64, K = 64;

/// Buffers and plans of every op, and calls of all of them.
struct Step {
  cpu::Context& context;
  Conv2dShape square{n, H, H, C, K, 3, 3, 1, 1}, half{n, H, H, C, C, 2, 2, 2, 0}, stem{n, H, H, 3, K, 3, 3, 1, 1},
      large_stem{n, H, H, 3, K, 7, 7, 2, 3};
  int64_t rows = n * H * H, cells = rows * C, weights = K * 9 * C;
  cpu::BinaryConvPlan fixed16, float32;
  cpu::Conv2dPlan conv, large_conv;
  cpu::LinearPlan linear;
  // Values do not matter, only that they are finite; x and z are inputs, y, d and g outputs.
  Guarded<float> x, y, z, d, w, g, m, v, alpha, affine, coefficients, image;
  Guarded<word_t> bits, w_bits;
  Guarded<int16_t> counts;
  Guarded<int64_t> sums;
  Guarded<double> stats, running, float_sums, metrics, mean;
  Guarded<uint8_t> workspace, prepared, index, pixels;
  Guarded<int32_t> labels;
  std::vector<ImageCrop> crops;
  StepState state{1e-3, 1, 0, 0};
  Segment segment;

  explicit Step(cpu::Context& c)
      : context(c),
        fixed16(cpu::binary_conv_plan(context, square, BinaryConvGradient::kFixed16)),
        float32(cpu::binary_conv_plan(context, square, BinaryConvGradient::kFloat32)),
        conv(cpu::conv2d_plan(context, stem)),
        large_conv(cpu::conv2d_plan(context, large_stem)),
        linear(cpu::linear_plan(context, n, C, K)),
        x(random_floats(cells, 1)),
        y(random_floats(cells, 2)),
        z(random_floats(cells, 3)),
        d(random_floats(cells, 4)),
        w(random_floats(weights, 5)),
        g(random_floats(weights, 6)),
        m(std::vector<float>(size_t(weights), 0.0f)),
        v(std::vector<float>(size_t(weights), 0.0f)),
        alpha(random_floats(K, 7)),
        affine(random_floats(2 * K, 8)),
        coefficients(random_floats(3 * K, 9)),
        image(random_floats(n * H * H * 3, 10)),
        bits(std::vector<word_t>(size_t(rows * word_count(C)), 0x12345678)),
        w_bits(std::vector<word_t>(size_t(K * 9 * word_count(C)), 0x9abcdef0)),
        counts(std::vector<int16_t>(size_t(cells), 3)),
        sums(std::vector<int64_t>(size_t(2 * K), 0)),
        stats(std::vector<double>(size_t(3 * K), 1.0)),
        running(std::vector<double>(size_t(2 * K), 0.0)),
        float_sums(std::vector<double>(size_t(2 * K), 1.0)),
        metrics(std::vector<double>(4, 0.0)),
        mean(std::vector<double>(3, 0.5)),
        workspace(std::max({fixed16.workspace_bytes, float32.workspace_bytes, conv.workspace_bytes, large_conv.workspace_bytes,
                            linear.workspace_bytes, batch_norm_workspace_bytes(K), softmax_xent_workspace_bytes(n),
                            finite_norm_workspace_bytes(weights)})),
        prepared(std::max(fixed16.prepared_bytes, float32.prepared_bytes)),
        index(std::vector<uint8_t>(size_t(cells), 0)),
        pixels(std::vector<uint8_t>(size_t(n * H * H * 3), 100)),
        labels(std::vector<int32_t>(size_t(n), 1)),
        crops(size_t(n), ImageCrop{0, 0, 1}),
        segment{0, weights, 1e-4} {}

  void* scratch() { return workspace.data(); }

  /// Calls each op under its name; `around(name, call)` runs it.
  template <class Around>
  void each(const Around& around) {
    auto& c = context;
    for (cpu::BinaryConvPlan* plan : {&fixed16, &float32}) {
      std::string kind = plan == &fixed16 ? " fixed16" : " fp32";
      around("binary_conv_prepare" + kind, [&] { cpu::binary_conv_prepare(c, *plan, prepared.data(), w_bits.data()); });
      around("binary_conv_fwd" + kind,
             [&] { cpu::binary_conv_fwd(c, *plan, counts.data(), sums.data(), bits.data(), prepared.data(), n, scratch()); });
      around("binary_conv_norm_fwd" + kind, [&] {
        BatchNormApply norm{nullptr, DType::kI16, affine.data(), x.data(), affine.data(), nullptr};
        cpu::binary_conv_norm_fwd(c, *plan, y.data(), nullptr, norm, bits.data(), prepared.data(), n, scratch());
      });
      around("binary_conv_bwd_input" + kind,
             [&] { cpu::binary_conv_bwd_input(c, *plan, d.data(), z.data(), alpha.data(), w_bits.data(), n, scratch()); });
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAccumulate})
        around("binary_conv_bwd_weight" + kind,
               [&] { cpu::binary_conv_bwd_weight(c, *plan, g.data(), bits.data(), z.data(), n, mode, scratch()); });
    }
    around("conv2d_fwd", [&] { cpu::conv2d_fwd(c, conv, y.data(), image.data(), w.data(), n, scratch()); });
    around("conv2d_pool_norm_fwd", [&] {
      require(cpu::conv2d_fuses_max_pool(large_conv, 3, 3, 2, 1), "not fused");
      BatchNormApply norm{nullptr, DType::kF32, affine.data(), nullptr, nullptr, nullptr};
      cpu::conv2d_pool_norm_fwd(c, large_conv, y.data(), nullptr, affine.data(), norm, image.data(), w.data(), n, scratch());
    });
    around("conv2d_bwd_input", [&] { cpu::conv2d_bwd_input(c, conv, image.data(), z.data(), w.data(), n, scratch()); });
    around("conv2d_bwd_weight",
           [&] { cpu::conv2d_bwd_weight(c, conv, g.data(), image.data(), z.data(), n, GradMode::kOverwrite, scratch()); });
    around("linear_fwd", [&] { cpu::linear_fwd(c, linear, y.data(), x.data(), w.data(), alpha.data(), n, scratch()); });
    around("linear_bwd_input", [&] { cpu::linear_bwd_input(c, linear, d.data(), z.data(), w.data(), n, scratch()); });
    around("linear_bwd_weight", [&] {
      cpu::linear_bwd_weight(c, linear, g.data(), v.data(), x.data(), z.data(), n, GradMode::kAccumulate, scratch());
    });
    around("batch_norm_sums", [&] { cpu::batch_norm_sums(c, float_sums.data(), x.data(), DType::kF32, rows, C, scratch()); });
    around("batch_norm_statistics", [&] {
      batch_norm_require_rows(rows, "the test");
      cpu::batch_norm_statistics(stats.data(), affine.data(), running.data(), sums.data(), true, alpha.data(), alpha.data(),
                                 alpha.data(), rows, C, 1e-5);
    });
    around("batch_norm_commit", [&] { cpu::batch_norm_commit(m.data(), v.data(), running.data(), &state.nonfinite, C, 1, 0.1); });
    around("batch_norm_inference", [&] {
      cpu::batch_norm_inference(affine.data(), alpha.data(), v.data(), alpha.data(), alpha.data(), alpha.data(), C, 1e-5);
    });
    around("batch_norm_apply", [&] {
      BatchNormApply in{counts.data(), DType::kI16, affine.data(), x.data(), affine.data(), nullptr};
      cpu::batch_norm_apply(c, y.data(), bits.data(), in, rows, C);
    });
    around("batch_norm_bwd_sums",
           [&] { cpu::batch_norm_bwd_sums(c, float_sums.data(), z.data(), counts.data(), DType::kI16, rows, C, scratch()); });
    around("batch_norm_rprelu_bwd", [&] {
      BatchNormApply in{counts.data(), DType::kI16,  affine.data(), x.data(),    affine.data(),
                        nullptr,       alpha.data(), alpha.data(),  alpha.data()};
      cpu::batch_norm_rprelu_bwd(c, d.data(), float_sums.data(), g.data(), g.data() + C, g.data() + 2 * C, z.data(), in, rows, C,
                                 GradMode::kOverwrite, scratch());
    });
    around("batch_norm_bwd_coefficients", [&] {
      cpu::batch_norm_bwd_coefficients(coefficients.data(), g.data(), v.data(), float_sums.data(), stats.data(), alpha.data(),
                                       alpha.data(), rows, C, GradMode::kOverwrite);
    });
    around("batch_norm_bwd_apply",
           [&] { cpu::batch_norm_bwd_apply(c, d.data(), z.data(), counts.data(), DType::kI16, coefficients.data(), rows, C); });
    around("approx_sign_bwd", [&] {
      cpu::approx_sign_bwd(c, d.data(), v.data(), z.data(), x.data(), alpha.data(), x.data(), 0, rows, C,
                           ActivationGradient::kApproxSign, GradMode::kOverwrite, scratch(),
                           {{{float_sums.data(), counts.data(), DType::kI16}, {}}});
    });
    around("sign_pack_fwd", [&] { cpu::sign_pack_fwd(c, bits.data(), x.data(), nullptr, rows, C); });
    around("sign_unpack_fwd", [&] { cpu::sign_unpack_fwd(c, y.data(), bits.data(), rows, C); });
    around("weight_binarize_fwd", [&] {
      weight_binarize_check(K, 9, C);
      cpu::weight_binarize_fwd(c, w_bits.data(), alpha.data(), w.data(), K, 9, C);
    });
    around("weight_gradient",
           [&] { cpu::weight_gradient(c, g.data(), w.data(), alpha.data(), K, 9, C, WeightGradient::kMagnitudeAware); });
    around("batch_norm_max_pool_fwd", [&] {
      batch_norm_max_pool_check(half);
      cpu::batch_norm_max_pool_fwd(c, y.data(), index.data(), float_sums.data(), x.data(), affine.data(), half, n, scratch());
    });
    around("batch_norm_max_pool_bwd_apply", [&] {
      cpu::batch_norm_max_pool_bwd_apply(c, d.data(), y.data(), index.data(), x.data(), coefficients.data(), half, n);
    });
    around("avg_pool_fwd", [&] {
      avg_pool_check(half);
      cpu::avg_pool_fwd(c, y.data(), x.data(), half, n);
    });
    around("avg_pool_bwd", [&] { cpu::avg_pool_bwd(c, d.data(), y.data(), half, n); });
    around("activation_fwd", [&] { cpu::activation_fwd(c, y.data(), x.data(), cells, ActivationKind::kClip, 0); });
    around("activation_bwd",
           [&] { cpu::activation_bwd(c, d.data(), z.data(), x.data(), nullptr, cells, ActivationKind::kClip, 0); });
    around("softmax_xent", [&] {
      SoftmaxXent in{x.data(), labels.data(), nullptr, 0.1, 1, 1.0 / n};
      cpu::softmax_xent(c, metrics.data(), d.data(), in, n, K, GradMode::kAccumulate, scratch());
    });
    around("finite_norm", [&] { cpu::finite_norm(c, &state, g.data(), metrics.data(), weights, scratch()); });
    around("adam", [&] {
      cpu::adam(c, w.data(), m.data(), v.data(), g.data(), &segment, 1, &state, AdamSpec{0.9, 0.999, 1e-8});
    });
    around("sgd", [&] { cpu::sgd(c, w.data(), m.data(), g.data(), &segment, 1, &state, 0.9, SgdForm::kPyTorch); });
    around("image_normalize", [&] {
      ImageShape shape{n, H, H, 3, H, H, 0};
      shape.check();
      cpu::image_normalize(c, image.data(), pixels.data(), crops.data(), mean.data(), mean.data(), shape, n);
    });
  }
};

}  // namespace

TEST(Allocations, AStepMakesNoneAfterTheFirst) {
  for (const auto& context : all_contexts()) {
    Step step(*context);
    step.each([](const std::string&, const auto& call) { call(); });
    int64_t library_calls = 0;
    for (int repeat = 0; repeat < 2; ++repeat)
      step.each([&](const std::string& name, const auto& call) {
        reset_allocations();
        call();
        Allocations made = allocations();
        std::string what = name + " on " + context_name(*context);
        EXPECT_EQ(0, made.live) << what << ": allocations that it keeps";
        EXPECT_EQ(0, made.calls) << what << ": " << made.bytes << " bytes, the largest " << made.most_bytes;
        // dnnl_primitive_execute keeps its arguments in a hash map and the like (1.9 KB seen); never tensors, and never for long.
        // Capped below AVX2 its matrix product takes scratch in every call (344 KB seen), which is its own affair.
        if (cpu::default_isa() > cpu::Isa::kScalar) {
          EXPECT_LE(made.library_most_bytes, 4096) << what << ": in oneDNN";
        }
        library_calls += made.library_calls;
      });
    EXPECT_GT(library_calls, 0) << "oneDNN's execution is not seen, so its objects count as ours";
  }
}

}  // namespace bireal
