#include "ops/conv2d/conv2d.h"

#include "ops/conv2d/conv2d_winograd.h"
#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

// Shape of the plan, and the images of the run.
struct Case {
  Conv2dShape shape;
  int64_t n;
  std::string text() const { return shape.text() + "_n" + std::to_string(n); }
};

// {N, H, W, C, K, R, S, stride, pad}, n. Slices have ceil(N/16) images, so N > 16 has full slices and single images.
const std::vector<Case>& cases() {
  static const std::vector<Case> values = {
      {{2, 7, 5, 1, 17, 3, 3, 1, 1}, 2},
      {{3, 1, 9, 3, 17, 1, 1, 1, 0}, 3},
      {{2, 7, 6, 33, 17, 1, 1, 2, 0}, 2},
      {{2, 9, 7, 31, 17, 3, 3, 2, 1}, 1},
      {{2, 5, 5, 33, 64, 3, 3, 1, 0}, 2},
      {{2, 6, 6, 64, 64, 3, 3, 1, 1}, 2},
      {{2, 7, 7, 64, 17, 1, 1, 2, 0}, 2},
      {{2, 15, 13, 3, 64, 7, 7, 2, 3}, 2},
      {{2, 8, 8, 3, 64, 3, 3, 1, 1}, 1},
      {{2, 9, 9, 33, 1, 5, 5, 1, 2}, 2},
      {{3, 1, 7, 5, 3, 3, 3, 1, 1}, 3},
      {{2, 11, 4, 7, 9, 3, 1, 2, 0}, 2},
      {{33, 5, 5, 3, 17, 3, 3, 1, 1}, 33},
      {{33, 5, 5, 3, 17, 3, 3, 1, 1}, 22},
      {{40, 4, 4, 33, 17, 3, 3, 2, 1}, 32},
      {{40, 4, 4, 33, 17, 3, 3, 2, 1}, 31},
      {{40, 4, 4, 33, 17, 3, 3, 2, 1}, 2},
      {{40, 4, 4, 33, 17, 3, 3, 2, 1}, 1},
      {{20, 6, 6, 64, 17, 1, 1, 1, 0}, 19},
      {{16, 3, 3, 64, 128, 1, 1, 1, 0}, 16},
      {{17, 7, 7, 31, 1, 7, 7, 1, 3}, 3},
      // 4 taps a phase: tiles that end beside the image, one row or column alone, several tasks, odd counts of phases.
      {{3, 13, 19, 1, 9, 4, 4, 1, 1}, 3},
      {{2, 31, 40, 3, 17, 7, 8, 2, 3}, 2},
      {{2, 19, 30, 2, 70, 10, 11, 3, 1}, 2},
      {{18, 20, 60, 4, 24, 7, 7, 2, 3}, 17},
      {{1, 64, 64, 3, 64, 7, 7, 2, 3}, 1},
      {{2, 7, 7, 3, 5, 7, 7, 2, 0}, 2},
      {{2, 7, 40, 3, 33, 8, 7, 2, 3}, 2},
      {{2, 41, 9, 2, 16, 7, 7, 2, 3}, 2},
      {{2, 16, 20, 3, 16, 13, 14, 4, 0}, 2},
      {{2, 12, 250, 3, 5, 7, 7, 2, 3}, 2},
      {{17, 19, 9, 3, 33, 7, 7, 2, 3}, 17},
      // 4 taps in one direction alone.
      {{3, 13, 19, 1, 9, 3, 4, 1, 1}, 3},
      {{2, 16, 6, 3, 16, 14, 1, 4, 0}, 2}};
  return values;
}

struct Data {
  explicit Data(const Case& c)
      : x(random_floats(c.shape.input_count(c.n), 11)),
        w(random_floats(c.shape.K * c.shape.taps() * c.shape.C, 12)),
        dy(random_floats(c.shape.output_count(c.n), 13)) {}
  Guarded<float> x, w, dy;
};

std::vector<float> absolute(const Guarded<float>& values) {
  std::vector<float> result = values.values();
  for (float& v : result) v = std::fabs(v);
  return result;
}

