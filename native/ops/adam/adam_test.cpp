#include "ops/adam/adam.h"

#include "core/error.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

const AdamSpec kSpec = {0.9, 0.999, 1e-8};

struct Buffers {
  explicit Buffers(int64_t count)
      : p(random_floats(count, 31)),
        m(random_floats(count, 32, 0.1f)),
        v(random_floats(count, 33, 0.01f)),
        g(nasty_floats(count, 34)) {
    for (int64_t i = 0; i < count; ++i) v[i] = std::fabs(v[i]);
  }
  Guarded<float> p, m, v, g;
};

void expect_same(const Buffers& got, const Buffers& expected) {
  expect_same_bits(got.p, expected.p, "p");
  expect_same_bits(got.m, expected.m, "m");
  expect_same_bits(got.v, expected.v, "v");
  got.p.expect_guards("p");
  got.m.expect_guards("m");
  got.v.expect_guards("v");
}

std::string check_message(const std::vector<Segment>& segments, int64_t count) {
  try {
    segments_check(segments.data(), int64_t(segments.size()), count);
  } catch (const InvalidArgument& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST(Adam, ReproducesPyTorchsThreePublishedSteps) {
  // networks.md 7.3: p0 = (0.5, -0.25, 1), lr 1e-3, gradient of step s is (0.1 s, -0.02, 0); torch.optim.Adam in float32.
  const float published[2][3][3] = {
      {{0.499000013f, -0.248999998f, 1.0f}, {0.498034835f, -0.247999996f, 1.0f}, {0.497076839f, -0.246999994f, 1.0f}},
      {{0.499000013f, -0.248999998f, 0.999000013f},
       {0.498032272f, -0.248000011f, 0.998000026f},
       {0.497071743f, -0.247000039f, 0.997000098f}}};
  for (auto& context : all_contexts())
    for (int decayed : {0, 1})
      for (bool use_ref : {true, false}) {
        const Segment segment = {0, 3, decayed ? 0.01 : 0.0};
        float p[3] = {0.5f, -0.25f, 1.0f}, m[3] = {}, v[3] = {};
        for (int step = 1; step <= 3; ++step) {
          const float g[3] = {0.1f * float(step), -0.02f, 0};
          const StepState state = {1e-3, double(step), 0, 0};
          if (use_ref)
            ref::adam(p, m, v, g, &segment, 1, &state, kSpec);
          else
            cpu::adam(*context, p, m, v, g, &segment, 1, &state, kSpec);
          for (int i = 0; i < 3; ++i)
            EXPECT_EQ(p[i], published[decayed][step - 1][i])
                << (use_ref ? "ref" : context_name(*context)) << " decay " << segment.decay << " step " << step << " p" << i;
        }
      }
}

TEST(Adam, EveryIsaAndThreadCountGivesTheBitsOfRef) {
  for (auto& context : all_contexts())
    for (int64_t count : {1, 7, 8, 15, 16, 17, 33, 9001}) {
      SCOPED_TRACE(context_name(*context) + "_count" + std::to_string(count));
      Buffers expected(count), got(count);
      const Segment segment = {0, count, 1e-4};
      for (int step = 1; step <= 3; ++step) {
        const StepState state = {1e-3, double(step * step), 0, 0};
        ref::adam(expected.p.data(), expected.m.data(), expected.v.data(), expected.g.data(), &segment, 1, &state, kSpec);
        cpu::adam(*context, got.p.data(), got.m.data(), got.v.data(), got.g.data(), &segment, 1, &state, kSpec);
      }
      expect_same(got, expected);
    }
}

TEST(Adam, SegmentsDecayApartAndGapsStayFrozen) {
  const int64_t count = 100;
  const std::vector<Segment> segments = {{3, 20, 0.0}, {23, 17, 0.5}, {50, 0, 0.1}, {61, 30, 1e-4}};
  const StepState state = {1e-2, 1, 0, 0};
  const Buffers before(count);
  for (auto& context : all_contexts()) {
    SCOPED_TRACE(context_name(*context));
    Buffers expected(count), got(count);
    ref::adam(expected.p.data(), expected.m.data(), expected.v.data(), expected.g.data(), segments.data(), 4, &state, kSpec);
    cpu::adam(*context, got.p.data(), got.m.data(), got.v.data(), got.g.data(), segments.data(), 4, &state, kSpec);
    expect_same(got, expected);
    for (int64_t i = 0; i < count; ++i) {
      const bool trained = (i >= 3 && i < 40) || (i >= 61 && i < 91);
      const bool same = got.p[i] == before.p[i] && got.m[i] == before.m[i] && got.v[i] == before.v[i];
      EXPECT_EQ(same, !trained) << "parameter " << i;
    }
  }
}

TEST(Adam, WritesNothingWhileNonfiniteIsSet) {
  const Segment segment = {0, 50, 1e-4};
  const Buffers before(50);
  for (auto& context : all_contexts())
    for (double flag : {1.0, std::nan("")}) {
      const StepState state = {1e-3, 1, std::nan(""), flag};
      Buffers got(50);
      ref::adam(got.p.data(), got.m.data(), got.v.data(), got.g.data(), &segment, 1, &state, kSpec);
      expect_same(got, before);
      cpu::adam(*context, got.p.data(), got.m.data(), got.v.data(), got.g.data(), &segment, 1, &state, kSpec);
      expect_same(got, before);
    }
}

TEST(Adam, SegmentsCheckNamesTheSegmentAndTheRule) {
  EXPECT_EQ(check_message({}, 0), "accepted");
  EXPECT_EQ(check_message({{0, 4, 0}, {4, 0, 0}, {6, 4, 1e-4}}, 10), "accepted");
  EXPECT_EQ(check_message({{0, 4, 0}, {6, 5, 0}}, 10), "segment 1 (begin 6, count 5): leaves the buffer of 10 parameters");
  EXPECT_EQ(check_message({{-1, 4, 0}}, 10), "segment 0 (begin -1, count 4): leaves the buffer of 10 parameters");
  EXPECT_EQ(check_message({{1, -4, 0}}, 10), "segment 0 (begin 1, count -4): leaves the buffer of 10 parameters");
  const int64_t huge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(check_message({{5, huge, 0}}, 10),
            "segment 0 (begin 5, count " + std::to_string(huge) + "): leaves the buffer of 10 parameters");
  EXPECT_EQ(check_message({{0, 4, 0}, {3, 2, 0}}, 10),
            "segment 1 (begin 3, count 2): must begin at or after the end of its predecessor, 4");
  EXPECT_EQ(check_message({{0, 4, -0.5}}, 10), "segment 0 (begin 0, count 4): decay must be finite and >= 0, got -0.500000");
  EXPECT_EQ(check_message({{0, 4, std::nan("")}}, 10), "segment 0 (begin 0, count 4): decay must be finite and >= 0, got nan");
}

}  // namespace bireal
