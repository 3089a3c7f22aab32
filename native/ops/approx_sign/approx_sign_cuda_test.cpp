#include "cuda/row_slices.h"
#include "ops/approx_sign/approx_sign.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class ApproxSignCuda : public CudaTest {};

TEST_F(ApproxSignCuda, EveryVariantMatchesRef) {
  in_both_orders([] {
    for (DType type : kStoredTypes)
      for (int64_t C : nasty_channels())
        for (int64_t rows : {1, 7, 150})
          for (int variant = 0; variant < 16; ++variant) {
            if (rows == 7 && variant % 5 != 0) continue;
            const ActivationGradient kind = ActivationGradient(variant & 1);
            const bool non_finite = variant & 8;
            SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_rows" + std::to_string(rows) + "_C" + std::to_string(C) +
                         "_variant" + std::to_string(variant));
            auto stored = [&](uint64_t seed) { return as_stored(type, nasty_floats(rows * C, seed, non_finite)); };
            const std::vector<float> x = stored(1), db = stored(2), shortcut = stored(4),
                                     threshold = nasty_floats(C, 3, non_finite);
            Guarded<float> expected(rows * C);
            ref::approx_sign_bwd(expected.data(), nullptr, db.data(), x.data(), variant & 2 ? threshold.data() : nullptr,
                                 variant & 4 ? shortcut.data() : nullptr, 0, rows, C, kind, GradMode::kOverwrite);
            for (int64_t i = 0; i < expected.count(); ++i) expected[i] = rounded_to(type, expected[i]);
            StoredArray device_x(type, x), device_db(type, db), dx(type, rows * C), s(type, shortcut);
            DeviceArray<float> t(threshold);
            // In place over the shortcut, where there is one.
            void* out = variant & 4 ? s.data() : dx.data();
            cuda::approx_sign_bwd(cuda_device(), out, nullptr, device_db.data(), device_x.data(), type,
                                  variant & 2 ? t.data() : nullptr, variant & 4 ? s.data() : nullptr, 0, nullptr, nullptr, type,
                                  nullptr, nullptr, rows, C, kind, GradMode::kOverwrite, nullptr, cuda_stream());
            expect_same_or_nan(variant & 4 ? s.values() : dx.values(), expected, "dx");
          }
  });
}

TEST_F(ApproxSignCuda, APooledShortcutGivesEachPixelAQuarter) {
  struct Images {
    int64_t n, H, W;
  };
  in_both_orders([] {
    for (DType type : kStoredTypes)
      for (const Images& images : {Images{1, 2, 2}, Images{3, 4, 6}, Images{2, 10, 14}})
        for (int64_t C : nasty_channels())
          for (int variant = 0; variant < 4; ++variant) {
            const int64_t W = images.W, rows = images.n * images.H * W;
            const ActivationGradient kind = ActivationGradient(variant & 1);
            SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_rows" + std::to_string(rows) + "_C" + std::to_string(C) +
                         "_variant" + std::to_string(variant));
            auto stored = [&](int64_t count, uint64_t seed) { return as_stored(type, nasty_floats(count, seed, variant & 2)); };
            const std::vector<float> x = stored(rows * C, 1), db = stored(rows * C, 2), pooled = stored(rows / 4 * C, 4);
            Guarded<float> expected(rows * C);
            ref::approx_sign_bwd(expected.data(), nullptr, db.data(), x.data(), nullptr, pooled.data(), W, rows, C, kind,
                                 GradMode::kOverwrite);
            for (int64_t i = 0; i < expected.count(); ++i) expected[i] = rounded_to(type, expected[i]);
            StoredArray device_x(type, x), device_db(type, db), dx(type, rows * C), s(type, pooled);
            cuda::approx_sign_bwd(cuda_device(), dx.data(), nullptr, device_db.data(), device_x.data(), type, nullptr, s.data(),
                                  W, nullptr, nullptr, type, nullptr, nullptr, rows, C, kind, GradMode::kOverwrite, nullptr,
                                  cuda_stream());
            expect_same_or_nan(dx.values(), expected, "dx");
          }
  });
}