// (terms + 4) * 2^-24 * sum|terms| for each element. The reference, run on absolute values, gives the sums (1 + 2^-23 covers
// its own rounding); on ones it gives the counts of terms.
std::vector<double> bound(const std::vector<float>& sums, const std::vector<float>& counts) {
  std::vector<double> result(sums.size());
  for (size_t i = 0; i < sums.size(); ++i) result[i] = (counts[i] + 4.0) * 0x1p-24 * sums[i] * (1 + 0x1p-23);
  return result;
}

template <class RefFn>
std::vector<double> ref_bound(const Guarded<float>& a, const Guarded<float>& b, int64_t count, const RefFn& fn) {
  std::vector<float> abs_a = absolute(a), abs_b = absolute(b), sums(static_cast<size_t>(count)), counts(sums.size());
  std::vector<float> one_a(abs_a.size(), 1.0f), one_b(abs_b.size(), 1.0f);
  fn(sums.data(), abs_a.data(), abs_b.data());
  fn(counts.data(), one_a.data(), one_b.data());
  return bound(sums, counts);
}

bool is_winograd(const cpu::Conv2dPlan& plan) { return std::string(plan.kernel_name).rfind("winograd", 0) == 0; }

// Row and column of the padded image or filter to a term of Winograd's algorithm: a row phase, a column phase and a channel.
int64_t winograd_term(const Conv2dShape& s, int64_t row, int64_t column, int64_t c) {
  return (row % s.stride * s.stride + column % s.stride) * s.C + c;
}

// |B| |x| |B|^T [terms][points] of the tile that begins at output pixel (p0, q0).
void add_winograd_pixels(std::vector<double>& v, const Data& d, const Conv2dShape& s, int64_t image, int64_t p0, int64_t q0) {
  using M = cpu::Winograd4x4;
  static constexpr M matrices;
  constexpr int64_t kPoints = M::kPoints, kSquare = kPoints * kPoints;
  const int64_t row_zeros = M::kTaps * s.stride - s.R, zeros = M::kTaps * s.stride - s.S;
  for (int64_t row = 0; row < kPoints * s.stride; ++row)
    for (int64_t column = 0; column < kPoints * s.stride; ++column) {
      const int64_t h = p0 * s.stride - s.pad - row_zeros + row, w = q0 * s.stride - s.pad - zeros + column;
      if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
      for (int64_t c = 0; c < s.C; ++c)
        for (int64_t i = 0; i < kSquare; ++i)
          v[size_t(winograd_term(s, row, column, c) * kSquare + i)] +=
              std::fabs(double(matrices.B[i / kPoints][row / s.stride]) * matrices.B[i % kPoints][column / s.stride] *
                        d.x[((image * s.H + h) * s.W + w) * s.C + c]);
    }
}

// Calls body(image, p0, q0) for the first pixel of every tile.
template <class Body>
void each_winograd_tile(const Conv2dShape& s, int64_t n, const Body& body) {
  for (int64_t image = 0; image < n; ++image)
    for (int64_t p0 = 0; p0 < s.P(); p0 += cpu::Winograd4x4::kOutputs)
      for (int64_t q0 = 0; q0 < s.Q(); q0 += cpu::Winograd4x4::kOutputs) body(image, p0, q0);
}

