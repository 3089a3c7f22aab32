#include "ops/approx_sign/approx_sign.h"

#include "ops/batch_norm/batch_norm.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

constexpr ActivationGradient kKinds[] = {ActivationGradient::kApproxSign, ActivationGradient::kClippedIdentity};

// Same bits, except that any NaN equals any NaN.
static void expect_same_or_nan(const Guarded<float>& got, const Guarded<float>& expected) {
  for (int64_t i = 0; i < got.count(); ++i) {
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(got[i])) << "dx[" << i << "] = " << got[i];
    } else {
      ASSERT_EQ(0, std::memcmp(&got[i], &expected[i], sizeof(float)))
          << "dx[" << i << "]: got " << got[i] << ", expected " << expected[i];
    }
  }
}

TEST(ApproxSignBwd, HandWorkedValues) {
  float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  Guarded<float> x(std::vector<float>{0.0f, -0.25f, 0.75f, 1.0f, -1.0f, 1.5f, -inf, nan});
  Guarded<float> db(std::vector<float>(8, 4.0f)), dx(8);
  ref::approx_sign_bwd(dx.data(), nullptr, db.data(), x.data(), nullptr, nullptr, 0, 1, 8, ActivationGradient::kApproxSign,
                       GradMode::kOverwrite);
  EXPECT_EQ(dx.values(), (std::vector<float>{8, 6, 2, 0, 0, 0, 0, 0}));
  ref::approx_sign_bwd(dx.data(), nullptr, db.data(), x.data(), nullptr, nullptr, 0, 1, 8, ActivationGradient::kClippedIdentity,
                       GradMode::kOverwrite);
  EXPECT_EQ(dx.values(), (std::vector<float>{4, 4, 4, 4, 4, 0, 0, 0}));
  // The threshold moves u, the shortcut's gradient is added: u = -0.5, 0.5 -> surrogate 1.
  Guarded<float> t(std::vector<float>{-0.5f, 0.75f}), shortcut(std::vector<float>{100, 200});
  Guarded<float> dt(std::vector<float>{10, 20});
  ref::approx_sign_bwd(dx.data(), dt.data(), db.data(), x.data(), t.data(), shortcut.data(), 0, 1, 2,
                       ActivationGradient::kApproxSign, GradMode::kAccumulate);
  EXPECT_EQ(dx[0], 104.0f);
  EXPECT_EQ(dx[1], 204.0f);
  EXPECT_EQ(dt.values(), (std::vector<float>{14, 24}));
  // Two rows of one channel: u = 0.5, 1.25 -> surrogate 1, 0.
  Guarded<float> two(std::vector<float>{0.25f, 1.0f}), one(std::vector<float>{0.25f}), sum(1);
  ref::approx_sign_bwd(dx.data(), sum.data(), db.data(), two.data(), one.data(), nullptr, 0, 2, 1,
                       ActivationGradient::kApproxSign, GradMode::kOverwrite);
  EXPECT_EQ(sum[0], 4.0f);
}

TEST(ApproxSignBwd, IsTheDerivativeOfThePiecewiseQuadraticSign) {
  // Liu et al. 2018, eq. 6: F(u) = 2u + u^2 on [-1,0), 2u - u^2 on [0,1). A central difference of a quadratic is exact but
  // for rounding (1e-16 / 2e-6 = 5e-11), unless it straddles a kink.
  auto F = [](double u) { return u < -1 ? -1.0 : u < 0 ? 2 * u + u * u : u < 1 ? 2 * u - u * u : 1.0; };
  const double step = 1e-6;
  for (double u : {-1.7, -0.9, -0.5, -0.125, 0.3, 0.6875, 0.99, 1.2}) {
    float x = float(u), db = 1.0f, dx = 0.0f;
    ref::approx_sign_bwd(&dx, nullptr, &db, &x, nullptr, nullptr, 0, 1, 1, ActivationGradient::kApproxSign, GradMode::kOverwrite);
    EXPECT_NEAR(dx, (F(double(x) + step) - F(double(x) - step)) / (2 * step), 2e-7) << "u = " << u;
  }
}

