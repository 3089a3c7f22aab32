#include "ops/pool2d/pool2d.h"

#include "testing/testing.h"

namespace bireal {
using namespace testing;

static void expect_same(const Guarded<float>& got, const Guarded<float>& expected, const char* what) {
  ASSERT_EQ(got.count(), expected.count());
  for (int64_t i = 0; i < got.count(); ++i)
    ASSERT_TRUE(std::memcmp(&got[i], &expected[i], 4) == 0 || (std::isnan(got[i]) && std::isnan(expected[i])))
        << what << "[" << i << "]: got " << got[i] << ", expected " << expected[i];
  got.expect_guards(what);
}

namespace {
struct Window {
  int64_t n, H, W, R, S, stride, pad;
};
}  // namespace

static Conv2dShape pool_shape(const Window& k, int64_t C) { return {k.n + 1, k.H, k.W, C, C, k.R, k.S, k.stride, k.pad}; }

// The networks' windows (3x3/2 pad 1, 2x2/2, global), overlapping and gapped ones, odd sizes with unused last rows, one row.
static const std::vector<Window>& windows() {
  static const std::vector<Window> list = {{2, 8, 8, 3, 3, 2, 1}, {1, 7, 9, 3, 3, 2, 1},    {3, 6, 4, 2, 2, 2, 0},
                                           {2, 7, 5, 2, 2, 2, 0}, {5, 7, 7, 7, 7, 7, 0},    {1, 1, 1, 1, 1, 1, 0},
                                           {2, 5, 6, 3, 2, 1, 1}, {1, 9, 8, 2, 1, 3, 0},    {1, 1, 40, 1, 5, 2, 0},
                                           {4, 4, 4, 4, 4, 1, 3}, {1, 17, 15, 15, 15, 2, 7}};
  return list;
}
static const std::vector<int64_t> kChannels = {1, 3, 8, 15, 31, 32, 33, 63, 64, 65};

TEST(AvgPoolFwd, HandWorkedPaddingCountsInTheDivisor) {
  Conv2dShape shape{1, 2, 2, 1, 1, 2, 2, 2, 1};
  Guarded<float> x(std::vector<float>{4, 8, 12, 16}), y(4), dx(4);
  ref::avg_pool_fwd(y.data(), x.data(), shape, 1);
  EXPECT_EQ(y.values(), (std::vector<float>{1, 2, 3, 4}));
  ref::avg_pool_bwd(dx.data(), x.data(), shape, 1);
  EXPECT_EQ(dx.values(), (std::vector<float>{1, 2, 3, 4}));
}

TEST(AvgPoolFwd, GlobalPoolIsTheMean) {
  Conv2dShape shape{1, 2, 3, 2, 2, 2, 3, 1, 0};
  Guarded<float> x(std::vector<float>{1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 9, -9}), y(2);
  ref::avg_pool_fwd(y.data(), x.data(), shape, 1);
  EXPECT_EQ(y.values(), (std::vector<float>{4, -4}));
}

TEST(AvgPoolFwd, EveryIsaMatchesRef) {
  for (auto& context : all_contexts())
    for (const Window& k : windows())
      for (int64_t C : kChannels) {
        Conv2dShape shape = pool_shape(k, C);
        avg_pool_check(shape);
        SCOPED_TRACE(context_name(*context) + " " + shape.text());
        Guarded<float> x(nasty_floats(shape.input_count(k.n), 24, true));
        Guarded<float> expected(shape.output_count(k.n)), got(shape.output_count(k.n));
        ref::avg_pool_fwd(expected.data(), x.data(), shape, k.n);
        cpu::avg_pool_fwd(*context, got.data(), x.data(), shape, k.n);
        expect_same(got, expected, "y");
      }
}

TEST(AvgPoolBwd, EveryIsaMatchesRefAndWritesEveryElement) {
  for (auto& context : all_contexts())
    for (const Window& k : windows())
      for (int64_t C : kChannels) {
        Conv2dShape shape = pool_shape(k, C);
        SCOPED_TRACE(context_name(*context) + " " + shape.text());
        Guarded<float> dy(nasty_floats(shape.output_count(k.n), 25, true));
        Guarded<float> expected(shape.input_count(k.n)), got(shape.input_count(k.n));
        ref::avg_pool_bwd(expected.data(), dy.data(), shape, k.n);
        cpu::avg_pool_bwd(*context, got.data(), dy.data(), shape, k.n);
        expect_same(got, expected, "dx");
      }
}

// d sum(dy * y) / dx by central differences with step 1/256. The pool is linear, so only the rounding of y remains: 2^-24 * |y| /
// h < 2e-5 a window.
template <class Forward>
static void expect_gradient(const Conv2dShape& shape, Guarded<float>& x, const Guarded<float>& dy, const Guarded<float>& dx,
                            const Forward& forward) {
  for (int64_t i = 0; i < x.count(); ++i) {
    float at = x[i];
    double loss[2];
    for (int side = 0; side < 2; ++side) {
      x[i] = at + (side ? 0x1p-8f : -0x1p-8f);
      std::vector<float> y = forward();
      loss[side] = 0;
      for (size_t j = 0; j < y.size(); ++j) loss[side] += double(dy[int64_t(j)]) * double(y[j]);
    }
    x[i] = at;
    EXPECT_NEAR(dx[i], (loss[1] - loss[0]) * 0x1p7, 1e-4) << shape.text() << " element " << i;
  }
}

TEST(AvgPoolBwd, MatchesFiniteDifferences) {
  for (const Conv2dShape& shape : {Conv2dShape{2, 5, 6, 2, 2, 3, 3, 2, 1}, Conv2dShape{2, 4, 3, 2, 2, 4, 3, 1, 0}}) {
    Guarded<float> x(random_floats(shape.input_count(2), 27)), y(shape.output_count(2)), dx(x.count());
    Guarded<float> dy(random_floats(shape.output_count(2), 28));
    ref::avg_pool_bwd(dx.data(), dy.data(), shape, 2);
    expect_gradient(shape, x, dy, dx, [&] {
      ref::avg_pool_fwd(y.data(), x.data(), shape, 2);
      return y.values();
    });
  }
}

TEST(AvgPoolCheck, RefusesWhatNoKernelTakesAndSaysWhy) {
  auto message = [](Conv2dShape shape) -> std::string {
    try {
      avg_pool_check(shape);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({1, 16, 16, 4, 4, 16, 16, 1, 0}), "accepted");
  EXPECT_EQ(message({1, 8, 8, 4, 5, 2, 2, 2, 0}), "avg_pool: K must equal C, got 5 and 4");
  EXPECT_NE(message({1, 8, 8, 4, 4, 2, 2, 2, 2}).find("pad"), std::string::npos);
}

}  // namespace bireal