TEST_F(ApproxSignCuda, AlsoGivesTheSumsOfTheNormsBefore) {
  in_both_orders([] {
    for (DType type : kStoredTypes)
      for (DType v_type : {DType::kI16, DType::kI32, type})
        for (int64_t C : {33, 64})
          for (int64_t rows : {1, 150, 1000}) {
            SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_" + cuda::type_suffix(v_type) + "_rows" + std::to_string(rows) +
                         "_C" + std::to_string(C));
            auto stored = [&](uint64_t seed) { return as_stored(type, random_floats(rows * C, seed)); };
            const std::vector<float> x = stored(1), db = stored(2), shortcut = stored(3);
            std::vector<float> v(size_t(rows * C));
            for (size_t i = 0; i < v.size(); ++i) v[i] = float(int(splitmix64(9, i) % 1201) - 600);
            v = as_stored(type, v);  // so that bf16 holds them too
            std::vector<int16_t> v16(v.begin(), v.end());
            std::vector<int32_t> v32(v.begin(), v.end());
            StoredArray device_x(type, x), device_db(type, db), s(type, shortcut), dx(type, rows * C), real_v(type, v);
            DeviceArray<int16_t> short_v(v16);
            DeviceArray<int32_t> int_v(v32);
            const int64_t slices = cuda::row_slice_count(rows, C);
            DeviceArray<double> sums(slices * 2 * C), second_sums(slices * 2 * C);
            const std::vector<float> second = as_stored(type, random_floats(rows * C, 10));
            StoredArray second_v(type, second);
            const void* norm_v = v_type == DType::kI16   ? static_cast<const void*>(short_v.data())
                                 : v_type == DType::kI32 ? static_cast<const void*>(int_v.data())
                                                         : real_v.data();
            cuda::approx_sign_bwd(cuda_device(), dx.data(), nullptr, device_db.data(), device_x.data(), type, nullptr, s.data(),
                                  0, sums.data(), norm_v, v_type, second_sums.data(), second_v.data(), rows, C,
                                  ActivationGradient::kApproxSign, GradMode::kOverwrite, nullptr, cuda_stream());
            const Guarded<float> result = dx.values();
            for (bool shortcut_norm : {false, true}) {
              const std::vector<float>& values = shortcut_norm ? second : v;
              const Guarded<double> partial = shortcut_norm ? second_sums.values() : sums.values();
              for (int64_t c = 0; c < C; ++c) {
                double expected[2] = {0, 0}, size[2] = {0, 0}, got[2] = {0, 0};
                for (int64_t i = 0; i < rows; ++i) {
                  const double g = double(result[i * C + c]), product = g * double(values[size_t(i * C + c)]);
                  expected[0] += g, expected[1] += product, size[0] += std::fabs(g), size[1] += std::fabs(product);
                }
                for (int64_t slice = 0; slice < slices; ++slice)
                  for (int which = 0; which < 2; ++which) got[which] += partial[(slice * 2 + which) * C + c];
                // batch_norm.h: rows 2^-53, and 2^-21 for groups of four 16-bit values in float32.
                const double bound = 2 * double(rows + slices) * 0x1p-53 + (type == DType::kF32 ? 0 : 0x1p-21);
                for (int which = 0; which < 2; ++which)
                  ASSERT_TRUE(std::fabs(got[which] - expected[which]) <= bound * size[which])
                      << "B" << which + 1 << " of channel " << c << (shortcut_norm ? " of the shortcut's norm" : "") << ": got "
                      << got[which] << ", expected " << expected[which];
              }
            }
          }
  });
}