TEST(ApproxSignBwd, EveryIsaMatchesRef) {
  for (auto& context : all_contexts())
    for (int64_t C : nasty_channels())
      for (int64_t rows : {1, 7, 1500})
        for (int variant = 0; variant < 32; ++variant) {
          ActivationGradient kind = kKinds[variant & 1];
          bool non_finite = variant & 8, learned = variant & 16;
          GradMode mode = variant & 4 ? GradMode::kAccumulate : GradMode::kOverwrite;
          if (learned && !(variant & 2)) continue;
          SCOPED_TRACE(context_name(*context) + " rows" + std::to_string(rows) + "_C" + std::to_string(C) + "_variant" +
                       std::to_string(variant));
          Guarded<float> x(nasty_floats(rows * C, 1, true)), db(nasty_floats(rows * C, 2, non_finite));
          Guarded<float> threshold(nasty_floats(C, 3, non_finite)), shortcut(nasty_floats(rows * C, 4, non_finite));
          const float* t = variant & 2 ? threshold.data() : nullptr;
          const float* s = variant & 4 ? shortcut.data() : nullptr;
          Guarded<float> expected(rows * C), got(rows * C), expected_dt(random_floats(C, 5)), got_dt(expected_dt.values());
          Guarded<double> workspace(approx_sign_workspace_bytes(C) / int64_t(sizeof(double)));
          ref::approx_sign_bwd(expected.data(), learned ? expected_dt.data() : nullptr, db.data(), x.data(), t, s, 0, rows, C,
                               kind, mode);
          cpu::approx_sign_bwd(*context, got.data(), learned ? got_dt.data() : nullptr, db.data(), x.data(), t, s, 0, rows, C,
                               kind, mode, workspace.data());
          expect_same_or_nan(got, expected);
          expect_same_or_nan(got_dt, expected_dt);
          got.expect_guards("dx");
          got_dt.expect_guards("dthreshold");
          workspace.expect_guards("workspace");
        }
}

TEST(ApproxSignBwd, MayOverwriteEitherGradient) {
  for (auto& context : all_contexts())
    for (ActivationGradient kind : kKinds)
      for (bool learned : {false, true}) {
        SCOPED_TRACE(context_name(*context));
        const int64_t rows = 301, C = 65;
        Guarded<float> x(nasty_floats(rows * C, 1)), db(nasty_floats(rows * C, 2)), shortcut(nasty_floats(rows * C, 3));
        Guarded<float> expected(rows * C), in_db(db.values()), in_shortcut(shortcut.values()), threshold(random_floats(C, 4));
        Guarded<float> expected_dt(C), dt(C);
        Guarded<double> workspace(approx_sign_workspace_bytes(C) / int64_t(sizeof(double)));
        const float* t = learned ? threshold.data() : nullptr;
        auto run = [&](Guarded<float>& dx, const float* db_in, const float* shortcut_in) {
          cpu::approx_sign_bwd(*context, dx.data(), learned ? dt.data() : nullptr, db_in, x.data(), t, shortcut_in, 0, rows, C,
                               kind, GradMode::kOverwrite, workspace.data());
          expect_same_bits(dx, expected, "dx over an input");
          if (learned) expect_same_bits(dt, expected_dt, "dthreshold");
        };
        ref::approx_sign_bwd(expected.data(), learned ? expected_dt.data() : nullptr, db.data(), x.data(), t, shortcut.data(), 0,
                             rows, C, kind, GradMode::kOverwrite);
        run(in_db, in_db.data(), shortcut.data());
        run(in_shortcut, db.data(), in_shortcut.data());
      }
}

