// finite_norm, adam and sgd as a step uses them: over a flat buffer of real and binary parameters, some of them frozen.
#include "core/error.h"
#include "ops/adam/update_items.h"
#include "ops/finite_norm/finite_norm.h"
#include "ops/sgd/sgd.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;
using cuda::BinaryParameter;
using cuda::UpdateItem;

static const float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
static const AdamSpec kAdam = {0.9, 0.999, 1e-8};

namespace {

struct Filters {
  int64_t begin, K, taps, C;
  WeightGradient rule;
  int64_t count() const { return K * taps * C; }
  int64_t words() const { return K * taps * word_count(C); }
};

// A flat buffer: real parameters of 1 to 3 items, filters around the width of a word and of every rule, frozen parts of both
// kinds.
struct Layout {
  std::vector<Filters> filters = {{37, 3, 9, 33, WeightGradient::kClipped},
                                  {37 + 891, 2, 1, 64, WeightGradient::kMagnitudeAware},
                                  {6000, 2, 9, 31, WeightGradient::kStraightThrough},
                                  {6558, 3, 4, 8, WeightGradient::kXnor},
                                  {6700, 2, 9, 96, WeightGradient::kClipped},  // frozen
                                  {8428, 1, 9, 257, WeightGradient::kXnor}};
  std::vector<Segment> segments = {{0, 37, 0.0},     {37, 891, 1e-2}, {928, 128, 0.0},    {1056, 4900, 1e-4},
                                   {6000, 558, 0.0}, {6558, 96, 0.5}, {8428, 2313, 1e-3}, {10741, 4097, 0.0}};
  int64_t count = 14850;
};

struct Buffers {
  explicit Buffers(const Layout& layout)
      : p(random_floats(layout.count, 61, 1.5f)),
        m(random_floats(layout.count, 62, 0.1f)),
        v(random_floats(layout.count, 63, 0.01f)),
        g(nasty_floats(layout.count, 64)) {
    const std::vector<float> special = nasty_floats(layout.count, 65);
    for (size_t i = 0; i < p.size(); i += 3)
      if (std::fabs(special[i]) < 4) p[i] = special[i];  // +-0, +-1 and their neighbours, denormals
    for (float& x : v) x = std::fabs(x);
    p[6001] = 0x1p9f,
    g[6001] = m[6001] = v[6001] = 0;      // out of the range of alpha, and stays there: no decay, no alpha in its rule
    for (size_t i = 6279; i < 6558; ++i)  // a filter whose alpha is of ties alone, and which stays as it is
      p[i] = float(2 * (i - 6279) + 1) * 0x1p-41f, g[i] = m[i] = v[i] = 0;
    p[930] = 1, p[931] = -1, g[930] = g[931] = 0.5f;  // the edge of kMagnitudeAware
    p[100] = kNaN;
    for (const Filters& f : layout.filters) {
      bits.emplace_back(size_t(f.words())), alpha.emplace_back(size_t(f.K));
      ref::weight_binarize_fwd(bits.back().data(), alpha.back().data(), p.data() + f.begin, f.K, f.taps, f.C);
    }
  }
  std::vector<float> p, m, v, g;
  std::vector<std::vector<word_t>> bits;
  std::vector<std::vector<float>> alpha;
};

class GpuBuffers {
 public:
  GpuBuffers(const Layout& layout, const Buffers& b, const StepState& step, double loss_scale)
      : p(b.p),
        m(b.m),
        v(b.v),
        g(scaled(b.g, loss_scale)),
        state(std::vector<StepState>{step}),
        scale(std::vector<LossScale>{{loss_scale > 0 ? loss_scale : 1, -1, 0, 2}}),
        metrics(std::vector<double>{1.5, 0, 0, 1}),
        has_scale(loss_scale > 0) {
    std::vector<BinaryParameter> binary;
    for (size_t i = 0; i < layout.filters.size(); ++i) {
      const Filters& f = layout.filters[i];
      bits.push_back(std::make_unique<DeviceArray<word_t>>(b.bits[i]));
      alpha.push_back(std::make_unique<DeviceArray<float>>(b.alpha[i]));
      binary.push_back({f.begin, f.K, f.taps, f.C, f.rule, bits.back()->data(), alpha.back()->data()});
    }
    const std::vector<UpdateItem> list = cuda::update_items(layout.segments, binary, layout.count);
    item_count = int64_t(list.size());
    items = std::make_unique<DeviceArray<UpdateItem>>(list);
    workspace = std::make_unique<DeviceArray<double>>(cuda::finite_norm_workspace_bytes(item_count) / 8);
  }
  const LossScale* scale_address() { return has_scale ? scale.data() : nullptr; }
  void finite_norm() {
    cuda::finite_norm(cuda_device(), state.data(), has_scale ? scale.data() : nullptr, g.data(), p.data(), items->data(),
                      item_count, metrics.data(), workspace->data(), cuda_stream());
  }
  void adam() {
    cuda::adam(cuda_device(), p.data(), m.data(), v.data(), g.data(), items->data(), item_count, state.data(), scale_address(),
               kAdam, cuda_stream());
  }
  void sgd(double momentum, SgdForm form) {
    cuda::sgd(cuda_device(), p.data(), m.data(), g.data(), items->data(), item_count, state.data(), scale_address(), momentum,
              form, cuda_stream());
  }
  void expect(const Buffers& b) {
    expect_same_or_nan(p.values(), b.p, "p");
    expect_same_or_nan(m.values(), b.m, "m");
    expect_same_or_nan(v.values(), b.v, "v");
    for (size_t i = 0; i < bits.size(); ++i) {
      SCOPED_TRACE("binary parameter " + std::to_string(i));
      expect_same_bits(bits[i]->values(), Guarded<word_t>(b.bits[i]), "bits");
      expect_same_or_nan(alpha[i]->values(), b.alpha[i], "alpha");
    }
  }

