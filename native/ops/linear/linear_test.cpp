#include "ops/linear/linear.h"

#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

// Rows of the plan, C, K and the rows of the run. Slices have ceil(N/16) rows, so N > 16 has full slices and single rows.
struct Case {
  int64_t N, C, K, n;
  std::string text() const {
    return "N" + std::to_string(N) + "_C" + std::to_string(C) + "_K" + std::to_string(K) + "_n" + std::to_string(n);
  }
};

std::vector<Case> cases() {
  std::vector<Case> values = {{33, 64, 17, 33}, {33, 64, 17, 32},  {33, 64, 17, 1},   {40, 31, 65, 23},
                              {40, 31, 65, 2},  {64, 512, 10, 64}, {20, 130, 300, 19}};
  for (int64_t C : {1, 3, 31, 33, 64})
    for (int64_t K : {1, 17, 64}) values.push_back({5, C, K, 5});
  return values;
}

struct Data {
  explicit Data(const Case& c)
      : x(random_floats(c.n * c.C, 51)),
        w(random_floats(c.K * c.C, 52)),
        bias(random_floats(c.K, 53)),
        dy(random_floats(c.n * c.K, 54)) {}
  Guarded<float> x, w, bias, dy;
  void make_absolute() {
    for (Guarded<float>* buffer : {&x, &w, &bias, &dy})
      for (int64_t i = 0; i < buffer->count(); ++i) (*buffer)[i] = std::fabs((*buffer)[i]);
  }
};

struct Results {
  explicit Results(const Case& c)
      : y(c.n * c.K), dx(c.n * c.C), dw(random_floats(c.K * c.C, 55)), dbias(random_floats(c.K, 56)) {}
  Guarded<float> y, dx, dw, dbias;
};

Results run_ref(const Case& c, const Data& d, GradMode mode) {
  Results r(c);
  ref::linear_fwd(r.y.data(), d.x.data(), d.w.data(), d.bias.data(), c.n, c.C, c.K);
  ref::linear_bwd_input(r.dx.data(), d.dy.data(), d.w.data(), c.n, c.C, c.K);
  ref::linear_bwd_weight(r.dw.data(), r.dbias.data(), d.x.data(), d.dy.data(), c.n, c.C, c.K, mode);
  return r;
}

Results run_cpu(int threads, const Case& c, const Data& d, GradMode mode) {
  cpu::Context context(threads, cpu::default_isa());
  cpu::LinearPlan plan = cpu::linear_plan(context, c.N, c.C, c.K);
  Results r(c);
  // One for each pass, poisoned with NaN: nothing that the pass did not write may reach a result.
  const int64_t workspace_count = plan.workspace_bytes / int64_t(sizeof(float));
  Guarded<float> a(workspace_count), b(workspace_count), e(workspace_count);
  cpu::linear_fwd(context, plan, r.y.data(), d.x.data(), d.w.data(), d.bias.data(), c.n, a.data());
  cpu::linear_bwd_input(context, plan, r.dx.data(), d.dy.data(), d.w.data(), c.n, b.data());
  cpu::linear_bwd_weight(context, plan, r.dw.data(), r.dbias.data(), d.x.data(), d.dy.data(), c.n, mode, e.data());
  for (Guarded<float>* workspace : {&a, &b, &e}) workspace->expect_guards("workspace");
  for (Guarded<float>* result : {&r.y, &r.dx, &r.dw, &r.dbias}) result->expect_guards("result");
  return r;
}

// (terms + 4) * 2^-24 * sum|terms|; the sums are the reference's on absolute values (2^-23 for its own rounding).
std::vector<double> bound(const Guarded<float>& sums, double terms) {
  std::vector<double> result(static_cast<size_t>(sums.count()));
  for (int64_t i = 0; i < sums.count(); ++i) result[size_t(i)] = (terms + 4) * 0x1p-24 * sums[i] * (1 + 0x1p-23);
  return result;
}

}  // namespace

TEST(Linear, MatchesRefInBothGradModes) {
  for (const Case& c : cases())
    for (GradMode mode : {GradMode::kOverwrite, GradMode::kAccumulate}) {
      SCOPED_TRACE(c.text() + (mode == GradMode::kAccumulate ? "_accumulate" : "_overwrite"));
      const Data d(c);
      Data magnitude(c);
      magnitude.make_absolute();
      const Results expected = run_ref(c, d, mode), sums = run_ref(c, magnitude, GradMode::kOverwrite), before(c);
      const Results got = run_cpu(1, c, d, mode);
      expect_within(got.y, expected.y, bound(sums.y, double(c.C + 1)), "y");
      expect_within(got.dx, expected.dx, bound(sums.dx, double(c.K)), "dx");
      std::vector<double> dw_bound = bound(sums.dw, double(c.n));
      if (mode == GradMode::kAccumulate)  // one more rounding on each side
        for (int64_t i = 0; i < before.dw.count(); ++i)
          dw_bound[size_t(i)] += 0x1p-23 * (std::fabs(before.dw[i]) + std::fabs(expected.dw[i]));
      expect_within(got.dw, expected.dw, dw_bound, "dw");
      expect_same_bits(got.dbias, expected.dbias, "dbias");
    }
}

