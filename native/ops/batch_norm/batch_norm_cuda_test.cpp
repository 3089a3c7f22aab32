#include "cuda/row_slices.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/sign_pack/sign_pack.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

namespace {

const double kEps = 1e-5;
const std::vector<int64_t> kChannels = {1, 31, 33, 64, 65, 290};

// v on the device and on the host; real values as stored.
struct Values {
  DType type;
  std::vector<float> f32;
  std::vector<int16_t> i16;
  std::vector<int32_t> i32;
  StoredArray real;
  DeviceArray<int16_t> short_ints;
  DeviceArray<int32_t> ints;

  Values(DType type, int64_t count, uint64_t seed, bool wild)
      : type(type),
        f32(is_real(type) ? as_stored(type, wild ? nasty_floats(count, seed, true) : random_floats(count, seed, 3.0f))
                          : std::vector<float>()),
        i16(size_t(type == DType::kI16 ? count : 0)),
        i32(size_t(type == DType::kI32 ? count : 0)),
        real(is_real(type) ? type : DType::kF32, f32),
        short_ints(filled(i16, [&](uint64_t i) { return int16_t(splitmix64(seed, i) >> (wild ? 48 : 54)) - (wild ? 0 : 512); })),
        ints(filled(i32,
                    [&](uint64_t i) { return int32_t(splitmix64(seed, i) >> (wild ? 39 : 50)) - (wild ? 1 << 24 : 8192); })) {}
  static bool is_real(DType type) { return type != DType::kI16 && type != DType::kI32; }
  // As the reference takes it, and as the kernels do.
  DType host_type() const { return is_real(type) ? DType::kF32 : type; }
  const void* host() const {
    return type == DType::kI16   ? static_cast<const void*>(i16.data())
           : type == DType::kI32 ? static_cast<const void*>(i32.data())
                                 : f32.data();
  }
  const void* device() {
    return type == DType::kI16   ? static_cast<const void*>(short_ints.data())
           : type == DType::kI32 ? static_cast<const void*>(ints.data())
                                 : real.data();
  }
  double at(int64_t i) const {
    return type == DType::kI16 ? i16[size_t(i)] : type == DType::kI32 ? i32[size_t(i)] : double(f32[size_t(i)]);
  }

 private:
  template <class T, class F>
  static std::vector<T>& filled(std::vector<T>& values, const F& f) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = T(f(i));
    return values;
  }
};

// Bound of a sum in batch_norm.h; partial sums are added here in double as well.
double sum_bound(DType type, int64_t rows, double size) {
  return (2 * double(rows + 1100) * 0x1p-53 + (type == DType::kF16 || type == DType::kBf16 ? 0x1p-21 : 0)) * size;
}

template <class T>
std::vector<T> added(const Guarded<T>& partial, int64_t slices, int64_t C) {
  std::vector<T> sums(size_t(2 * C));
  for (int64_t slice = 0; slice < slices; ++slice)
    for (int64_t i = 0; i < 2 * C; ++i) sums[size_t(i)] += partial[slice * 2 * C + i];
  return sums;
}

// Every pair of types that there is a kernel for: stored type, type of v.
template <class Body>
void for_all(const std::vector<int64_t>& rows_list, const Body& body) {
  for (DType type : kStoredTypes)
    for (DType v_type : {DType::kI16, DType::kI32, type})
      for (int64_t rows : rows_list)
        for (int64_t C : kChannels) {
          SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_" + cuda::type_suffix(v_type) + "_rows" + std::to_string(rows) +
                       "_C" + std::to_string(C));
          body(type, v_type, rows, C);
          if (::testing::Test::HasFatalFailure()) return;
        }
}

}  // namespace

class BatchNormCuda : public CudaTest {};

TEST_F(BatchNormCuda, SumsAreExactForIntegersAndWithinTheBoundElse) {
  in_both_orders([] {
    for (DType type : {DType::kI16, DType::kI32, DType::kF32, DType::kF16, DType::kBf16})
      for (int64_t rows : {1, 2, 70, 1031})
        for (int64_t C : kChannels) {
          SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_rows" + std::to_string(rows) + "_C" + std::to_string(C));
          const bool integer = !Values::is_real(type);
          Values v(type, rows * C, 31, integer);
          const int64_t slices = cuda::row_slice_count(rows, C);
          if (integer) {
            DeviceArray<int64_t> sums(slices * 2 * C);
            cuda::batch_norm_sums(cuda_device(), sums.data(), v.device(), type, rows, C, cuda_stream());
            Guarded<int64_t> expected(2 * C);
            ref::batch_norm_sums(expected.data(), v.host(), type, rows, C);
            expect_same_bits(Guarded<int64_t>(added(sums.values(), slices, C)), expected, "sums");
          } else {
            DeviceArray<double> sums(slices * 2 * C);
            cuda::batch_norm_sums(cuda_device(), sums.data(), v.device(), type, rows, C, cuda_stream());
            Guarded<double> expected(2 * C);
            ref::batch_norm_sums(expected.data(), v.host(), DType::kF32, rows, C);
            std::vector<double> bound(size_t(2 * C), 0.0);
            for (int64_t i = 0; i < rows * C; ++i) {
              bound[size_t(i % C)] += sum_bound(type, rows, std::fabs(v.at(i)));
              bound[size_t(C + i % C)] += sum_bound(type, rows, v.at(i) * v.at(i));
            }
            expect_within(Guarded<double>(added(sums.values(), slices, C)), expected, bound, "sums");
          }
        }
  });
}