// Taken chunk by chunk while dx is made, and yet the bits of the op that reads all of dx.
TEST(ApproxSignBwd, SumsOfTheNormsAreThoseOfTheirOp) {
  for (auto& context : all_contexts())
    for (int64_t C : {1, 33, 64, 515})
      for (int64_t rows : {1, 7, 500})
        for (int variant = 0; variant < 16; ++variant) {
          const bool learned = variant & 1, first = variant & 2, second = variant & 4;
          const DType v_type = variant & 8 ? DType::kI32 : DType::kI16;
          SCOPED_TRACE(context_name(*context) + " rows" + std::to_string(rows) + "_C" + std::to_string(C) + "_variant" +
                       std::to_string(variant));
          Guarded<float> x(random_floats(rows * C, 1)), db(random_floats(rows * C, 2)), threshold(random_floats(C, 3));
          Guarded<float> shortcut(random_floats(rows * C, 4)), second_v(random_floats(rows * C, 5)), dx(rows * C), dt(C);
          Guarded<int16_t> narrow(rows * C);
          Guarded<int32_t> wide(rows * C);
          for (int64_t i = 0; i < rows * C; ++i) narrow[i] = int16_t(wide[i] = int32_t(db[i] * 500));
          const void* v = v_type == DType::kI16 ? static_cast<const void*>(narrow.data()) : wide.data();
          Guarded<double> workspace(approx_sign_workspace_bytes(C) / int64_t(sizeof(double))), sums(2 * C), second_sums(2 * C);
          cpu::ApproxSignNorms norms;
          if (first) norms[0] = {sums.data(), v, v_type};
          if (second) norms[1] = {second_sums.data(), second_v.data(), DType::kF32};
          cpu::approx_sign_bwd(*context, dx.data(), learned ? dt.data() : nullptr, db.data(), x.data(), threshold.data(),
                               shortcut.data(), 0, rows, C, ActivationGradient::kApproxSign, GradMode::kOverwrite,
                               workspace.data(), norms);
          workspace.expect_guards("workspace");
          Guarded<double> expected(2 * C), slices(batch_norm_workspace_bytes(C) / int64_t(sizeof(double)));
          if (first) {
            cpu::batch_norm_bwd_sums(*context, expected.data(), dx.data(), v, v_type, rows, C, slices.data());
            expect_same_bits(sums, expected, "sums");
          }
          if (second) {
            cpu::batch_norm_bwd_sums(*context, expected.data(), dx.data(), second_v.data(), DType::kF32, rows, C, slices.data());
            expect_same_bits(second_sums, expected, "sums of the shortcut's norm");
          }
        }
}

// The shortcut's gradient comes pooled: every pixel adds a quarter of its window's, and nothing else changes.
TEST(ApproxSignBwd, APooledShortcutGivesEachPixelAQuarter) {
  struct Images {
    int64_t n, H, W;
  };
  for (auto& context : all_contexts())
    for (const Images& images : {Images{1, 2, 2}, Images{3, 4, 6}, Images{2, 30, 26}})
      for (int64_t C : nasty_channels())
        for (int variant = 0; variant < 16; ++variant) {
          const auto [n, H, W] = images;
          const int64_t rows = n * H * W;
          const ActivationGradient kind = kKinds[variant & 1];
          const bool with_threshold = variant & 2, learned = with_threshold && variant & 4, non_finite = variant & 8;
          SCOPED_TRACE(context_name(*context) + " n" + std::to_string(n) + "_H" + std::to_string(H) + "_W" + std::to_string(W) +
                       "_C" + std::to_string(C) + "_variant" + std::to_string(variant));
          Guarded<float> x(nasty_floats(rows * C, 1, true)), db(nasty_floats(rows * C, 2, non_finite));
          Guarded<float> threshold(random_floats(C, 3)), pooled(nasty_floats(rows / 4 * C, 4, non_finite));
          Guarded<float> whole(rows * C), of_whole(rows * C), expected(rows * C), got(rows * C), unused(C), expected_dt(C), dt(C);
          Guarded<double> workspace(approx_sign_workspace_bytes(C) / int64_t(sizeof(double)));
          for (int64_t i = 0; i < n; ++i)
            for (int64_t h = 0; h < H; ++h)
              for (int64_t w = 0; w < W; ++w)
                for (int64_t c = 0; c < C; ++c)
                  whole[((i * H + h) * W + w) * C + c] = pooled[((i * (H / 2) + h / 2) * (W / 2) + w / 2) * C + c] / 4;
          const float* t = with_threshold ? threshold.data() : nullptr;
          ref::approx_sign_bwd(of_whole.data(), learned ? unused.data() : nullptr, db.data(), x.data(), t, whole.data(), 0, rows,
                               C, kind, GradMode::kOverwrite);
          ref::approx_sign_bwd(expected.data(), learned ? expected_dt.data() : nullptr, db.data(), x.data(), t, pooled.data(), W,
                               rows, C, kind, GradMode::kOverwrite);
          cpu::approx_sign_bwd(*context, got.data(), learned ? dt.data() : nullptr, db.data(), x.data(), t, pooled.data(), W,
                               rows, C, kind, GradMode::kOverwrite, workspace.data());
          expect_same_or_nan(expected, of_whole);
          expect_same_or_nan(got, expected);
          got.expect_guards("dx");
          if (!learned) continue;
          expect_same_or_nan(expected_dt, unused);
          expect_same_or_nan(dt, expected_dt);
        }
}

}  // namespace bireal