// Of Winograd's algorithm: (terms + 28) * 2^-24 * sum over terms and points of |A| (|B| |x| |B|^T) (|G| |w| |G|^T) |A|^T, where a
// term is a row phase, a column phase and a channel. Roundings on the way of one: of v 6 in each direction (three products and
// their sums), of u one, of the product and its sum as many as terms, of A 6 in each direction (the sum of a pair, an entry of A,
// a product, three sums), of the reference one; two more for those of second order.
std::vector<double> winograd_fwd_bound(const Data& d, const Conv2dShape& s, int64_t n) {
  using M = cpu::Winograd4x4;
  static constexpr M matrices;
  constexpr int64_t kPoints = M::kPoints, kSquare = kPoints * kPoints;
  const int64_t terms = s.stride * s.stride * s.C, row_zeros = M::kTaps * s.stride - s.R, zeros = M::kTaps * s.stride - s.S;
  std::vector<double> u(size_t(s.K * terms * kSquare)), v(size_t(terms * kSquare)), result(size_t(s.output_count(n)));
  for (int64_t k = 0; k < s.K; ++k)
    for (int64_t r = 0; r < s.R; ++r)
      for (int64_t t = 0; t < s.S; ++t)
        for (int64_t c = 0; c < s.C; ++c)
          for (int64_t i = 0; i < kSquare; ++i)
            u[size_t((k * terms + winograd_term(s, r + row_zeros, t + zeros, c)) * kSquare + i)] +=
                std::fabs(matrices.G[i / kPoints][(r + row_zeros) / s.stride] * matrices.G[i % kPoints][(t + zeros) / s.stride] *
                          d.w[((k * s.R + r) * s.S + t) * s.C + c]);
  each_winograd_tile(s, n, [&](int64_t image, int64_t p0, int64_t q0) {
    std::fill(v.begin(), v.end(), 0.0);
    add_winograd_pixels(v, d, s, image, p0, q0);
    for (int64_t k = 0; k < s.K; ++k) {
      double products[kSquare] = {};
      for (size_t i = 0; i < v.size(); ++i) products[i % kSquare] += v[i] * u[size_t(k) * v.size() + i];
      for (int64_t p = p0; p < std::min(s.P(), p0 + M::kOutputs); ++p)
        for (int64_t q = q0; q < std::min(s.Q(), q0 + M::kOutputs); ++q) {
          double sum = 0;
          for (int64_t i = 0; i < kSquare; ++i)
            sum += std::fabs(double(matrices.A[p - p0][i / kPoints]) * matrices.A[q - q0][i % kPoints]) * products[i];
          result[size_t(((image * s.P() + p) * s.Q() + q) * s.K + k)] = (double(terms) + 28) * 0x1p-24 * sum;
        }
    }
  });
  return result;
}

// Of the gradient by Winograd's algorithm: (tiles of a slice + slices + 24) * 2^-24 * sum over tiles and points of
// |G|^T (|B| |x| |B|^T) (|A|^T |dy| |A|) |G|. Roundings on the way of one: of v 6 in each direction, of m 4 in each direction
// (an entry of A, a product, its sum with another, that of a pair), of the product and its sum over a slice as many as tiles and
// one (two without FMA, which are counted), of the sum over slices as many as those less one, of dw one, of the reference one;
// two more for those of second order.
std::vector<double> winograd_bwd_weight_bound(const Data& d, const Conv2dShape& s, int64_t n) {
  using M = cpu::Winograd4x4;
  static constexpr M matrices;
  constexpr int64_t kPoints = M::kPoints, kSquare = kPoints * kPoints;
  const int64_t terms = s.stride * s.stride * s.C, row_zeros = M::kTaps * s.stride - s.R, zeros = M::kTaps * s.stride - s.S;
  std::vector<double> v(size_t(terms * kSquare)), products(size_t(s.K * terms * kSquare)), result(size_t(d.w.count()));
  int64_t tiles = 0;
  each_winograd_tile(s, n, [&](int64_t image, int64_t p0, int64_t q0) {
    ++tiles;
    std::fill(v.begin(), v.end(), 0.0);
    add_winograd_pixels(v, d, s, image, p0, q0);
    for (int64_t k = 0; k < s.K; ++k) {
      double m[kSquare] = {};
      for (int64_t p = p0; p < std::min(s.P(), p0 + M::kOutputs); ++p)
        for (int64_t q = q0; q < std::min(s.Q(), q0 + M::kOutputs); ++q)
          for (int64_t i = 0; i < kSquare; ++i)
            m[i] += std::fabs(double(matrices.A[p - p0][i / kPoints]) * matrices.A[q - q0][i % kPoints] *
                              d.dy[((image * s.P() + p) * s.Q() + q) * s.K + k]);
      for (size_t i = 0; i < v.size(); ++i) products[size_t(k) * v.size() + i] += v[i] * m[i % kSquare];
    }
  });
  const int64_t images = (s.N + cpu::Context::kSlices - 1) / cpu::Context::kSlices, slices = (n + images - 1) / images;
  for (int64_t k = 0; k < s.K; ++k)
    for (int64_t r = 0; r < s.R; ++r)
      for (int64_t t = 0; t < s.S; ++t)
        for (int64_t c = 0; c < s.C; ++c) {
          const int64_t term = k * terms + winograd_term(s, r + row_zeros, t + zeros, c);
          double sum = 0;
          for (int64_t i = 0; i < kSquare; ++i)
            sum +=
                std::fabs(matrices.G[i / kPoints][(r + row_zeros) / s.stride] * matrices.G[i % kPoints][(t + zeros) / s.stride]) *
                products[size_t(term * kSquare + i)];
          result[size_t(((k * s.R + r) * s.S + t) * s.C + c)] =
              (double(tiles / n * std::min(images, n)) + double(slices) + 24) * 0x1p-24 * sum;
        }
  return result;
}