TEST_F(BatchNormCuda, StatisticsOfIntegerSumsMatchRefToTheBit) {
  in_both_orders([] {
    // Sums as far apart as they come: m to 2^31, values to 2^20; the variance is a quotient of up to 126 by up to 62 bits.
    const int64_t C = 70;
    for (uint64_t k = 0; k < 40; ++k) {
      const int64_t m = 2 + int64_t(splitmix64(33, 3 * k) >> (33 + splitmix64(34, k) % 29));
      int most = 0;
      while (most < 20 && m < int64_t(1) << (62 - 2 * (most + 1))) ++most;
      std::vector<int64_t> sums(size_t(2 * C));
      for (int64_t c = 0; c < C; ++c) {
        const uint64_t seed = 1000 * k + uint64_t(c);
        const int64_t limit = int64_t(1) << (splitmix64(35, seed) % uint64_t(most + 1));
        const int64_t S1 = int64_t(splitmix64(36, seed) % uint64_t(2 * m * limit + 1)) - m * limit;
        __extension__ typedef __int128 int128;
        const int64_t least = int64_t((int128(S1) * S1 + m - 1) / m);
        sums[size_t(c)] = S1;
        sums[size_t(C + c)] =
            least + (c % 3 == 0 ? c % 2 : int64_t(splitmix64(37, seed) % uint64_t(m * limit * limit - least + 1)));
      }
      sums[0] = 3 * m, sums[size_t(C)] = 9 * m;  // no variance at all
      const std::vector<float> alpha = random_floats(C, 1), gamma = random_floats(C, 2), beta = random_floats(C, 3);
      Guarded<double> stats(3 * C), running(std::vector<double>(size_t(2 * C), 0.25));
      Guarded<float> affine(2 * C);
      ref::batch_norm_statistics(stats.data(), affine.data(), running.data(), sums.data(), true, k % 2 ? alpha.data() : nullptr,
                                 gamma.data(), beta.data(), m, C, kEps);
      DeviceArray<double> device_stats(3 * C), device_running(std::vector<double>(size_t(2 * C), 0.25));
      DeviceArray<float> device_affine(2 * C), device_alpha(alpha), device_gamma(gamma), device_beta(beta);
      DeviceArray<int64_t> device_sums(sums);
      cuda::BatchNormStatistics in{device_stats.data(),
                                   device_affine.data(),
                                   device_running.data(),
                                   device_sums.data(),
                                   1,
                                   true,
                                   k % 2 ? device_alpha.data() : nullptr,
                                   device_gamma.data(),
                                   device_beta.data(),
                                   kEps};
      cuda::batch_norm_statistics(cuda_device(), in, m, C, cuda_stream());
      expect_same_bits(device_stats.values(), stats, "stats");
      expect_same_bits(device_affine.values(), affine, "affine");
      expect_same_bits(device_running.values(), running, "running_sums");
    }
  });
}

TEST_F(BatchNormCuda, StatisticsAddTheSlicesOfRealSums) {
  in_both_orders([] {
    for (int64_t rows : {2, 1031})
      for (int64_t C : kChannels) {
        SCOPED_TRACE("rows" + std::to_string(rows) + "_C" + std::to_string(C));
        const int64_t slices = cuda::row_slice_count(rows, C);
        Values v(DType::kF32, rows * C, 5, false);
        DeviceArray<double> sums(slices * 2 * C), stats(3 * C), running(std::vector<double>(size_t(2 * C), 0.5));
        const std::vector<float> gamma = random_floats(C, 2), beta = random_floats(C, 3);
        DeviceArray<float> affine(2 * C), device_gamma(gamma), device_beta(beta);
        cuda::batch_norm_sums(cuda_device(), sums.data(), v.device(), DType::kF32, rows, C, cuda_stream());
        cuda::BatchNormStatistics in{stats.data(), affine.data(), running.data(),      sums.data(),        slices,
                                     false,        nullptr,       device_gamma.data(), device_beta.data(), kEps};
        cuda::batch_norm_statistics(cuda_device(), in, rows, C, cuda_stream());
        Guarded<double> host_sums(2 * C), expected_stats(3 * C), expected_running(std::vector<double>(size_t(2 * C), 0.5));
        Guarded<float> expected_affine(2 * C);
        ref::batch_norm_sums(host_sums.data(), v.host(), DType::kF32, rows, C);
        ref::batch_norm_statistics(expected_stats.data(), expected_affine.data(), expected_running.data(), host_sums.data(),
                                   false, nullptr, gamma.data(), beta.data(), rows, C, kEps);
        // |v| < 3: the sums differ by rows 2^-52 of 9 rows, the variance (>= 1e-3 here, or eps counts) by 20 rows 2^-52.
        expect_within(stats.values(), expected_stats, {1e-9}, "stats");
        expect_within(affine.values(), expected_affine, {1e-6}, "affine");
        expect_within(running.values(), expected_running, {1e-9}, "running_sums");
      }
  });
}