  DeviceArray<float> p, m, v, g;
  DeviceArray<StepState> state;
  DeviceArray<LossScale> scale;
  DeviceArray<double> metrics;
  bool has_scale;
  int64_t item_count = 0;
  std::vector<std::unique_ptr<DeviceArray<word_t>>> bits;
  std::vector<std::unique_ptr<DeviceArray<float>>> alpha;
  std::unique_ptr<DeviceArray<UpdateItem>> items;
  std::unique_ptr<DeviceArray<double>> workspace;

 private:
  static std::vector<float> scaled(std::vector<float> values, double by) {
    for (float& x : values) x = by > 0 ? float(double(x) * by) : x;
    return values;
  }
};

// The gradient after the rules, as the CPU's weight_gradient leaves it in place.
std::vector<float> ruled(const Layout& layout, const Buffers& b) {
  std::vector<float> g = b.g;
  for (size_t i = 0; i < layout.filters.size(); ++i) {
    const Filters& f = layout.filters[i];
    ref::weight_gradient(g.data() + f.begin, b.p.data() + f.begin, b.alpha[i].data(), f.K, f.taps, f.C, f.rule);
  }
  return g;
}

// New bits and alpha of every filter that is trained.
void binarize(const Layout& layout, Buffers& b) {
  for (size_t i = 0; i < layout.filters.size(); ++i) {
    const Filters& f = layout.filters[i];
    for (const Segment& s : layout.segments)
      if (s.begin <= f.begin && f.begin < s.begin + s.count)
        ref::weight_binarize_fwd(b.bits[i].data(), b.alpha[i].data(), b.p.data() + f.begin, f.K, f.taps, f.C);
  }
}

}  // namespace

class AdamCuda : public CudaTest {};
class SgdCuda : public CudaTest {};
class FiniteNormCuda : public CudaTest {};

TEST_F(AdamCuda, ParametersMomentsBitsAndAlphaAreRefsOverSteps) {
  const Layout layout;
  for (double loss_scale : {0.0, 1.0, 4096.0}) {
    SCOPED_TRACE("loss scale " + std::to_string(loss_scale));
    in_both_orders([&] {
      Buffers b(layout);
      for (double step : {1.0, 2.0, 3.0, 1000.0, 500000.0}) {
        SCOPED_TRACE("step " + std::to_string(step));
        const StepState state = {1e-2, step, 0, 0};
        GpuBuffers gpu(layout, b, state, loss_scale);
        gpu.finite_norm();
        gpu.adam();
        const std::vector<float> g = ruled(layout, b);
        ref::adam(b.p.data(), b.m.data(), b.v.data(), g.data(), layout.segments.data(), int64_t(layout.segments.size()), &state,
                  kAdam);
        binarize(layout, b);
        gpu.expect(b);
      }
    });
  }
}

TEST_F(SgdCuda, ParametersMomentumBitsAndAlphaAreRefsInBothForms) {
  const Layout layout;
  for (SgdForm form : {SgdForm::kPyTorch, SgdForm::kCaffe})
    for (double loss_scale : {0.0, 256.0}) {
      SCOPED_TRACE("form " + std::to_string(int(form)) + ", loss scale " + std::to_string(loss_scale));
      in_both_orders([&] {
        Buffers b(layout);
        for (float& g : b.g) g = std::fmod(g, 8.0f);  // a step of 1e6 would leave weights beyond the range of alpha
        for (double lr : {1e-2, 3e-3}) {
          const StepState state = {lr, 1, 0, 0};
          GpuBuffers gpu(layout, b, state, loss_scale);
          gpu.finite_norm();
          gpu.sgd(0.9, form);
          const std::vector<float> g = ruled(layout, b);
          ref::sgd(b.p.data(), b.m.data(), g.data(), layout.segments.data(), int64_t(layout.segments.size()), &state, 0.9, form);
          binarize(layout, b);
          gpu.expect(b);
        }
      });
    }
}