// The workspace is poisoned with NaN: nothing that the op did not write may reach a result.
Guarded<float> workspace_of(int64_t bytes) { return Guarded<float>(bytes / int64_t(sizeof(float)) + 16); }

}  // namespace

TEST(Conv2dFwd, MatchesRef) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    const Data d(c);
    Guarded<float> expected(c.shape.output_count(c.n));
    ref::conv2d_fwd(expected.data(), d.x.data(), d.w.data(), c.shape, c.n);
    cpu::Context context(1, cpu::default_isa());
    cpu::Conv2dPlan plan = cpu::conv2d_plan(context, c.shape);
    auto allowed = is_winograd(plan) ? winograd_fwd_bound(d, c.shape, c.n)
                                     : ref_bound(d.x, d.w, expected.count(), [&](float* y, const float* x, const float* w) {
                                         ref::conv2d_fwd(y, x, w, c.shape, c.n);
                                       });
    Guarded<float> y(c.shape.output_count(c.n)), workspace = workspace_of(plan.workspace_bytes);
    cpu::conv2d_fwd(context, plan, y.data(), d.x.data(), d.w.data(), c.n, workspace.data());
    expect_within(y, expected, allowed, "y");
    y.expect_guards("y");
    workspace.expect_guards("workspace");
  }
}

TEST(Conv2dFwd, WinogradIsAtMostFiveTimesAsFarOffAsAPlainSum) {
  // The error (root mean square) of 65536 outputs of a 7x7 stem over 3 channels, beside that of float sums in the order of the
  // formula: 3.6 times with FMA, 4.1 without. The bound above is one of the worst case; this is what training sees.
  const Case c = {{1, 64, 64, 3, 64, 7, 7, 2, 3}, 1};
  const Conv2dShape& s = c.shape;
  const Data d(c);
  Guarded<float> expected(d.dy.count()), y(d.dy.count());
  ref::conv2d_fwd(expected.data(), d.x.data(), d.w.data(), s, 1);
  cpu::Context context(1, cpu::default_isa());
  cpu::Conv2dPlan plan = cpu::conv2d_plan(context, s);
  ASSERT_TRUE(is_winograd(plan)) << plan.kernel_name;
  Guarded<float> workspace = workspace_of(plan.workspace_bytes);
  cpu::conv2d_fwd(context, plan, y.data(), d.x.data(), d.w.data(), 1, workspace.data());
  double error = 0, plain_error = 0;
  for (int64_t i = 0; i < y.count(); ++i) {
    const int64_t k = i % s.K, q = i / s.K % s.Q(), p = i / s.K / s.Q();
    float sum = 0;
    for (int64_t r = 0; r < s.R; ++r)
      for (int64_t t = 0; t < s.S * s.C; ++t) {
        const int64_t h = p * s.stride + r - s.pad, w = q * s.stride + t / s.C - s.pad;
        if (h >= 0 && h < s.H && w >= 0 && w < s.W)
          sum += d.x[(h * s.W + w) * s.C + t % s.C] * d.w[(k * s.R + r) * s.S * s.C + t];
      }
    error += std::pow(double(y[i]) - expected[i], 2);
    plain_error += std::pow(double(sum) - expected[i], 2);
  }
  EXPECT_LE(std::sqrt(error), 5 * std::sqrt(plain_error));
}