TEST_F(BatchNormCuda, ApplyMatchesRefForEveryCombination) {
  in_both_orders([] {
    for_all({1, 7, 150}, [](DType type, DType v_type, int64_t rows, int64_t C) {
      Values v(v_type, rows * C, 51, true);
      const std::vector<float> affine = nasty_floats(2 * C, 52), shortcut = as_stored(type, nasty_floats(rows * C, 53, true));
      const std::vector<float> shortcut_affine = nasty_floats(2 * C, 54), threshold = nasty_floats(C, 55);
      const std::vector<float> bias1 = nasty_floats(C, 56), slope = nasty_floats(C, 57), bias2 = nasty_floats(C, 58);
      DeviceArray<float> device_affine(affine), device_shortcut_affine(shortcut_affine), device_threshold(threshold);
      DeviceArray<float> device_bias1(bias1), device_slope(slope), device_bias2(bias2);
      for (int kind = 0; kind < 18; ++kind) {
        const int shortcut_kind = kind / 3 % 3, bits_kind = kind % 3;
        const bool rprelu = kind >= 9;
        if ((rows == 7 || rprelu) && shortcut_kind != bits_kind) continue;
        SCOPED_TRACE("shortcut " + std::to_string(shortcut_kind) + " bits " + std::to_string(bits_kind) +
                     (rprelu ? " RPReLU" : ""));
        BatchNormApply in{v.host(),
                          v.host_type(),
                          affine.data(),
                          shortcut_kind > 0 ? shortcut.data() : nullptr,
                          shortcut_kind > 1 ? shortcut_affine.data() : nullptr,
                          nullptr,
                          rprelu ? bias1.data() : nullptr,
                          rprelu ? slope.data() : nullptr,
                          rprelu ? bias2.data() : nullptr};
        Guarded<float> expected(rows * C);
        ref::batch_norm_apply(expected.data(), nullptr, in, rows, C);
        for (int64_t i = 0; i < expected.count(); ++i) expected[i] = rounded_to(type, expected[i]);
        Guarded<word_t> expected_bits(rows * word_count(C));
        ref::sign_pack_fwd(expected_bits.data(), expected.data(), bits_kind > 1 ? threshold.data() : nullptr, rows, C);
        StoredArray y(type, rows * C), in_place(type, shortcut);
        DeviceArray<word_t> bits(rows * word_count(C));
        void* out = shortcut_kind > 0 ? in_place.data() : y.data();
        cuda::BatchNormApplyCuda device_in{v.device(),
                                           v_type,
                                           device_affine.data(),
                                           nullptr,
                                           shortcut_kind > 0 ? in_place.data() : nullptr,
                                           shortcut_kind > 1 ? device_shortcut_affine.data() : nullptr,
                                           bits_kind > 1 ? device_threshold.data() : nullptr,
                                           rprelu ? device_bias1.data() : nullptr,
                                           rprelu ? device_slope.data() : nullptr,
                                           rprelu ? device_bias2.data() : nullptr};
        cuda::batch_norm_apply(cuda_device(), out, type, bits_kind ? bits.data() : nullptr, device_in, rows, C, cuda_stream());
        expect_same_or_nan(shortcut_kind > 0 ? in_place.values() : y.values(), expected, "y");
        if (bits_kind) expect_same_bits(bits.values(), expected_bits, "bits");
        if (::testing::Test::HasFatalFailure()) return;
      }
    });
  });
}

