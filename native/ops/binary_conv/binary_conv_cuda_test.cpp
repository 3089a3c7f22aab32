#include "core/error.h"
#include "ops/binary_conv/binary_conv.h"
#include "ops/binary_conv/binary_conv_testing.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class BinaryConvCuda : public CudaTest {
 protected:
  template <class T>
  static void check_fwd(const Conv2dShape& s, int64_t n, const Operands& in) {
    const DType v_type = sizeof(T) == 2 ? DType::kI16 : DType::kI32;
    Guarded<T> expected(s.output_count(n));
    Guarded<int64_t> expected_sums(2 * s.K);
    ref::binary_conv_fwd(expected.data(), v_type, expected_sums.data(), in.x.data(), in.w.data(), s, n);
    DeviceArray<word_t> x(in.x), w(in.w);
    const std::vector<const char*> kernels = cuda::binary_conv_kernel_names(cuda_device(), s);
    ASSERT_STREQ(kernels.back(), "popc");
    in_both_orders([&] {
      for (const char* kernel : kernels) {
        SCOPED_TRACE(s.text() + "_n" + std::to_string(n) + "__" + kernel);
        cuda::BinaryConvPlan plan = cuda::binary_conv_plan(cuda_device(), s, kernel);
        ASSERT_EQ(plan.v_type, v_type);
        for (bool with_sums : {true, false}) {
          if (!with_sums && s.W != 5) continue;
          DeviceArray<T> v(s.output_count(n));
          DeviceArray<int64_t> sums(std::vector<int64_t>(size_t(2 * s.K), 0));
          cuda::binary_conv_fwd(cuda_device(), plan, v.data(), with_sums ? sums.data() : nullptr, x.data(), w.data(), n,
                                cuda_stream());
          expect_same_bits(v.values(), expected, "v");
          if (with_sums) expect_same_bits(sums.values(), expected_sums, "sums");
          if (HasFatalFailure()) return;
        }
      }
    });
  }
};

TEST_F(BinaryConvCuda, EveryForwardKernelMatchesRefOnNastyShapes) {
  for (const Conv2dShape& s : nasty_shapes()) {
    check_fwd<int16_t>(s, s.N, Operands(s, s.N, 1));
    if (HasFatalFailure()) return;
  }
}

TEST_F(BinaryConvCuda, RunsTheShapesOfTheNetworkAndAnyBatchUpToThePlans) {
  // C = 64, 128, 256, 512 with their tiles and kernels; sides that are and are not multiples of a tile (9 rows are 5 and 4).
  for (const Conv2dShape& s : {Conv2dShape{3, 8, 8, 64, 64, 3, 3, 1, 1}, Conv2dShape{3, 14, 14, 64, 128, 3, 3, 2, 1},
                               Conv2dShape{2, 9, 14, 128, 130, 3, 3, 1, 1}, Conv2dShape{2, 7, 7, 256, 128, 3, 3, 1, 1},
                               Conv2dShape{2, 7, 7, 512, 64, 3, 3, 1, 1}, Conv2dShape{2, 14, 14, 256, 72, 3, 3, 2, 1},
                               Conv2dShape{2, 9, 16, 33, 40, 3, 3, 1, 1}})
    for (int64_t n : {s.N, s.N - 1}) {
      check_fwd<int16_t>(s, n, Operands(s, n, 3));
      if (HasFatalFailure()) return;
    }
}

TEST_F(BinaryConvCuda, UsesInt32AndSeveralChunksOfWordsWhereTheShapeNeedsThem) {
  check_fwd<int16_t>({1, 3, 4, 3640, 5, 3, 3, 1, 1}, 1, Operands({1, 3, 4, 3640, 5, 3, 3, 1, 1}, 1, 5));
  check_fwd<int32_t>({1, 3, 4, 3641, 35, 3, 3, 1, 1}, 1, Operands({1, 3, 4, 3641, 35, 3, 3, 1, 1}, 1, 6));
  check_fwd<int16_t>({1, 9, 3, 1100, 70, 3, 3, 1, 1}, 1, Operands({1, 9, 3, 1100, 70, 3, 3, 1, 1}, 1, 7));
}

TEST_F(BinaryConvCuda, ABlockThatTakesSeveralTilesKeepsItsFilters) {
  // One tile an image, and more images than blocks of any kernel: the counts of the filters' taps are made once a block.
  const int64_t n = 2 * cuda_device().multiprocessor_count() + 1;
  const Conv2dShape s{n, 3, 3, 8, 66, 3, 3, 1, 1};
  check_fwd<int16_t>(s, n, Operands(s, n, 9));
}