TEST(Conv2dBwdInput, MatchesRef) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    const Data d(c);
    Guarded<float> expected(c.shape.input_count(c.n));
    ref::conv2d_bwd_input(expected.data(), d.dy.data(), d.w.data(), c.shape, c.n);
    auto allowed = ref_bound(d.dy, d.w, expected.count(),
                             [&](float* dx, const float* dy, const float* w) { ref::conv2d_bwd_input(dx, dy, w, c.shape, c.n); });
    cpu::Context context(1, cpu::default_isa());
    cpu::Conv2dPlan plan = cpu::conv2d_plan(context, c.shape);
    Guarded<float> dx(c.shape.input_count(c.n)), workspace = workspace_of(plan.workspace_bytes);
    cpu::conv2d_bwd_input(context, plan, dx.data(), d.dy.data(), d.w.data(), c.n, workspace.data());
    expect_within(dx, expected, allowed, "dx");
    dx.expect_guards("dx");
    workspace.expect_guards("workspace");
  }
}

TEST(Conv2dBwdWeight, MatchesRefInBothGradModes) {
  for (const Case& c : cases())
    for (GradMode mode : {GradMode::kOverwrite, GradMode::kAccumulate}) {
      SCOPED_TRACE(c.text() + (mode == GradMode::kAccumulate ? "_accumulate" : "_overwrite"));
      const Data d(c);
      std::vector<float> before = random_floats(d.w.count(), 14);
      Guarded<float> expected(before), dw(before);
      ref::conv2d_bwd_weight(expected.data(), d.x.data(), d.dy.data(), c.shape, c.n, mode);
      cpu::Context context(1, cpu::default_isa());
      cpu::Conv2dPlan plan = cpu::conv2d_plan(context, c.shape);
      auto allowed = is_winograd(plan) ? winograd_bwd_weight_bound(d, c.shape, c.n)
                                       : ref_bound(d.x, d.dy, expected.count(), [&](float* out, const float* x, const float* dy) {
                                           ref::conv2d_bwd_weight(out, x, dy, c.shape, c.n, GradMode::kOverwrite);
                                         });
      if (mode == GradMode::kAccumulate)  // one more rounding on each side, of a sum below |before| + |result|
        for (size_t i = 0; i < allowed.size(); ++i) allowed[i] += 0x1p-23 * (std::fabs(before[i]) + std::fabs(expected[i]));
      Guarded<float> workspace = workspace_of(plan.workspace_bytes);
      if (mode == GradMode::kOverwrite)
        for (int64_t i = 0; i < dw.count(); ++i) dw[i] = std::nanf("");
      cpu::conv2d_bwd_weight(context, plan, dw.data(), d.x.data(), d.dy.data(), c.n, mode, workspace.data());
      expect_within(dw, expected, allowed, "dw");
      dw.expect_guards("dw");
      workspace.expect_guards("workspace");
    }
}