TEST_F(BatchNormCuda, ApplyFinishesTheStatisticsOfIntegerSumsInTheSamePass) {
  in_both_orders([] {
    for (DType type : kStoredTypes)
      for (int64_t rows : {2, 300})
        for (int64_t C : kChannels) {
          SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_rows" + std::to_string(rows) + "_C" + std::to_string(C));
          Values v(DType::kI16, rows * C, 41, false);
          const std::vector<float> gamma = random_floats(C, 2), beta = random_floats(C, 3), alpha = random_floats(C, 4, 0.1f);
          Guarded<int64_t> sums(2 * C);
          Guarded<double> stats(3 * C), running(std::vector<double>(size_t(2 * C), 0.5));
          Guarded<float> affine(2 * C), y(rows * C);
          Guarded<word_t> bits(rows * word_count(C));
          ref::batch_norm_sums(sums.data(), v.host(), DType::kI16, rows, C);
          ref::batch_norm_statistics(stats.data(), affine.data(), running.data(), sums.data(), true, alpha.data(), gamma.data(),
                                     beta.data(), rows, C, kEps);
          ref::batch_norm_apply(y.data(), nullptr, {v.host(), DType::kI16, affine.data(), nullptr, nullptr, nullptr}, rows, C);
          for (int64_t i = 0; i < y.count(); ++i) y[i] = rounded_to(type, y[i]);
          ref::sign_pack_fwd(bits.data(), y.data(), nullptr, rows, C);
          DeviceArray<int64_t> device_sums(sums.values());
          DeviceArray<double> device_stats(3 * C), device_running(std::vector<double>(size_t(2 * C), 0.5));
          DeviceArray<float> device_affine(2 * C), device_gamma(gamma), device_beta(beta), device_alpha(alpha);
          DeviceArray<word_t> device_bits(bits.count());
          StoredArray device_y(type, rows * C);
          cuda::BatchNormStatistics statistics{device_stats.data(),
                                               device_affine.data(),
                                               device_running.data(),
                                               device_sums.data(),
                                               1,
                                               true,
                                               device_alpha.data(),
                                               device_gamma.data(),
                                               device_beta.data(),
                                               kEps};
          cuda::BatchNormApplyCuda in{v.device(), DType::kI16, nullptr, &statistics, nullptr, nullptr, nullptr};
          cuda::batch_norm_apply(cuda_device(), device_y.data(), type, device_bits.data(), in, rows, C, cuda_stream());
          expect_same_bits(device_stats.values(), stats, "stats");
          expect_same_bits(device_affine.values(), affine, "affine");
          expect_same_bits(device_running.values(), running, "running_sums");
          expect_same_bits(device_y.values(), y, "y");
          expect_same_bits(device_bits.values(), bits, "bits");
          if (HasFatalFailure()) return;
        }
  });
}

TEST_F(BatchNormCuda, RpreluBackwardMatchesRef) {
  in_both_orders([] {
    for_all({1, 7, 150}, [](DType type, DType v_type, int64_t rows, int64_t C) {
      Values v(v_type, rows * C, 71, false);
      // |scale v + shift| < 4, so that both sides of the knee are met; channel C / 2 has a NaN in dy, and no other.
      const float unit = v_type == DType::kI16 ? 1.0f / 512 : v_type == DType::kI32 ? 1.0f / 8192 : 1.0f;
      std::vector<float> affine = random_floats(2 * C, 72);
      for (int64_t c = 0; c < C; ++c) affine[size_t(c)] *= unit;
      const std::vector<float> shortcut = as_stored(type, random_floats(rows * C, 73)),
                               shortcut_affine = random_floats(2 * C, 74), bias1 = random_floats(C, 75),
                               slope = random_floats(C, 76, 0.5f), before = random_floats(C, 77);
      std::vector<float> dy = as_stored(type, random_floats(rows * C, 78));
      const int64_t bad = C / 2;
      dy[size_t(rows / 2 * C + bad)] = std::numeric_limits<float>::quiet_NaN();
      DeviceArray<float> device_affine(affine), device_shortcut_affine(shortcut_affine), device_bias1(bias1), device_slope(slope);
      const int64_t slices = cuda::row_slice_count(rows, C);
      for (int kind = 0; kind < 6; ++kind) {
        const int shortcut_kind = kind % 3;
        const GradMode mode = kind < 3 ? GradMode::kOverwrite : GradMode::kAccumulate;
        if (rows == 7 && kind % 2) continue;
        SCOPED_TRACE("shortcut " + std::to_string(shortcut_kind) + (kind < 3 ? "" : " accumulated"));
        const BatchNormApply in{v.host(),
                                v.host_type(),
                                affine.data(),
                                shortcut_kind > 0 ? shortcut.data() : nullptr,
                                shortcut_kind > 1 ? shortcut_affine.data() : nullptr,
                                nullptr,
                                bias1.data(),
                                slope.data(),
                                nullptr};
        Guarded<float> expected_dz(rows * C), expected_dbias1(before), expected_dslope(before), expected_dbias2(before);
        Guarded<double> ignored(2 * C);
        ref::batch_norm_rprelu_bwd(expected_dz.data(), ignored.data(), expected_dbias1.data(), expected_dslope.data(),
                                   expected_dbias2.data(), dy.data(), in, rows, C, mode);
        for (int64_t i = 0; i < rows * C; ++i) expected_dz[i] = rounded_to(type, expected_dz[i]);
        StoredArray device_dy(type, dy), device_shortcut(type, shortcut), dz(type, rows * C);
        const bool in_place = shortcut_kind == 1;
        const bool accumulate = mode == GradMode::kAccumulate;
        DeviceArray<float> a1(before), a2(before), a3(before), o1(C), o2(C), o3(C);
        DeviceArray<float>&dbias1 = accumulate ? a1 : o1, &dslope = accumulate ? a2 : o2, &dbias2 = accumulate ? a3 : o3;
        DeviceArray<double> partial(slices * 2 * C);
        DeviceArray<char> workspace(cuda::batch_norm_rprelu_bwd_workspace_bytes(rows, C));
        const cuda::BatchNormApplyCuda device_in{v.device(),
                                                 v_type,
                                                 device_affine.data(),
                                                 nullptr,
                                                 shortcut_kind > 0 ? device_shortcut.data() : nullptr,
                                                 shortcut_kind > 1 ? device_shortcut_affine.data() : nullptr,
                                                 nullptr,
                                                 device_bias1.data(),
                                                 device_slope.data(),
                                                 nullptr};
        cuda::batch_norm_rprelu_bwd(cuda_device(), in_place ? device_dy.data() : dz.data(), partial.data(), dbias1.data(),
                                    dslope.data(), dbias2.data(), device_dy.data(), type, device_in, rows, C, mode,
                                    workspace.data(), cuda_stream());
        const Guarded<float> got_dz = in_place ? device_dy.values() : dz.values();
        expect_same_or_nan(got_dz, expected_dz, "dz");

        // The sums are of the stored dz; dslope's products come from the reference's formula through what it makes of them.
        const Guarded<double> sums(added(partial.values(), slices, C));
        std::vector<double> expected(size_t(2 * C), 0.0), size(size_t(2 * C), 0.0), dy_size(size_t(C), 0.0);
        for (int64_t i = 0; i < rows * C; ++i) {
          const double g = double(got_dz[i]), product = g * v.at(i);
          expected[size_t(i % C)] += g, size[size_t(i % C)] += std::fabs(g);
          expected[size_t(C + i % C)] += product, size[size_t(C + i % C)] += std::fabs(product);
          dy_size[size_t(i % C)] += std::fabs(double(dy[size_t(i)]));
        }
        const Guarded<float> got[] = {dbias1.values(), dslope.values(), dbias2.values()};
        for (int64_t c = 0; c < C; ++c) {
          const double first = accumulate ? double(before[size_t(c)]) : 0.0;
          const double want[] = {first + expected[size_t(c)], double(expected_dslope[c]), double(expected_dbias2[c])};
          // |w| < 7; two roundings to float behind the sums.
          const double allowed[] = {sum_bound(type, rows, size[size_t(c)]), sum_bound(type, rows, 7 * dy_size[size_t(c)]),
                                    sum_bound(type, rows, dy_size[size_t(c)])};
          for (int part = 0; part < 3; ++part) {
            if (c == bad) {
              ASSERT_TRUE(std::isnan(want[part]) && std::isnan(got[part][c])) << "gradient " << part << ": " << got[part][c];
            } else {
              ASSERT_TRUE(std::fabs(double(got[part][c]) - want[part]) <=
                          allowed[part] + 0x1p-23 * (std::fabs(want[part]) + std::fabs(first)))
                  << "gradient " << part << " of channel " << c << ": got " << got[part][c] << ", expected " << want[part];
            }
          }
          for (int64_t i : {c, C + c})
            if (c == bad)
              ASSERT_TRUE(std::isnan(sums[i])) << "B" << 1 + i / C << ": " << sums[i];
            else
              ASSERT_TRUE(std::fabs(sums[i] - expected[size_t(i)]) <= sum_bound(type, rows, size[size_t(i)]))
                  << "B" << 1 + i / C << " of channel " << c << ": got " << sums[i] << ", expected " << expected[size_t(i)];
        }
      }
    });
  });
}