TEST_F(ApproxSignCuda, AlsoGivesTheGradientOfTheThreshold) {
  in_both_orders([] {
    for (DType type : kStoredTypes)
      for (int64_t C : nasty_channels())
        for (int64_t rows : {1, 7, 150, 2000})
          for (int variant = 0; variant < 8; ++variant) {
            if ((rows == 7 || rows == 2000) && variant % 3 != 0) continue;
            if (rows == 2000 && C != 33) continue;
            const ActivationGradient kind = ActivationGradient(variant & 1);
            const GradMode mode = variant & 2 ? GradMode::kAccumulate : GradMode::kOverwrite;
            const bool with_norm = variant & 4;
            SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_rows" + std::to_string(rows) + "_C" + std::to_string(C) +
                         "_variant" + std::to_string(variant));
            auto stored = [&](uint64_t seed) { return as_stored(type, random_floats(rows * C, seed, 2.0f)); };
            const std::vector<float> x = stored(1), shortcut = stored(3), threshold = random_floats(C, 4),
                                     before = random_floats(C, 5);
            std::vector<float> db = stored(2);
            const int64_t bad = rows * C / 2;  // one channel's gradient is NaN, and no other's
            db[size_t(bad)] = std::numeric_limits<float>::quiet_NaN();
            Guarded<float> expected_dx(rows * C), expected(before);
            ref::approx_sign_bwd(expected_dx.data(), expected.data(), db.data(), x.data(), threshold.data(), shortcut.data(), 0,
                                 rows, C, kind, mode);
            for (int64_t i = 0; i < expected_dx.count(); ++i) expected_dx[i] = rounded_to(type, expected_dx[i]);
            std::vector<double> size(size_t(C), 0.0);
            for (int64_t i = 0; i < rows * C; ++i) size[size_t(i % C)] += 2 * std::fabs(double(db[size_t(i)]));
            StoredArray device_x(type, x), device_db(type, db), s(type, shortcut), dx(type, rows * C), v(type, shortcut);
            DeviceArray<float> device_threshold(threshold), accumulated(before), overwritten(C);
            DeviceArray<double> norm_sums(cuda::row_slice_count(rows, C) * 2 * C);
            DeviceArray<char> workspace(cuda::approx_sign_workspace_bytes(rows, C));
            DeviceArray<float>& dthreshold = variant & 2 ? accumulated : overwritten;
            cuda::approx_sign_bwd(cuda_device(), dx.data(), dthreshold.data(), device_db.data(), device_x.data(), type,
                                  device_threshold.data(), s.data(), 0, with_norm ? norm_sums.data() : nullptr,
                                  with_norm ? v.data() : nullptr, type, nullptr, nullptr, rows, C, kind, mode, workspace.data(),
                                  cuda_stream());
            expect_same_or_nan(dx.values(), expected_dx, "dx");
            const Guarded<float> got = dthreshold.values();
            // batch_norm.h: rows 2^-53, and 2^-21 for groups of four 16-bit values in float32; then two roundings to float.
            const double relative = 2 * double(rows + 1100) * 0x1p-53 + (type == DType::kF32 ? 0 : 0x1p-21);
            for (int64_t c = 0; c < C; ++c) {
              if (c == bad % C) {
                ASSERT_TRUE(std::isnan(expected[c]) && std::isnan(got[c])) << "channel " << c << ": got " << got[c];
                continue;
              }
              const double bound =
                  relative * size[size_t(c)] + 0x1p-23 * (std::fabs(double(expected[c])) + std::fabs(double(before[size_t(c)])));
              ASSERT_TRUE(std::fabs(double(got[c]) - double(expected[c])) <= bound)
                  << "channel " << c << ": got " << got[c] << ", expected " << expected[c] << ", allowed " << bound;
            }
          }
  });
}

TEST_F(ApproxSignCuda, MovesEverySectorOnce) {
  const int64_t rows = 4096, C = 64;
  const std::vector<float> values = random_floats(rows * C, 1);
  StoredArray x(DType::kF16, values), db(DType::kF16, values), shortcut(DType::kF16, values), dx(DType::kF16, rows * C);
  DeviceArray<int16_t> v(std::vector<int16_t>(size_t(rows * C), 3));
  DeviceArray<double> sums(cuda::row_slice_count(rows, C) * 2 * C);
  cuda::approx_sign_bwd(cuda_device(), dx.data(), nullptr, db.data(), x.data(), DType::kF16, nullptr, shortcut.data(), 0,
                        sums.data(), v.data(), DType::kI16, nullptr, nullptr, rows, C, ActivationGradient::kApproxSign,
                        GradMode::kOverwrite, nullptr, cuda_stream());
  expect_coalesced();
}

}  // namespace bireal