TEST_F(AdamCuda, AndSgdWriteNothingWhileTheStepIsNotFinite) {
  const Layout layout;
  Buffers b(layout);
  for (std::vector<word_t>& bits : b.bits)
    for (word_t& word : bits) word = ~word;  // so that binarizing again would show
  for (double flag : {1.0, std::nan("")}) {
    GpuBuffers gpu(layout, b, {1e-2, 1, 0, flag}, 0);
    gpu.adam();
    gpu.sgd(0.9, SgdForm::kPyTorch);
    gpu.sgd(0.9, SgdForm::kCaffe);
    gpu.expect(b);
  }
}

TEST_F(FiniteNormCuda, IsTheNormOfTheRuledGradientWithoutTheLossScale) {
  const Layout layout;
  Buffers b(layout);
  for (size_t i = 0; i < b.g.size(); ++i) b.g[i] = std::fmod(b.g[i], 8.0f);
  const std::vector<float> g = ruled(layout, b);
  StepState expected{};
  const double metrics[4] = {1.5, 0, 0, 1};
  ref::finite_norm(&expected, g.data(), metrics, layout.count);
  ASSERT_EQ(expected.nonfinite, 0);
  for (double loss_scale : {0.0, 1.0, 65536.0}) {
    SCOPED_TRACE("loss scale " + std::to_string(loss_scale));
    double first = 0;
    in_both_orders([&] {
      GpuBuffers gpu(layout, b, {7, 8, -1, -1}, loss_scale);
      gpu.finite_norm();
      const StepState got = gpu.state.values()[0];
      // Sums of positive doubles in another order: relative error of both at most count * 2^-53, halved by the root.
      EXPECT_NEAR(got.grad_norm, expected.grad_norm, expected.grad_norm * double(layout.count) * 0x1p-53);
      EXPECT_EQ(got.nonfinite, 0);
      EXPECT_EQ(got.lr, 7);
      EXPECT_EQ(got.step, 8);
      if (first == 0) first = got.grad_norm;
      EXPECT_EQ(got.grad_norm, first) << "in the other order of threads";
      expect_same_or_nan(gpu.g.values(), GpuBuffers(layout, b, {}, loss_scale).g.values().values(), "g");
    });
  }
}

TEST_F(FiniteNormCuda, FlagsEveryElementThatIsNotFiniteUnlessItsRuleDropsIt) {
  Layout layout;
  Buffers sound(layout);
  sound.p[40] = 2, sound.p[41] = 0.5f;  // kClipped
  struct Case {
    int64_t at;
    bool dropped;
  };
  // First and last element of items of each kind, frozen ones, and the two weights above.
  for (const Case& k :
       {Case{0, false}, Case{36, false}, Case{40, true}, Case{41, false}, Case{1056, false}, Case{1056 + 4095, false},
        Case{1056 + 4096, false}, Case{5999, false}, Case{6557, false}, Case{14849, false}})
    for (float bad : {kNaN, kInf, -kInf}) {
      SCOPED_TRACE(std::to_string(bad) + " at " + std::to_string(k.at));
      Buffers b = sound;
      b.g[size_t(k.at)] = bad;
      StepState expected{};
      const double metrics[4] = {1.5, 0, 0, 1};
      const std::vector<float> g = ruled(layout, b);
      ref::finite_norm(&expected, g.data(), metrics, layout.count);
      ASSERT_EQ(expected.nonfinite, k.dropped ? 0 : 1);
      GpuBuffers gpu(layout, b, {7, 8, -1, -1}, 0);
      gpu.finite_norm();
      EXPECT_EQ(gpu.state.values()[0].nonfinite, expected.nonfinite);
    }
}