TEST_F(BatchNormCuda, BackwardMatchesRefGivenItsSums) {
  in_both_orders([] {
    for_all({2, 150}, [](DType type, DType v_type, int64_t rows, int64_t C) {
      Values v(v_type, rows * C, 61, false);
      std::vector<float> dy = nasty_floats(rows * C, 62);
      for (float& g : dy) g = std::fmax(-6e4f, std::fmin(6e4f, g));  // in the range of fp16
      dy = as_stored(type, dy);
      const int64_t slices = cuda::row_slice_count(rows, C);
      StoredArray device_dy(type, dy), dz(type, rows * C);
      DeviceArray<double> partial(slices * 2 * C);
      cuda::batch_norm_bwd_sums(cuda_device(), partial.data(), device_dy.data(), type, v.device(), v_type, rows, C,
                                cuda_stream());
      const Guarded<double> sums(added(partial.values(), slices, C));
      std::vector<double> expected(size_t(2 * C), 0.0), bound(size_t(2 * C), 0.0);
      for (int64_t i = 0; i < rows * C; ++i) {
        const double g = dy[size_t(i)], product = g * v.at(i);
        expected[size_t(i % C)] += g, bound[size_t(i % C)] += sum_bound(type, rows, std::fabs(g));
        expected[size_t(C + i % C)] += product, bound[size_t(C + i % C)] += sum_bound(type, rows, std::fabs(product));
      }
      expect_within(sums, expected, bound, "sums");

      // The reference goes on from the kernel's sums. Slices are added in another order there: one double rounding each.
      std::vector<double> stats = std::vector<double>(size_t(3 * C));
      for (int64_t c = 0; c < C; ++c) {
        stats[size_t(c)] = uniform01(63, uint64_t(c)) - 0.5;
        stats[size_t(C + c)] = 1, stats[size_t(2 * C + c)] = 0.1 + uniform01(64, uint64_t(c));
      }
      const std::vector<float> alpha = random_floats(C, 65), gamma = random_floats(C, 66), before = random_floats(C, 67);
      DeviceArray<double> device_stats(stats);
      DeviceArray<float> device_alpha(alpha), device_gamma(gamma), coefficients(3 * C), dgamma(before), dbeta(C);
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAccumulate}) {
        Guarded<float> expected_coefficients(3 * C), expected_dgamma(before), expected_dbeta(before);
        DeviceArray<float> accumulated(before), overwritten(C);
        float* out = mode == GradMode::kAccumulate ? accumulated.data() : overwritten.data();
        DeviceArray<float> other(before);
        cuda::batch_norm_bwd_coefficients(cuda_device(),
                                          {coefficients.data(), out, other.data(), partial.data(), device_stats.data(),
                                           device_alpha.data(), device_gamma.data()},
                                          nullptr, cuda::row_slice_count(rows, C), rows, C, mode, cuda_stream());
        ref::batch_norm_bwd_coefficients(expected_coefficients.data(), expected_dgamma.data(), expected_dbeta.data(), sums.data(),
                                         stats.data(), alpha.data(), gamma.data(), rows, C, mode);
        // b and c come from B2 - mean B1, which may cancel: 2^-50 of what is subtracted, then one rounding to float.
        std::vector<double> allowed(size_t(3 * C)), allowed_sums(size_t(2 * C));
        for (int64_t c = 0; c < C; ++c) {
          const double size = std::fabs(sums[c]) + std::fabs(sums[C + c]) + bound[size_t(c)] + bound[size_t(C + c)];
          for (int part = 0; part < 3; ++part)
            allowed[size_t(part * C + c)] = 0x1p-23 * std::fabs(expected_coefficients[part * C + c]) + 0x1p-45 * size + 1e-44;
          allowed_sums[size_t(c)] = 0x1p-23 * std::fabs(expected_dgamma[c]) + 0x1p-23 + 0x1p-45 * size;
          allowed_sums[size_t(C + c)] = 0x1p-23 * std::fabs(expected_dbeta[c]) + 0x1p-23 + 0x1p-45 * size;
        }
        expect_within(coefficients.values(), expected_coefficients, allowed, "coefficients");
        expect_within(mode == GradMode::kAccumulate ? accumulated.values() : overwritten.values(), expected_dgamma,
                      std::vector<double>(allowed_sums.begin(), allowed_sums.begin() + C), "dgamma");
        expect_within(other.values(), expected_dbeta, std::vector<double>(allowed_sums.begin() + C, allowed_sums.end()), "dbeta");
      }
      Guarded<float> expected_dz(rows * C);
      ref::batch_norm_bwd_apply(expected_dz.data(), dy.data(), v.host(), v.host_type(), coefficients.values().data(), rows, C);
      for (int64_t i = 0; i < rows * C; ++i) expected_dz[i] = rounded_to(type, expected_dz[i]);
      cuda::batch_norm_bwd_apply(cuda_device(), dz.data(), device_dy.data(), type, v.device(), v_type, coefficients.data(),
                                 nullptr, nullptr, nullptr, rows, C, cuda_stream());
      expect_same_or_nan(dz.values(), expected_dz, "dz");
      cuda::batch_norm_bwd_apply(cuda_device(), device_dy.data(), device_dy.data(), type, v.device(), v_type, coefficients.data(),
                                 nullptr, nullptr, nullptr, rows, C, cuda_stream());
      expect_same_or_nan(device_dy.values(), expected_dz, "dz in place of dy");
      // With the norm of the shortcut, dz again in place of dy.
      const std::vector<float> shortcut_v = as_stored(type, random_floats(rows * C, 65)), others = random_floats(3 * C, 66);
      Guarded<float> expected_shortcut_dz(rows * C);
      ref::batch_norm_bwd_apply(expected_shortcut_dz.data(), dy.data(), shortcut_v.data(), DType::kF32, others.data(), rows, C);
      for (int64_t i = 0; i < rows * C; ++i) expected_shortcut_dz[i] = rounded_to(type, expected_shortcut_dz[i]);
      StoredArray both(type, dy), device_shortcut_v(type, shortcut_v), shortcut_dz(type, rows * C);
      DeviceArray<float> device_others(others);
      cuda::batch_norm_bwd_apply(cuda_device(), both.data(), both.data(), type, v.device(), v_type, coefficients.data(),
                                 shortcut_dz.data(), device_shortcut_v.data(), device_others.data(), rows, C, cuda_stream());
      expect_same_or_nan(both.values(), expected_dz, "dz of both");
      expect_same_or_nan(shortcut_dz.values(), expected_shortcut_dz, "dz of the shortcut");
    });
  });
}