TEST_F(BinaryConvCuda, TheLargestSquaresDoNotOverflowTheirSums) {
  // popc: |v| = 50,000 in int32, whose square is beyond 32 bits.
  const Conv2dShape wide{1, 1, 2, 50000, 2, 1, 1, 1, 0};
  Operands all_differ(wide, wide.N, 1);
  for (word_t& word : all_differ.w) word = 0;
  for (size_t i = 0; i < all_differ.x.size(); ++i) all_differ.x[i] = valid_mask(wide.C, int64_t(i) % word_count(wide.C));
  check_fwd<int32_t>(wide, wide.N, all_differ);

  // All products equal, |v| = 32,736: two tiles of squares fill the 32 bits of the mma kernels. Each block gets three or more
  // tiles, of 16 pixels, so that each lane has two; popc sums in 64 bits.
  const int64_t n = 2 * cuda_device().multiprocessor_count() * 2 + 1, pixels = 16 * n;
  const Conv2dShape s{n, 2, 8, 32736, 2, 1, 1, 1, 0};
  std::vector<word_t> x(size_t(pixels * word_count(s.C)), 0xFFFFFFFFu), w(size_t(2 * word_count(s.C)), 0u);
  DeviceArray<word_t> device_x(x), device_w(w);
  for (const char* kernel : cuda::binary_conv_kernel_names(cuda_device(), s)) {
    if (std::string(kernel) == "popc") continue;
    SCOPED_TRACE(kernel);
    cuda::BinaryConvPlan plan = cuda::binary_conv_plan(cuda_device(), s, kernel);
    DeviceArray<int16_t> v(s.output_count(n));
    DeviceArray<int64_t> sums(std::vector<int64_t>(4, 0));
    cuda::binary_conv_fwd(cuda_device(), plan, v.data(), sums.data(), device_x.data(), device_w.data(), n, cuda_stream());
    const int64_t value = -s.C;
    expect_same_bits(
        sums.values(),
        Guarded<int64_t>(std::vector<int64_t>{pixels * value, pixels * value, pixels * s.C * s.C, pixels * s.C * s.C}), "sums");
    EXPECT_EQ(v.values()[0], value);
  }
}

TEST_F(BinaryConvCuda, BackwardPassesAreWithinTheBoundAndDeterministic) {
  std::vector<Conv2dShape> shapes = backward_shapes();
  shapes.push_back({6, 11, 12, 40, 70, 3, 3, 1, 1});  // several slices of pixels, several blocks of channels
  for (const Conv2dShape& s : shapes)
    for (DType type : kStoredTypes) {
      if (type != DType::kF32 && s.C % 32 == 1 && s.K == 6) continue;  // the same tails were float32's
      const int64_t n = s.N, count = s.K * s.taps() * s.C;
      SCOPED_TRACE(s.text() + "_" + cuda::type_suffix(type));
      Operands in(s, n, 21);
      const std::vector<float> dz = as_stored(type, random_floats(s.output_count(n), 22)), alpha = random_floats(s.K, 23),
                               before = random_floats(count, 33);
      Guarded<float> dx(s.input_count(n)), dw(before), dw_over(count);
      ref::binary_conv_bwd_input(dx.data(), dz.data(), alpha.data(), in.w.data(), s, n);
      ref::binary_conv_bwd_weight(dw.data(), in.x.data(), dz.data(), s, n, GradMode::kAccumulate);
      ref::binary_conv_bwd_weight(dw_over.data(), in.x.data(), dz.data(), s, n, GradMode::kOverwrite);
      Bound dx_bound(s.input_count(n)), dw_bound(count);
      for_each_pair(s, n, [&](int64_t i, int64_t tap, int64_t out) {
        for (int64_t k = 0; k < s.K; ++k)
          for (int64_t c = 0; c < s.C; ++c) {
            dx_bound.add(i * s.C + c, double(dz[size_t(out * s.K + k)]) * alpha[size_t(k)]);
            dw_bound.add((k * s.taps() + tap) * s.C + c, dz[size_t(out * s.K + k)]);
          }
      });
      std::vector<double> dx_allowed = dx_bound.values();
      for (int64_t i = 0; i < dx.count(); ++i)  // and one rounding to the stored type
        if (type != DType::kF32)
          dx_allowed[size_t(i)] += unit_roundoff(type) * (std::fabs(dx[i]) + dx_allowed[size_t(i)]) + least_error(type);
      for (int64_t i = 0; i < count; ++i) dw_bound.add(i, before[size_t(i)]);

      cuda::BinaryConvPlan plan = cuda::binary_conv_plan(cuda_device(), s, "popc");
      DeviceArray<word_t> x(in.x), w(in.w);
      DeviceArray<float> device_alpha(alpha);
      StoredArray device_dz(type, dz);
      Guarded<float> first_dx(0), first_dw(0);
      in_both_orders([&] {
        StoredArray device_dx(type, s.input_count(n));
        DeviceArray<float> device_dw(before), over(count);
        DeviceArray<char> workspace(plan.workspace_bytes);
        cuda::binary_conv_bwd_input(cuda_device(), plan, device_dx.data(), device_dz.data(), type, device_alpha.data(), w.data(),
                                    n, cuda_stream());
        cuda::binary_conv_bwd_weight(cuda_device(), plan, device_dw.data(), x.data(), device_dz.data(), type, n,
                                     GradMode::kAccumulate, workspace.data(), cuda_stream());
        cuda::binary_conv_bwd_weight(cuda_device(), plan, over.data(), x.data(), device_dz.data(), type, n, GradMode::kOverwrite,
                                     workspace.data(), cuda_stream());
        expect_within(device_dx.values(), dx, dx_allowed, "dx");
        expect_within(device_dw.values(), dw, dw_bound.values(), "dw");
        expect_within(over.values(), dw_over, dw_bound.values(), "dw overwritten");
        if (first_dx.count() == 0) {
          first_dx = device_dx.values(), first_dw = device_dw.values();
        } else {
          expect_same_bits(device_dx.values(), first_dx, "dx in another order");
          expect_same_bits(device_dw.values(), first_dw, "dw in another order");
        }
      });
      if (HasFatalFailure()) return;
    }
}