TEST_F(FiniteNormCuda, MovesTheLossScale) {
  struct Case {
    LossScale before;
    bool gradient_finite, loss_finite;
    LossScale after;
    double nonfinite;
  };
  const double huge = 0x1p24;
  for (const Case& k : {Case{{1024, -1, 0, 2}, true, true, {1024, 1.0 / 1024, 1, 2}, 0},   // one good step
                        Case{{1024, -1, 1, 2}, true, true, {2048, 1.0 / 1024, 0, 2}, 0},   // the last before growth
                        Case{{huge, -1, 1, 2}, true, true, {huge, 1 / huge, 0, 2}, 0},     // no further
                        Case{{1024, -1, 1, 2}, false, true, {512, 1.0 / 1024, 0, 2}, 1},   // overflow
                        Case{{1, -1, 1, 2}, false, true, {1, 1, 0, 2}, 1},                 // no lower
                        Case{{1024, -1, 1, 2}, true, false, {1024, 1.0 / 1024, 1, 2}, 1},  // a broken run
                        Case{{1024, -1, 1, 2}, false, false, {1024, 1.0 / 1024, 1, 2}, 1}}) {
    SCOPED_TRACE("scale " + std::to_string(k.before.scale) + ", good steps " + std::to_string(k.before.good_steps));
    DeviceArray<float> g(std::vector<float>{1, k.gradient_finite ? 2 : kInf, 2}), p(std::vector<float>{0, 0, 0});
    DeviceArray<UpdateItem> items(cuda::update_items({}, {}, 3));
    DeviceArray<StepState> state(std::vector<StepState>{{1, 1, -1, -1}});
    DeviceArray<LossScale> scale(std::vector<LossScale>{k.before});
    DeviceArray<double> metrics(std::vector<double>{k.loss_finite ? 1 : std::nan(""), 0, 0, 0}), workspace(1);
    cuda::finite_norm(cuda_device(), state.data(), scale.data(), g.data(), p.data(), items.data(), 1, metrics.data(),
                      workspace.data(), cuda_stream());
    const LossScale got = scale.values()[0];
    EXPECT_EQ(got.scale, k.after.scale);
    EXPECT_EQ(got.unscale, k.after.unscale);
    EXPECT_EQ(got.good_steps, k.after.good_steps);
    EXPECT_EQ(got.growth_interval, k.after.growth_interval);
    EXPECT_EQ(state.values()[0].nonfinite, k.nonfinite);
    if (k.gradient_finite) {
      EXPECT_EQ(state.values()[0].grad_norm, 3 / k.before.scale);
    }
  }
}

TEST(UpdateItems, CoverTheBufferInOrderAndNameWhatIsWrong) {
  const Layout layout;
  std::vector<BinaryParameter> binary;
  word_t bits;
  float alpha;
  for (const Filters& f : layout.filters) binary.push_back({f.begin, f.K, f.taps, f.C, f.rule, &bits, &alpha});
  int64_t at = 0, filters = 0, frozen = 0;
  for (const UpdateItem& item : cuda::update_items(layout.segments, binary, layout.count)) {
    EXPECT_EQ(item.begin, at);
    at += int64_t(item.taps) * item.C;
    filters += item.bits != nullptr;
    frozen += item.frozen ? int64_t(item.taps) * item.C : 0;
    if (!item.bits) {
      EXPECT_LE(item.C, cuda::kRealItemCount);
    }
  }
  EXPECT_EQ(at, layout.count);
  EXPECT_EQ(filters, 3 + 2 + 2 + 3 + 2 + 1);
  EXPECT_EQ(frozen, 44 + 46 + 1728 + 12);
  EXPECT_TRUE(cuda::update_items({}, {}, 0).empty());

  auto message = [&](const std::vector<Segment>& segments, const std::vector<BinaryParameter>& parameters) -> std::string {
    try {
      cuda::update_items(segments, parameters, 100);
    } catch (const InvalidArgument& e) {
      return e.what();
    }
    return "accepted";
  };
  const WeightGradient rule = WeightGradient::kClipped;
  EXPECT_EQ(message({{0, 40, 0}}, {{8, 2, 4, 4, rule, &bits, &alpha}}), "accepted");
  EXPECT_EQ(message({{0, 40, 0}}, {{8, 2, 4, 4, rule, &bits, &alpha}, {39, 1, 1, 1, rule, &bits, &alpha}}),
            "binary parameter 1 (begin 39, 1 filters of 1): must begin at or after the end of its predecessor, 40");
  EXPECT_EQ(message({}, {{80, 2, 4, 4, rule, &bits, &alpha}}),
            "binary parameter 0 (begin 80, 2 filters of 16): leaves the buffer of 100 parameters");
  EXPECT_EQ(message({}, {{0, 2, 4, 4, rule, nullptr, &alpha}}),
            "binary parameter 0 (begin 0, 2 filters of 16): needs the addresses of its bits and alpha");
  EXPECT_EQ(
      message({{0, 39, 0}}, {{8, 2, 4, 4, rule, &bits, &alpha}}),
      "binary parameter 0 [8, 40) is cut by a segment at 39; a binary parameter is trained as a whole or frozen as a whole");
  EXPECT_EQ(message({{0, 4, 0}, {3, 2, 0}}, {}),
            "segment 1 (begin 3, count 2): must begin at or after the end of its predecessor, 4");
}

}  // namespace bireal