namespace {

// One of two norms whose results were added. Its partial sums are integers, so that any order of additions gives the same bits.
struct OneOfTwo {
  std::vector<double> partial, stats;
  std::vector<float> alpha, gamma, before;
  DeviceArray<double> device_partial, device_stats;
  DeviceArray<float> device_alpha, device_gamma, coefficients, dgamma, dbeta;

  OneOfTwo(int64_t slices, int64_t C, uint64_t seed, bool with_alpha, GradMode mode)
      : partial(values(slices * 2 * C, [&](uint64_t i) { return double(splitmix64(seed, i) >> 52) - 2048; })),
        stats(values(3 * C, [&](uint64_t i) { return 0.1 + uniform01(seed + 1, i); })),
        alpha(with_alpha ? random_floats(C, seed + 2) : std::vector<float>()),
        gamma(random_floats(C, seed + 3)),
        before(mode == GradMode::kAccumulate ? random_floats(2 * C, seed + 4) : std::vector<float>(size_t(2 * C))),
        device_partial(partial),
        device_stats(stats),
        device_alpha(alpha),
        device_gamma(gamma),
        coefficients(3 * C),
        dgamma(gradient(0, C, mode)),
        dbeta(gradient(C, C, mode)) {}

  cuda::BatchNormBackward device() {
    return {coefficients.data(),   dgamma.data(),       dbeta.data(),
            device_partial.data(), device_stats.data(), alpha.empty() ? nullptr : device_alpha.data(),
            device_gamma.data()};
  }