TEST(Conv2dBwdWeight, WinogradIsAtMostFourTimesAsFarOffAsAPlainSum) {
  // As of the forward pass above, of the 9408 weights of a 7x7 stem over 3 channels and 1024 pixels: 2.5 times with FMA, 2.7
  // without.
  const Case c = {{1, 64, 64, 3, 64, 7, 7, 2, 3}, 1};
  const Conv2dShape& s = c.shape;
  const Data d(c);
  Guarded<float> expected(d.w.count()), dw(d.w.count());
  ref::conv2d_bwd_weight(expected.data(), d.x.data(), d.dy.data(), s, 1, GradMode::kOverwrite);
  cpu::Context context(1, cpu::default_isa());
  cpu::Conv2dPlan plan = cpu::conv2d_plan(context, s);
  ASSERT_TRUE(is_winograd(plan)) << plan.kernel_name;
  Guarded<float> workspace = workspace_of(plan.workspace_bytes);
  cpu::conv2d_bwd_weight(context, plan, dw.data(), d.x.data(), d.dy.data(), 1, GradMode::kOverwrite, workspace.data());
  double error = 0, plain_error = 0;
  for (int64_t i = 0; i < dw.count(); ++i) {
    const int64_t t = i % (s.S * s.C), r = i / (s.S * s.C) % s.R, k = i / (s.S * s.C) / s.R;
    float sum = 0;
    for (int64_t p = 0; p < s.P(); ++p)
      for (int64_t q = 0; q < s.Q(); ++q) {
        const int64_t h = p * s.stride + r - s.pad, w = q * s.stride + t / s.C - s.pad;
        if (h >= 0 && h < s.H && w >= 0 && w < s.W) sum += d.x[(h * s.W + w) * s.C + t % s.C] * d.dy[(p * s.Q() + q) * s.K + k];
      }
    error += std::pow(double(dw[i]) - expected[i], 2);
    plain_error += std::pow(double(sum) - expected[i], 2);
  }
  EXPECT_LE(std::sqrt(error), 4 * std::sqrt(plain_error));
}

TEST(Conv2dPasses, OneAndThreeThreadsGiveTheSameBits) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    const Data d(c);
    Guarded<float> y[2] = {Guarded<float>(d.dy.count()), Guarded<float>(d.dy.count())};
    Guarded<float> dx[2] = {Guarded<float>(d.x.count()), Guarded<float>(d.x.count())};
    Guarded<float> dw[2] = {d.w.values(), d.w.values()};
    for (int i = 0; i < 2; ++i) {
      cpu::Context context(i == 0 ? 1 : 3, cpu::default_isa());
      cpu::Conv2dPlan plan = cpu::conv2d_plan(context, c.shape);
      Guarded<float> workspace = workspace_of(plan.workspace_bytes);
      cpu::conv2d_fwd(context, plan, y[i].data(), d.x.data(), d.w.data(), c.n, workspace.data());
      cpu::conv2d_bwd_input(context, plan, dx[i].data(), d.dy.data(), d.w.data(), c.n, workspace.data());
      cpu::conv2d_bwd_weight(context, plan, dw[i].data(), d.x.data(), d.dy.data(), c.n, GradMode::kAccumulate, workspace.data());
      workspace.expect_guards("workspace");
    }
    expect_same_bits(y[1], y[0], "y");
    expect_same_bits(dx[1], dx[0], "dx");
    expect_same_bits(dw[1], dw[0], "dw");
  }
}

TEST(Conv2dPasses, ImagesDoNotTouchEachOther) {
  // A NaN image among finite ones: a kernel that read past its slice would spread it.
  for (const Case& c : {Case{{40, 5, 5, 33, 17, 3, 3, 1, 1}, 40}, Case{{40, 5, 5, 3, 17, 3, 3, 1, 1}, 40},
                        Case{{40, 9, 9, 3, 17, 7, 7, 2, 3}, 40}}) {
    SCOPED_TRACE(c.text());
    Data d(c);
    const int64_t bad = 3;
    for (int64_t i = 0; i < c.shape.input_count(1); ++i) d.x[bad * c.shape.input_count(1) + i] = std::nanf("");
    cpu::Context context(3, cpu::default_isa());
    cpu::Conv2dPlan plan = cpu::conv2d_plan(context, c.shape);
    Guarded<float> y(c.shape.output_count(c.n)), workspace = workspace_of(plan.workspace_bytes);
    cpu::conv2d_fwd(context, plan, y.data(), d.x.data(), d.w.data(), c.n, workspace.data());
    for (int64_t i = 0; i < y.count(); ++i)
      ASSERT_EQ(std::isnan(y[i]), i / c.shape.output_count(1) == bad) << "image " << i / c.shape.output_count(1);
  }
}

