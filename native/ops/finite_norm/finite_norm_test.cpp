#include "ops/finite_norm/finite_norm.h"

#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

const double kMetrics[4] = {1.5, 0, 0, 0};
const float kInf = std::numeric_limits<float>::infinity();

StepState run_cpu(cpu::Context& context, const Guarded<float>& g, const double* metrics = kMetrics) {
  Guarded<StepState> state(1);
  state[0] = {0.125, 7, -1, -1};
  Guarded<double> workspace(finite_norm_workspace_bytes(g.count()) / int64_t(sizeof(double)));
  cpu::finite_norm(context, state.data(), g.data(), metrics, g.count(), workspace.data());
  state.expect_guards("state");
  workspace.expect_guards("workspace");
  return state[0];
}

}  // namespace

TEST(FiniteNorm, HandWorkedNormLeavesTheHostsFieldsAlone) {
  Guarded<float> g(std::vector<float>{3, -4, 0, 12});
  StepState state = {0.125, 7, -1, -1};
  ref::finite_norm(&state, g.data(), kMetrics, 4);
  EXPECT_EQ(state.grad_norm, 13);
  EXPECT_EQ(state.nonfinite, 0);
  EXPECT_EQ(state.lr, 0.125);
  EXPECT_EQ(state.step, 7);
}

TEST(FiniteNorm, EveryIsaAndThreadCountGivesTheBitsOfRef) {
  for (auto& context : all_contexts())
    for (int64_t count : {0, 1, 7, 8, 9, 15, 17, 65535, 65536, 65537, 300001}) {
      SCOPED_TRACE(context_name(*context) + "_count" + std::to_string(count));
      Guarded<float> g(nasty_floats(count, 21));
      Guarded<StepState> expected(1), got(1);
      expected[0] = {0.125, 7, -1, -1};
      ref::finite_norm(expected.data(), g.data(), kMetrics, count);
      got[0] = run_cpu(*context, g);
      EXPECT_EQ(expected[0].nonfinite, 0);
      expect_same_bits(Guarded<double>(std::vector<double>{got[0].lr, got[0].step, got[0].grad_norm, got[0].nonfinite}),
                       Guarded<double>(std::vector<double>{0.125, 7, expected[0].grad_norm, 0}), "state");
    }
}

TEST(FiniteNorm, FlagsNanAndBothInfinitiesWhereverTheyStand) {
  const int64_t count = 65536 + 13;
  for (auto& context : all_contexts())
    for (float bad : {std::nanf(""), kInf, -kInf})
      for (int64_t at : {int64_t(0), int64_t(8), int64_t(65535), int64_t(65536), count - 1}) {
        SCOPED_TRACE(context_name(*context) + "_" + std::to_string(bad) + "_at" + std::to_string(at));
        Guarded<float> g(random_floats(count, 22));
        g[at] = bad;
        StepState state = {};
        ref::finite_norm(&state, g.data(), kMetrics, count);
        EXPECT_EQ(state.nonfinite, 1);
        EXPECT_FALSE(std::isfinite(state.grad_norm));
        state = run_cpu(*context, g);
        EXPECT_EQ(state.nonfinite, 1);
        EXPECT_FALSE(std::isfinite(state.grad_norm));
      }
}

TEST(FiniteNorm, FlagsALossThatIsNotFinite) {
  Guarded<float> g(random_floats(100, 23));
  for (auto& context : all_contexts())
    for (double loss : {std::nan(""), double(kInf), -double(kInf)}) {
      const double metrics[4] = {loss, 0, 0, 0};
      StepState state = {};
      ref::finite_norm(&state, g.data(), metrics, 100);
      EXPECT_EQ(state.nonfinite, 1) << loss;
      state = run_cpu(*context, g, metrics);
      EXPECT_EQ(state.nonfinite, 1) << loss;
      EXPECT_TRUE(std::isfinite(state.grad_norm));
    }
}

TEST(FiniteNorm, SquaresThatOverflowFloatAreFinite) {
  // The largest float: its square is 1.2e77, beyond float and far below 1.8e308. Denormals do not vanish either.
  const float largest = std::numeric_limits<float>::max(), smallest = std::numeric_limits<float>::denorm_min();
  for (auto& context : all_contexts()) {
    StepState state = run_cpu(*context, Guarded<float>(std::vector<float>(4, largest)));
    EXPECT_EQ(state.nonfinite, 0);
    EXPECT_EQ(state.grad_norm, 2 * double(largest));
    state = run_cpu(*context, Guarded<float>(std::vector<float>(4, smallest)));
    EXPECT_EQ(state.grad_norm, 2 * double(smallest));
  }
}

TEST(FiniteNorm, ClearsTheFlagOfAnEarlierStep) {
  StepState state = {0.125, 7, -1, 1};
  const float g[2] = {3, 4};
  ref::finite_norm(&state, g, kMetrics, 2);
  EXPECT_EQ(state.nonfinite, 0);
}

}  // namespace bireal