  void expect_as_ref(int64_t slices, int64_t rows, int64_t C, GradMode mode, const char* what) const {
    SCOPED_TRACE(what);
    const std::vector<double> sums = added(Guarded<double>(partial), slices, C);
    Guarded<float> expected(3 * C), expected_dgamma(std::vector<float>(before.begin(), before.begin() + C)),
        expected_dbeta(std::vector<float>(before.begin() + C, before.end()));
    ref::batch_norm_bwd_coefficients(expected.data(), expected_dgamma.data(), expected_dbeta.data(), sums.data(), stats.data(),
                                     alpha.empty() ? nullptr : alpha.data(), gamma.data(), rows, C, mode);
    expect_same_bits(coefficients.values(), expected, "coefficients");
    expect_same_bits(dgamma.values(), expected_dgamma, "dgamma");
    expect_same_bits(dbeta.values(), expected_dbeta, "dbeta");
  }

 private:
  template <class F>
  static std::vector<double> values(int64_t count, const F& f) {
    std::vector<double> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = f(i);
    return values;
  }
  // What is overwritten is unwritten before, so that the emulator reports who reads it.
  DeviceArray<float> gradient(int64_t first, int64_t C, GradMode mode) const {
    if (mode == GradMode::kOverwrite) return DeviceArray<float>(C);
    return DeviceArray<float>(std::vector<float>(before.begin() + first, before.begin() + first + C));
  }
};

}  // namespace

TEST_F(BatchNormCuda, BackwardCoefficientsOfTwoNormsAreThoseOfEach) {
  in_both_orders([] {
    for (int64_t rows : {2, 150, 5000})
      for (int64_t C : kChannels)
        for (GradMode mode : {GradMode::kOverwrite, GradMode::kAccumulate})
          for (bool first_has_alpha : {true, false}) {  // of a binary convolution; the other's input is real
            SCOPED_TRACE("rows" + std::to_string(rows) + "_C" + std::to_string(C) + "_mode" + std::to_string(int(mode)) +
                         (first_has_alpha ? "_alpha_first" : "_alpha_second"));
            const int64_t slices = cuda::row_slice_count(rows, C);
            OneOfTwo norm(slices, C, 71, first_has_alpha, mode), shortcut(slices, C, 81, !first_has_alpha, mode);
            const cuda::BatchNormBackward device_shortcut = shortcut.device();
            cuda::batch_norm_bwd_coefficients(cuda_device(), norm.device(), &device_shortcut, slices, rows, C, mode,
                                              cuda_stream());
            norm.expect_as_ref(slices, rows, C, mode, "norm");
            shortcut.expect_as_ref(slices, rows, C, mode, "shortcut's norm");
          }
  });
}

TEST_F(BatchNormCuda, CommitOfAllNormsInOneLaunchMatchesRef) {
  in_both_orders([] {
    for (double nonfinite : {0.0, 1.0}) {
      std::vector<int64_t> channels = {1, 64, 129, 512};
      while (channels.size() < 85) channels.push_back(3);  // more than one table holds
      int64_t total = 0;
      for (int64_t C : channels) total += C;
      Guarded<float> mean(random_floats(total, 1)), var(random_floats(total, 2));
      const std::vector<float> noise = random_floats(2 * total, 3);
      Guarded<double> sums(std::vector<double>(noise.begin(), noise.end()));
      DeviceArray<float> device_mean(mean.values()), device_var(var.values());
      DeviceArray<double> device_sums(sums.values()), flag(std::vector<double>{nonfinite});
      std::vector<cuda::RunningStatistics> norms;
      int64_t at = 0;
      for (int64_t C : channels) {
        ref::batch_norm_commit(mean.data() + at, var.data() + at, sums.data() + 2 * at, &nonfinite, C, 3, 0.1);
        norms.push_back({device_mean.data() + at, device_var.data() + at, device_sums.data() + 2 * at, C});
        at += C;
      }
      cuda::batch_norm_commit(cuda_device(), norms.data(), int64_t(norms.size()), flag.data(), 3, 0.1, cuda_stream());
      expect_same_bits(device_mean.values(), mean, "running_mean");
      expect_same_bits(device_var.values(), var, "running_var");
      expect_same_bits(device_sums.values(), sums, "running_sums");
    }
  });
}