TEST(Conv2dRef, HandWorkedThreeByThree) {
  // One 2x2 image, one 3x3 filter, pad 1: every output sees the four pixels through another corner of the filter.
  const Conv2dShape shape{1, 2, 2, 1, 1, 3, 3, 1, 1};
  const std::vector<float> x = {1, 2, 3, 4}, w = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::vector<float> y(4);
  ref::conv2d_fwd(y.data(), x.data(), w.data(), shape, 1);
  EXPECT_EQ(y, (std::vector<float>{5 + 12 + 24 + 36, 4 + 10 + 21 + 32, 2 + 6 + 15 + 24, 1 + 4 + 12 + 20}));
}

TEST(Conv2dRef, GradientsMatchFiniteDifferences) {
  // L = sum dy*y is linear in x and in w, so a central difference of any step is exact but for rounding of y to float
  // (2^-24 of sums below 2^5, over a step of 2): 1e-4 is ample, and a wrong tap would be off by about 1.
  for (const Conv2dShape& shape : {Conv2dShape{2, 5, 4, 3, 2, 3, 3, 2, 1}, Conv2dShape{2, 4, 4, 2, 3, 1, 1, 1, 0}}) {
    const Case c{shape, 2};
    Data d(c);
    Guarded<float> dx(d.x.count()), dw(d.w.count()), y(d.dy.count());
    ref::conv2d_bwd_input(dx.data(), d.dy.data(), d.w.data(), shape, c.n);
    ref::conv2d_bwd_weight(dw.data(), d.x.data(), d.dy.data(), shape, c.n, GradMode::kOverwrite);
    auto loss = [&] {
      ref::conv2d_fwd(y.data(), d.x.data(), d.w.data(), shape, c.n);
      double sum = 0;
      for (int64_t i = 0; i < y.count(); ++i) sum += double(y[i]) * d.dy[i];
      return sum;
    };
    auto expect_slope = [&](float& value, float gradient) {
      const float saved = value;
      value = saved + 1;
      const double step_up = double(value) - saved, up = loss();
      value = saved - 1;
      const double step_down = double(saved) - value, down = loss();
      value = saved;
      EXPECT_NEAR((up - down) / (step_up + step_down), gradient, 1e-4);
    };
    for (int64_t i = 0; i < dx.count(); ++i) expect_slope(d.x[i], dx[i]);
    for (int64_t i = 0; i < dw.count(); ++i) expect_slope(d.w[i], dw[i]);
  }
}

TEST(Conv2dPlanning, NamesTheKernelAndItIsNotAReference) {
  cpu::Context context(1, cpu::default_isa());
  for (const Case& c : cases()) {
    cpu::Conv2dPlan plan = cpu::conv2d_plan(context, c.shape);
    EXPECT_NE(std::string(plan.kernel_name), "") << c.text();
    EXPECT_NE(std::string(plan.kernel_name).rfind("ref", 0), 0u) << c.text() << ": " << plan.kernel_name;
  }
}

TEST(Conv2dPlanning, RefusesABadShapeWithValueAndRule) {
  cpu::Context context(1, cpu::default_isa());
  auto message = [&](const Conv2dShape& shape) -> std::string {
    try {
      cpu::conv2d_plan(context, shape);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({1, 4, 4, 0, 1, 1, 1, 1, 0}), "conv2d: C must be >= 1, got 0");
  EXPECT_EQ(message({1, 4, 4, 1, 1, 1, 1, 0, 0}), "conv2d: stride must be >= 1, got 0");
  EXPECT_EQ(message({1, 4, 4, 1, 1, 3, 3, 1, 3}), "conv2d: pad must be smaller than the filter, got pad 3 for 3x3");
  EXPECT_EQ(message({1, 2, 2, 1, 1, 7, 7, 1, 0}), "conv2d: filter 7x7 is larger than the padded 2x2 image");
}

}  // namespace bireal