TEST_F(BinaryConvCuda, PlanMeasuresOrTakesTheNamedKernelAndRefusesOthers) {
  const Conv2dShape s{1, 8, 8, 64, 128, 3, 3, 1, 1};
  const std::vector<const char*> names = cuda::binary_conv_kernel_names(cuda_device(), s);
  const std::string chosen = cuda::binary_conv_plan(cuda_device(), s).kernel_name;
  EXPECT_TRUE(std::any_of(names.begin(), names.end(), [&](const char* name) { return chosen == name; })) << chosen;
  auto message = [](const Conv2dShape& shape, const char* kernel) -> std::string {
    try {
      cuda::binary_conv_plan(cuda_device(), shape, kernel);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message(s, "mma_narrower").rfind("binary_conv: forward kernel \"mma_narrower\" cannot run N1_H8_W8_C64_K128", 0), 0u);
  EXPECT_EQ(
      message({1, 3, 4, 3641, 8, 3, 3, 1, 1}, "mma_narrow").rfind("binary_conv: forward kernel \"mma_narrow\" cannot run", 0),
      0u);
  EXPECT_EQ(message({1, 4, 4, 0, 8, 3, 3, 1, 1}, nullptr), "binary_conv: C must be >= 1, got 0");
  EXPECT_EQ(message({1, 300, 300, 8, 8, 250, 250, 1, 0}, nullptr).rfind("binary_conv: no CUDA kernel for a filter", 0), 0u);
}

TEST_F(BinaryConvCuda, ForwardMovesEverySectorAboutOnce) {
  // Stage 1 of the network, what a step moves most of. Blocks load their weights and add their sums once, for 95 tiles each at
  // batch 512, so what counts is what more images add: v, and x of which a halo of 8 by 8 tiles is 1.56 (x is 1/17 of the bytes).
  const Conv2dShape s{16, 56, 56, 64, 64, 3, 3, 1, 1};
  Operands in(s, s.N, 1);
  DeviceArray<word_t> x(in.x), w(in.w);
  DeviceArray<int16_t> v(s.output_count(s.N));
  DeviceArray<int64_t> sums(std::vector<int64_t>(size_t(2 * s.K), 0));
  for (const char* kernel : cuda::binary_conv_kernel_names(cuda_device(), s)) {
    SCOPED_TRACE(kernel);
    cuda::BinaryConvPlan plan = cuda::binary_conv_plan(cuda_device(), s, kernel);
    Traffic few, many;
    for (int64_t n : {8, 16}) {
      cuda::binary_conv_fwd(cuda_device(), plan, v.data(), sums.data(), x.data(), w.data(), n, cuda_stream());
      if (cuda_is_emulated()) (n == 8 ? few : many) = last_traffic();
    }
    if (!cuda_is_emulated()) continue;
    EXPECT_LE(many.requested - few.requested, 1.1 * (many.distinct - few.distinct))
        << (many.requested - few.requested) / (many.distinct - few.distinct);
    EXPECT_LE(many.wavefronts - few.wavefronts, 1.15 * (many.wavefronts_ideal - few.wavefronts_ideal))
        << (many.wavefronts - few.wavefronts) / (many.wavefronts_ideal - few.wavefronts_ideal);
  }
}

}  // namespace bireal