TEST_F(BatchNormCuda, InferenceMatchesRef) {
  in_both_orders([] {
    const int64_t C = 130;
    std::vector<float> mean = random_floats(C, 1), var = random_floats(C, 2), gamma = random_floats(C, 3),
                       beta = random_floats(C, 4);
    std::vector<float> alpha = random_floats(C, 5);
    for (float& x : var) x = std::fabs(x);
    DeviceArray<float> device_mean(mean), device_var(var), device_gamma(gamma), device_beta(beta), device_alpha(alpha),
        affine(2 * C);
    for (bool with_alpha : {false, true}) {
      Guarded<float> expected(2 * C);
      ref::batch_norm_inference(expected.data(), mean.data(), var.data(), with_alpha ? alpha.data() : nullptr, gamma.data(),
                                beta.data(), C, kEps);
      cuda::batch_norm_inference(cuda_device(), affine.data(), device_mean.data(), device_var.data(),
                                 with_alpha ? device_alpha.data() : nullptr, device_gamma.data(), device_beta.data(), C, kEps,
                                 cuda_stream());
      expect_same_bits(affine.values(), expected, "affine");
    }
  });
}

TEST_F(BatchNormCuda, MovesEverySectorOnce) {
  const DType type = DType::kF16;
  for (int64_t C : {64, 128, 512}) {
    SCOPED_TRACE("C " + std::to_string(C));
    const int64_t rows = 262144 / C, slices = cuda::row_slice_count(rows, C);
    Values v(DType::kI16, rows * C, 1, false);
    StoredArray shortcut(type, random_floats(rows * C, 2)), y(type, rows * C);
    DeviceArray<word_t> bits(rows * word_count(C));
    DeviceArray<float> affine(random_floats(2 * C, 3)), coefficients(random_floats(3 * C, 4));
    DeviceArray<double> sums(slices * 2 * C);
    cuda::BatchNormApplyCuda in{v.device(), DType::kI16, affine.data(), nullptr, shortcut.data(), nullptr, nullptr};
    cuda::batch_norm_apply(cuda_device(), y.data(), type, bits.data(), in, rows, C, cuda_stream());
    expect_coalesced(1.12);  // a block reads its constants for only 24 KB here
    cuda::batch_norm_bwd_sums(cuda_device(), sums.data(), y.data(), type, v.device(), DType::kI16, rows, C, cuda_stream());
    expect_coalesced();
    DeviceArray<float> rprelu(random_floats(3 * C, 5)), gradients(3 * C);
    DeviceArray<char> workspace(cuda::batch_norm_rprelu_bwd_workspace_bytes(rows, C));
    StoredArray dz(type, rows * C);
    in.bias1 = rprelu.data(), in.slope = rprelu.data() + C, in.bias2 = rprelu.data() + 2 * C;
    cuda::batch_norm_apply(cuda_device(), y.data(), type, bits.data(), in, rows, C, cuda_stream());
    expect_coalesced(1.16);  // and three more of them
    cuda::batch_norm_rprelu_bwd(cuda_device(), dz.data(), sums.data(), gradients.data(), gradients.data() + C,
                                gradients.data() + 2 * C, y.data(), type, in, rows, C, GradMode::kOverwrite, workspace.data(),
                                cuda_stream());
    expect_coalesced();  // of the launch that adds the slices
    if (cuda_is_emulated()) {
      // Of the first: each warp reads its 4 * 128 bytes of constants, and a block writes 1 KB of sums, for only 64 rows here.
      const Traffic traffic = last_traffic(1);
      EXPECT_LE(traffic.requested, 1.01 * 4 * double(rows * C) * 2 / 32 + double(slices * word_count(C)) * (8 * 16 + 32));
      EXPECT_LE(traffic.worst_bank_conflict, 2u);
    }
    cuda::batch_norm_bwd_apply(cuda_device(), y.data(), y.data(), type, v.device(), DType::kI16, coefficients.data(), nullptr,
                               nullptr, nullptr, rows, C, cuda_stream());
    if (!cuda_is_emulated()) continue;
    // dz lies over dy, so count by hand; a block reads its 3 * 128 bytes of coefficients once.
    EXPECT_LE(last_traffic().requested, 1.001 * 3 * double(rows * C) * 2 / 32 + double(slices * word_count(C)) * 12);
  }
}

}  // namespace bireal
