#include "ops/sgd/sgd.h"

#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

const SgdForm kForms[] = {SgdForm::kPyTorch, SgdForm::kCaffe};

struct Buffers {
  explicit Buffers(int64_t count) : p(random_floats(count, 41)), b(random_floats(count, 42)), g(nasty_floats(count, 43)) {}
  Guarded<float> p, b, g;
};

void expect_same(const Buffers& got, const Buffers& expected) {
  expect_same_bits(got.p, expected.p, "p");
  expect_same_bits(got.b, expected.b, "b");
  got.p.expect_guards("p");
  got.b.expect_guards("b");
}

}  // namespace

TEST(Sgd, HandWorkedStepsOfBothFormsPartWhenTheRateDrops) {
  // momentum 1/2, gradient 1; lr 1/2, 1/2, then 1/4: all numbers are exact in binary.
  //   PyTorch  b 1, 1.5, 1.75        p 1 -> 0.5 -> -0.25 -> -0.25 - 0.25*1.75 = -0.6875
  //   Caffe    b 0.5, 0.75, 0.625    p 1 -> 0.5 -> -0.25 -> -0.25 - 0.625     = -0.875
  const double lr[3] = {0.5, 0.5, 0.25};
  const float p_expected[2][3] = {{0.5f, -0.25f, -0.6875f}, {0.5f, -0.25f, -0.875f}};
  const float b_expected[2][3] = {{1, 1.5f, 1.75f}, {0.5f, 0.75f, 0.625f}};
  const Segment segment = {0, 1, 0};
  const float g = 1;
  for (auto& context : all_contexts())
    for (SgdForm form : kForms)
      for (bool use_ref : {true, false}) {
        float p = 1, b = 0;
        for (int step = 0; step < 3; ++step) {
          const StepState state = {lr[step], double(step + 1), 0, 0};
          if (use_ref)
            ref::sgd(&p, &b, &g, &segment, 1, &state, 0.5, form);
          else
            cpu::sgd(*context, &p, &b, &g, &segment, 1, &state, 0.5, form);
          EXPECT_EQ(p, p_expected[int(form)][step]) << context_name(*context) << " form " << int(form) << " step " << step;
          EXPECT_EQ(b, b_expected[int(form)][step]) << context_name(*context) << " form " << int(form) << " step " << step;
        }
      }
}

TEST(Sgd, HandWorkedDecayIsPartOfTheGradient) {
  // p 2, decay 1/4, g 1: g' = 1.5; lr 1/2. PyTorch b = 1.5; Caffe b = 0.75; p = 1.25 in both.
  const Segment segment = {0, 1, 0.25};
  const StepState state = {0.5, 1, 0, 0};
  const float g = 1;
  for (SgdForm form : kForms) {
    float p = 2, b = 0;
    ref::sgd(&p, &b, &g, &segment, 1, &state, 0.9, form);
    EXPECT_EQ(p, 1.25f);
    EXPECT_EQ(b, form == SgdForm::kPyTorch ? 1.5f : 0.75f);
  }
}

TEST(Sgd, EveryIsaAndThreadCountGivesTheBitsOfRef) {
  for (auto& context : all_contexts())
    for (SgdForm form : kForms)
      for (int64_t count : {1, 7, 8, 15, 16, 17, 33, 12001}) {
        SCOPED_TRACE(context_name(*context) + "_form" + std::to_string(int(form)) + "_count" + std::to_string(count));
        Buffers expected(count), got(count);
        const Segment segment = {0, count, 1e-4};
        for (int step = 1; step <= 3; ++step) {
          const StepState state = {0.1 / step, double(step), 0, 0};
          ref::sgd(expected.p.data(), expected.b.data(), expected.g.data(), &segment, 1, &state, 0.9, form);
          cpu::sgd(*context, got.p.data(), got.b.data(), got.g.data(), &segment, 1, &state, 0.9, form);
        }
        expect_same(got, expected);
      }
}

TEST(Sgd, SegmentsDecayApartAndGapsStayFrozen) {
  const int64_t count = 100;
  const std::vector<Segment> segments = {{3, 20, 0.0}, {23, 17, 0.5}, {61, 30, 1e-4}};
  const StepState state = {0.1, 1, 0, 0};
  const Buffers before(count);
  for (auto& context : all_contexts())
    for (SgdForm form : kForms) {
      SCOPED_TRACE(context_name(*context) + "_form" + std::to_string(int(form)));
      Buffers expected(count), got(count);
      ref::sgd(expected.p.data(), expected.b.data(), expected.g.data(), segments.data(), 3, &state, 0.9, form);
      cpu::sgd(*context, got.p.data(), got.b.data(), got.g.data(), segments.data(), 3, &state, 0.9, form);
      expect_same(got, expected);
      for (int64_t i = 0; i < count; ++i) {
        const bool trained = (i >= 3 && i < 40) || (i >= 61 && i < 91);
        EXPECT_EQ(got.p[i] == before.p[i] && got.b[i] == before.b[i], !trained) << "parameter " << i;
      }
    }
}

TEST(Sgd, WritesNothingWhileNonfiniteIsSet) {
  const Segment segment = {0, 50, 1e-4};
  const StepState state = {0.1, 1, std::nan(""), 1};
  const Buffers before(50);
  for (auto& context : all_contexts())
    for (SgdForm form : kForms) {
      Buffers got(50);
      ref::sgd(got.p.data(), got.b.data(), got.g.data(), &segment, 1, &state, 0.9, form);
      expect_same(got, before);
      cpu::sgd(*context, got.p.data(), got.b.data(), got.g.data(), &segment, 1, &state, 0.9, form);
      expect_same(got, before);
    }
}

}  // namespace bireal
