#include "core/error.h"
#include "ops/binary_conv/binary_conv.h"
#include "ops/binary_conv/binary_conv_testing.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class BinaryConvCuda : public CudaTest {
 protected:
  template <class T>
  static void check_fwd(const Conv2dShape& s, int64_t n, const Operands& in, const cuda::Device& device = cuda_device()) {
    const DType v_type = sizeof(T) == 2 ? DType::kI16 : DType::kI32;
    Guarded<T> expected(s.output_count(n));
    Guarded<int64_t> expected_sums(2 * s.K);
    ref::binary_conv_fwd(expected.data(), v_type, expected_sums.data(), in.x.data(), in.w.data(), s, n);
    DeviceArray<word_t> x(in.x), w(in.w);
    const std::vector<const char*> kernels = cuda::binary_conv_kernel_names(device, s);
    ASSERT_STREQ(kernels.back(), "popc");
    in_both_orders([&] {
      for (const char* kernel : kernels) {
        SCOPED_TRACE(s.text() + "_n" + std::to_string(n) + "__" + kernel);
        cuda::BinaryConvPlan plan = cuda::binary_conv_plan(device, s, kernel);
        ASSERT_EQ(plan.v_type, v_type);
        for (bool with_sums : {true, false}) {
          if (!with_sums && s.W != 5) continue;
          DeviceArray<T> v(s.output_count(n));
          DeviceArray<int64_t> sums(std::vector<int64_t>(size_t(2 * s.K), 0));
          cuda::binary_conv_fwd(device, plan, v.data(), with_sums ? sums.data() : nullptr, x.data(), w.data(), n, cuda_stream());
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

// 8.6 has 99 KB of shared memory for a block, of which the wider filters here take more than 88, and fewer multiprocessors.
TEST_F(BinaryConvCuda, EveryForwardKernelRunsWithTheSharedMemoryOfOtherGenerations) {
  if (!cuda_is_emulated()) GTEST_SKIP() << "sets the compute capability";
  for (int sm : {86, 90}) {
    SCOPED_TRACE("compute capability " + std::to_string(sm));
    const EmulatorSetting generation("compute_capability", sm);
    cuda::Device::Config config;
    config.library = cuda_library();
    config.images = cuda::Device::Config::Images::kPtx;
    config.synchronize = true;
    const cuda::Device device(config);
    ASSERT_EQ(device.sm(), sm);
    for (const Conv2dShape& s : {Conv2dShape{2, 5, 9, 64, 70, 3, 3, 1, 1}, Conv2dShape{1, 7, 7, 896, 64, 3, 3, 1, 1}}) {
      EXPECT_EQ(cuda::binary_conv_kernel_names(device, s).size(), s.K > 64 ? 3u : 2u);
      check_fwd<int16_t>(s, s.N, Operands(s, s.N, 11), device);
      if (HasFatalFailure()) return;
    }
    uint32_t most = 0;
    bireal_emulator_record record{};
    for (int64_t i = 0; emulator<int(int64_t, bireal_emulator_record*)>("bireal_emulator_get_record")(i, &record) == 0; ++i)
      most = std::max(most, record.shared_bytes);
    EXPECT_GT(most, 88u * 1024);
    emulator<void()>("bireal_emulator_clear")();
  }
}

TEST_F(BinaryConvCuda, UsesInt32AndSeveralChunksOfWordsWhereTheShapeNeedsThem) {
  check_fwd<int16_t>({1, 3, 4, 3640, 5, 3, 3, 1, 1}, 1, Operands({1, 3, 4, 3640, 5, 3, 3, 1, 1}, 1, 5));
  check_fwd<int32_t>({1, 3, 4, 3641, 35, 3, 3, 1, 1}, 1, Operands({1, 3, 4, 3641, 35, 3, 3, 1, 1}, 1, 6));
  check_fwd<int16_t>({1, 9, 3, 1100, 70, 3, 3, 1, 1}, 1, Operands({1, 9, 3, 1100, 70, 3, 3, 1, 1}, 1, 7));
}

TEST_F(BinaryConvCuda, ABlockThatTakesSeveralTilesKeepsItsFilters) {
  // One tile an image, and more images than blocks of any kernel: the counts of the filters' taps are made once a block.
  const cuda::Device& device = small_cuda_device();
  const int64_t n = 2 * device.multiprocessor_count() + 1;
  const Conv2dShape s{n, 3, 3, 8, 66, 3, 3, 1, 1};
  check_fwd<int16_t>(s, n, Operands(s, n, 9), device);
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
  const cuda::Device& device = small_cuda_device();
  const int64_t n = 2 * device.multiprocessor_count() * 2 + 1, pixels = 16 * n;
  const Conv2dShape s{n, 2, 8, 32736, 2, 1, 1, 1, 0};
  std::vector<word_t> x(size_t(pixels * word_count(s.C)), 0xFFFFFFFFu), w(size_t(2 * word_count(s.C)), 0u);
  DeviceArray<word_t> device_x(x), device_w(w);
  for (const char* kernel : cuda::binary_conv_kernel_names(device, s)) {
    if (std::string(kernel) == "popc") continue;
    SCOPED_TRACE(kernel);
    cuda::BinaryConvPlan plan = cuda::binary_conv_plan(device, s, kernel);
    DeviceArray<int16_t> v(s.output_count(n));
    DeviceArray<int64_t> sums(std::vector<int64_t>(4, 0));
    cuda::binary_conv_fwd(device, plan, v.data(), sums.data(), device_x.data(), device_w.data(), n, cuda_stream());
    const int64_t value = -s.C;
    expect_same_bits(
        sums.values(),
        Guarded<int64_t>(std::vector<int64_t>{pixels * value, pixels * value, pixels * s.C * s.C, pixels * s.C * s.C}), "sums");
    EXPECT_EQ(v.values()[0], value);
  }
}

TEST_F(BinaryConvCuda, WithTheNormalisationGivesTheSameBitsAsOneAfterTheOther) {
  struct Variant {
    bool statistics, shortcut, shortcut_affine, rprelu, threshold, bits, v;
  };
  const Variant variants[] = {{true, true, true, true, true, true, true},       {true, true, false, false, false, true, true},
                              {true, false, false, true, false, true, true},    {false, true, false, false, true, true, false},
                              {false, false, false, false, false, false, true}, {true, true, true, false, true, false, true}};
  // Ragged C and K, K whose bits share words and sectors, strides, 1x1, several tiles a block, several chunks of words.
  const int64_t many = 2 * small_cuda_device().multiprocessor_count() + 3;
  const Conv2dShape shapes[] = {{2, 9, 13, 40, 130, 3, 3, 1, 1}, {2, 8, 8, 64, 64, 3, 3, 1, 1},  {2, 7, 7, 33, 67, 3, 3, 2, 1},
                                {3, 5, 6, 65, 36, 1, 1, 1, 0},   {2, 9, 1, 70, 256, 3, 3, 1, 1}, {many, 2, 3, 8, 65, 3, 3, 1, 1},
                                {1, 3, 4, 3640, 5, 3, 3, 1, 1}};
  in_both_orders([&] {
    for (const Conv2dShape& s : shapes) {
      const cuda::Device& device = s.N == many ? small_cuda_device() : cuda_device();
      const int64_t rows = s.output_count(s.N) / s.K, Cw = word_count(s.K);
      Operands in(s, s.N, 71);
      DeviceArray<word_t> x(in.x), w(in.w);
      const std::vector<float> alpha = random_floats(s.K, 72), gamma = random_floats(s.K, 73), beta = random_floats(s.K, 74);
      DeviceArray<float> alphas(alpha), gammas(gamma), betas(beta), threshold(random_floats(s.K, 75)),
          bias1(random_floats(s.K, 76)), slope(random_floats(s.K, 77)), bias2(random_floats(s.K, 78)),
          shortcut_affine(random_floats(2 * s.K, 79));
      for (DType type : kStoredTypes) {
        if (type != DType::kF16 && (s.N == many || s.K == 5 || s.K == 64 || s.K == 256)) continue;
        StoredArray shortcut(type, random_floats(rows * s.K, 80));
        for (const Variant& variant : variants) {
          // First batch_norm_apply behind popc, then each kernel that fuses.
          std::vector<const char*> names = cuda::binary_conv_kernel_names(device, s);
          std::rotate(names.begin(), names.end() - 1, names.end());  // popc first
          Guarded<float> y(0), affine(0);
          Guarded<int16_t> v(0);
          Guarded<word_t> bits(0);
          Guarded<double> stats(0), running(0);
          for (const char* name : names) {
            SCOPED_TRACE(s.text() + "_" + cuda::type_suffix(type) + "_variant" + std::to_string(&variant - variants) + "__" +
                         name);
            const cuda::BinaryConvPlan plan = cuda::binary_conv_plan(device, s, name);
            const bool fuses = cuda::binary_conv_fuses_norm(plan);
            ASSERT_EQ(fuses, std::string(name) != "popc");
            StoredArray device_y(type, rows * s.K);
            DeviceArray<int16_t> device_v(rows * s.K);
            DeviceArray<word_t> device_bits(rows * Cw);
            DeviceArray<int64_t> sums(std::vector<int64_t>(size_t(2 * s.K), 0));
            DeviceArray<double> device_stats(std::vector<double>(size_t(3 * s.K), 0.0)),
                device_running(std::vector<double>(size_t(2 * s.K), 0.5));
            DeviceArray<float> device_affine(random_floats(2 * s.K, 81));
            const cuda::BatchNormStatistics statistics{
                device_stats.data(), device_affine.data(), device_running.data(), sums.data(), 1, true,
                alphas.data(),       gammas.data(),        betas.data(),          1e-5};
            const cuda::BatchNormApplyCuda norm{nullptr,
                                                DType::kI16,
                                                device_affine.data(),
                                                variant.statistics ? &statistics : nullptr,
                                                variant.shortcut ? shortcut.data() : nullptr,
                                                variant.shortcut_affine ? shortcut_affine.data() : nullptr,
                                                variant.threshold ? threshold.data() : nullptr,
                                                variant.rprelu ? bias1.data() : nullptr,
                                                variant.rprelu ? slope.data() : nullptr,
                                                variant.rprelu ? bias2.data() : nullptr};
            const bool with_v = variant.v || !fuses;
            cuda::binary_conv_norm_fwd(device, plan, with_v ? device_v.data() : nullptr, device_y.data(), type,
                                       variant.bits ? device_bits.data() : nullptr, norm, x.data(), w.data(), s.N, cuda_stream());
            if (!fuses) {
              y = device_y.values(), v = device_v.values(), affine = device_affine.values();
              stats = device_stats.values(), running = device_running.values();
              if (variant.bits) bits = device_bits.values();
              continue;
            }
            expect_same_bits(device_y.values(), y, "y");
            if (with_v) expect_same_bits(device_v.values(), v, "v");
            if (variant.bits) expect_same_bits(device_bits.values(), bits, "bits");
            expect_same_bits(device_affine.values(), affine, "affine");
            expect_same_bits(device_stats.values(), stats, "stats");
            expect_same_bits(device_running.values(), running, "running_sums");
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  });
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

TEST_F(BinaryConvCuda, WithTheNormalisationMovesEverySectorAboutOnceWithoutBankConflicts) {
  if (!cuda_is_emulated()) return;
  // As above for every stage of the network: what more images add once every block has a tile.
  struct Case {
    Conv2dShape shape;
    int64_t few;
    double most;
  };
  for (const auto& [s, few, most] :
       {Case{{10, 56, 56, 64, 64, 3, 3, 1, 1}, 5, 1.07}, Case{{16, 28, 28, 128, 128, 3, 3, 1, 1}, 14, 1.06},
        Case{{28, 28, 28, 128, 256, 3, 3, 2, 1}, 27, 1.1}}) {
    Operands in(s, s.N, 1);
    DeviceArray<word_t> x(in.x), w(in.w), bits(s.P() * s.Q() * s.N * word_count(s.K));
    DeviceArray<int16_t> v(s.output_count(s.N));
    StoredArray y(DType::kF16, s.output_count(s.N)), shortcut(DType::kF16, random_floats(s.output_count(s.N), 3));
    DeviceArray<int64_t> sums(std::vector<int64_t>(size_t(2 * s.K), 0));
    DeviceArray<double> stats(3 * s.K), running(std::vector<double>(size_t(2 * s.K), 0.0));
    DeviceArray<float> affine(2 * s.K), gamma(random_floats(s.K, 4));
    const cuda::BatchNormStatistics statistics{stats.data(), affine.data(), running.data(), sums.data(),  1,
                                               true,         nullptr,       gamma.data(),   gamma.data(), 1e-5};
    const cuda::BatchNormApplyCuda norm{nullptr, DType::kI16, nullptr, &statistics, shortcut.data(), nullptr, nullptr};
    const cuda::BinaryConvPlan plan = cuda::binary_conv_plan(cuda_device(), s, "");
    SCOPED_TRACE(s.text() + "_" + plan.kernel_name);
    Traffic before, after;
    for (int64_t n : {few, s.N}) {
      cuda::binary_conv_norm_fwd(cuda_device(), plan, v.data(), y.data(), DType::kF16, bits.data(), norm, x.data(), w.data(), n,
                                 cuda_stream());
      (n == few ? before : after) = last_traffic();
      for (int64_t back : {0, 1}) {
        const Traffic of_kernel = last_traffic(back);
        EXPECT_LE(of_kernel.worst_bank_conflict, 2u) << of_kernel.kernel;
        EXPECT_NE(of_kernel.kernel.find(back ? "binary_conv_sums_mma" : "binary_conv_apply_mma"), std::string::npos);
      }
    }
    EXPECT_LE(after.requested - before.requested, most * (after.distinct - before.distinct))
        << (after.requested - before.requested) / (after.distinct - before.distinct);
  }
}

}  // namespace bireal