TEST(Linear, OneAndThreeThreadsGiveTheSameBits) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    const Data d(c);
    const Results one = run_cpu(1, c, d, GradMode::kAccumulate), three = run_cpu(3, c, d, GradMode::kAccumulate);
    expect_same_bits(three.y, one.y, "y");
    expect_same_bits(three.dx, one.dx, "dx");
    expect_same_bits(three.dw, one.dw, "dw");
    expect_same_bits(three.dbias, one.dbias, "dbias");
  }
}

TEST(Linear, OverwriteReplacesNan) {
  const Case c = {20, 5, 3, 19};
  const Data d(c);
  cpu::Context context(1, cpu::default_isa());
  cpu::LinearPlan plan = cpu::linear_plan(context, c.N, c.C, c.K);
  Guarded<float> dw(c.K * c.C), dbias(c.K), workspace(plan.workspace_bytes / int64_t(sizeof(float)));
  cpu::linear_bwd_weight(context, plan, dw.data(), dbias.data(), d.x.data(), d.dy.data(), c.n, GradMode::kOverwrite,
                         workspace.data());
  for (int64_t i = 0; i < dw.count(); ++i) ASSERT_TRUE(std::isfinite(dw[i])) << i;
  for (int64_t i = 0; i < dbias.count(); ++i) ASSERT_TRUE(std::isfinite(dbias[i])) << i;
}

TEST(LinearRef, HandWorkedTwoByTwo) {
  const std::vector<float> x = {1, 2, 3, 4}, w = {1, -1, 2, 0.5f}, bias = {10, 20}, dy = {1, 2, 3, 4};
  std::vector<float> y(4), dx(4), dw(4), dbias(2);
  ref::linear_fwd(y.data(), x.data(), w.data(), bias.data(), 2, 2, 2);
  EXPECT_EQ(y, (std::vector<float>{9, 23, 9, 28}));
  ref::linear_bwd_input(dx.data(), dy.data(), w.data(), 2, 2, 2);
  EXPECT_EQ(dx, (std::vector<float>{5, 0, 11, -1}));
  ref::linear_bwd_weight(dw.data(), dbias.data(), x.data(), dy.data(), 2, 2, 2, GradMode::kOverwrite);
  EXPECT_EQ(dw, (std::vector<float>{10, 14, 14, 20}));
  EXPECT_EQ(dbias, (std::vector<float>{4, 6}));
}

TEST(LinearRef, GradientsMatchFiniteDifferences) {
  // L = sum dy*y is linear in each input, so a difference over a step of 2 is exact but for float rounding of y (2^-24 of
  // sums below 2^4): 1e-4 is ample.
  const Case c = {3, 4, 5, 3};
  Data d(c);
  Results r = run_ref(c, d, GradMode::kOverwrite);
  auto loss = [&] {
    ref::linear_fwd(r.y.data(), d.x.data(), d.w.data(), d.bias.data(), c.n, c.C, c.K);
    double sum = 0;
    for (int64_t i = 0; i < r.y.count(); ++i) sum += double(r.y[i]) * d.dy[i];
    return sum;
  };
  auto expect_slopes = [&](Guarded<float>& values, const Guarded<float>& gradient, const char* what) {
    for (int64_t i = 0; i < values.count(); ++i) {
      const float saved = values[i], above = saved + 1, below = saved - 1;
      values[i] = above;
      const double up = loss();
      values[i] = below;
      const double down = loss();
      values[i] = saved;
      EXPECT_NEAR((up - down) / (double(above) - below), gradient[i], 1e-4) << what << i;
    }
  };
  expect_slopes(d.x, r.dx, "dx");
  expect_slopes(d.w, r.dw, "dw");
  expect_slopes(d.bias, r.dbias, "dbias");
}

TEST(LinearPlanning, RefusesABadShapeWithValueAndRule) {
  cpu::Context context(1, cpu::default_isa());
  auto message = [&](int64_t N, int64_t C, int64_t K) -> std::string {
    try {
      cpu::linear_plan(context, N, C, K);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message(0, 1, 1), "linear: N must be >= 1, got 0");
  EXPECT_EQ(message(1, -3, 1), "linear: C must be >= 1, got -3");
  EXPECT_EQ(message(1, 1, 0), "linear: K must be >= 1, got 0");
  EXPECT_EQ(message(1, 1, 1), "accepted");
}

}  // namespace bireal
