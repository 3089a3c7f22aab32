// op_bench --benchmark_filter=BinaryConv: the layers of Bi-Real-Net (ImageNet and CIFAR shapes), each forward kernel that this
// machine has, and the backward passes, on one thread. Every result is compared with the reference once before timing (the
// backward ones only on their first image, and by a bound that any wrong term breaks). MAC/cycle counts cycles of the clock
// under load, measured beside each run by a chain of multiplications with a latency of 3. The VsOneDnn runs (scripts/bench.sh
// conv) alternate with oneDNN's float32 convolution of the same shape, in the layouts it likes best; "ratio" is that of the two
// medians. BinaryConvNormFwd alternates with convolution and application one after the other, likewise: 4 images on two threads,
// as evaluation has them.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/rng.h"
#include "cpu/context.h"
#include "cpu/onednn.h"
#include "ops/binary_conv/binary_conv_cpu.h"
#include "testing/bench.h"

namespace bireal {
using namespace testing;

namespace {

struct Layer {
  const char* name;
  Conv2dShape shape;
};

const Layer kLayers[] = {
    {"C64_56", {8, 56, 56, 64, 64, 3, 3, 1, 1}},          {"C64_56_stride2", {8, 56, 56, 64, 128, 3, 3, 2, 1}},
    {"C128_28", {8, 28, 28, 128, 128, 3, 3, 1, 1}},       {"C128_28_stride2", {8, 28, 28, 128, 256, 3, 3, 2, 1}},
    {"C256_14", {8, 14, 14, 256, 256, 3, 3, 1, 1}},       {"C256_14_stride2", {8, 14, 14, 256, 512, 3, 3, 2, 1}},
    {"C512_7", {8, 7, 7, 512, 512, 3, 3, 1, 1}},          {"C32_32", {32, 32, 32, 32, 32, 3, 3, 1, 1}},
    {"C32_32_stride2", {32, 32, 32, 32, 64, 3, 3, 2, 1}}, {"C64_16", {32, 16, 16, 64, 64, 3, 3, 1, 1}},
    {"C128_8", {32, 8, 8, 128, 128, 3, 3, 1, 1}},         {"C256_4", {32, 4, 4, 256, 256, 3, 3, 1, 1}},
};

struct Bench {
  Conv2dShape s;
  int64_t n;
  cpu::Context context;
  cpu::BinaryConvPlan plan, fixed16;
  Aligned<word_t> x, w;
  Aligned<float> dz, alpha, dx, dw;
  Aligned<char> prepared, workspace, v, expected_v;
  Aligned<int64_t> sums;

  Bench(const Conv2dShape& shape, const char* kernel, cpu::Isa isa, int threads = 1)
      : s(shape),
        n(shape.N),
        context(threads, isa),
        plan(kernel ? cpu::binary_conv_plan_kernel(context, s, kernel) : cpu::binary_conv_plan(context, s)),
        fixed16(cpu::binary_conv_plan(context, s, BinaryConvGradient::kFixed16)),
        x(n * s.H * s.W * word_count(s.C)),
        w(s.K * s.taps() * word_count(s.C)),
        dz(s.output_count(n)),
        alpha(s.K),
        dx(s.input_count(n)),
        dw(s.K * s.taps() * s.C),
        prepared(plan.prepared_bytes),
        workspace(std::max(plan.workspace_bytes, fixed16.workspace_bytes)),
        v(s.output_count(n) * 4),
        expected_v(s.output_count(1) * 4),
        sums(2 * s.K) {
    const int64_t Cw = word_count(s.C);
    for (int64_t i = 0; i < n * s.H * s.W * Cw; ++i) x[i] = word_t(splitmix64(1, uint64_t(i))) & valid_mask(s.C, i % Cw);
    for (int64_t i = 0; i < s.K * s.taps() * Cw; ++i) w[i] = word_t(splitmix64(2, uint64_t(i))) & valid_mask(s.C, i % Cw);
    for (int64_t i = 0; i < s.output_count(n); ++i) dz[i] = float(uniform01(3, uint64_t(i)) - 0.5);
    for (int64_t k = 0; k < s.K; ++k) alpha[k] = float(uniform01(4, uint64_t(k)));
    cpu::binary_conv_prepare(context, plan, prepared.data(), w.data());
  }
  void fwd() { cpu::binary_conv_fwd(context, plan, v.data(), sums.data(), x.data(), prepared.data(), n, workspace.data()); }
  void bwd_input() { bwd_input(plan); }
  void bwd_input(const cpu::BinaryConvPlan& chosen) {
    cpu::binary_conv_bwd_input(context, chosen, dx.data(), dz.data(), alpha.data(), w.data(), n, workspace.data());
  }
  void bwd_weight() { bwd_weight(plan); }
  void bwd_weight(const cpu::BinaryConvPlan& chosen) {
    cpu::binary_conv_bwd_weight(context, chosen, dw.data(), x.data(), dz.data(), n, GradMode::kOverwrite, workspace.data());
  }

  // The first image of the full batch against the reference, every value.
  bool fwd_is_right() {
    fwd();
    ref::binary_conv_fwd(expected_v.data(), plan.v_type, nullptr, x.data(), w.data(), s, 1);
    int64_t bytes = s.output_count(1) * (plan.v_type == DType::kI16 ? 2 : 4);
    return std::equal(v.data(), v.data() + bytes, expected_v.data());
  }
};

void report(benchmark::State& state, const Bench& bench) {
  const double macs = double(bench.s.output_count(bench.n)) * double(bench.s.taps() * bench.s.C);
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["MAC"] = benchmark::Counter(macs, rate);
  state.counters["MAC/cycle"] = benchmark::Counter(macs * seconds_per_cycle(), rate);
  state.counters["per_image"] = benchmark::Counter(double(bench.n), rate | benchmark::Counter::kInvert);
}

void run_fwd(benchmark::State& state, const Conv2dShape& shape, const char* kernel) {
  Bench bench(shape, kernel, cpu::default_isa());
  if (!bench.fwd_is_right()) return state.SkipWithError("wrong result");
  for (auto _ : state) bench.fwd();
  report(state, bench);
}

void run_bwd_input(benchmark::State& state, const Conv2dShape& shape) {
  Bench bench(shape, nullptr, cpu::default_isa());
  bench.bwd_input();
  std::vector<float> expected(size_t(shape.input_count(1)));
  ref::binary_conv_bwd_input(expected.data(), bench.dz.data(), bench.alpha.data(), bench.w.data(), shape, 1);
  for (size_t i = 0; i < expected.size(); ++i)
    if (!(std::fabs(bench.dx[int64_t(i)] - expected[i]) <= 1e-3)) return state.SkipWithError("wrong result");
  for (auto _ : state) bench.bwd_input();
  report(state, bench);
}

void run_bwd_weight(benchmark::State& state, const Conv2dShape& shape) {
  Bench bench(shape, nullptr, cpu::default_isa());
  cpu::binary_conv_bwd_weight(bench.context, bench.plan, bench.dw.data(), bench.x.data(), bench.dz.data(), 1,
                              GradMode::kOverwrite, bench.workspace.data());
  std::vector<float> expected(size_t(shape.K * shape.taps() * shape.C));
  ref::binary_conv_bwd_weight(expected.data(), bench.x.data(), bench.dz.data(), shape, 1, GradMode::kOverwrite);
  for (size_t i = 0; i < expected.size(); ++i)
    if (!(std::fabs(bench.dw[int64_t(i)] - expected[i]) <= 1e-3)) return state.SkipWithError("wrong result");
  for (auto _ : state) bench.bwd_weight();
  report(state, bench);
}

// oneDNN's float32 convolution alone: no unpacking, no change of layout.
class OneDnnConv {
 public:
  OneDnnConv(cpu::onednn::ConvPass pass, const Conv2dShape& s) : stream_(cpu::onednn::engine()) {
    using dnnl::memory;
    const auto f32 = memory::data_type::f32;
    const auto any = memory::format_tag::any;
    const auto direct = dnnl::algorithm::convolution_direct;
    const memory::dims stride = {s.stride, s.stride}, pad = {s.pad, s.pad};
    const memory::desc x({s.N, s.C, s.H, s.W}, f32, any), w({s.K, s.C, s.R, s.S}, f32, any),
        y({s.N, s.K, s.P(), s.Q()}, f32, any);
    cpu::onednn::planning("oneDNN", [&] {
      const dnnl::convolution_forward::primitive_desc fwd(cpu::onednn::engine(), dnnl::prop_kind::forward_training, direct, x, w,
                                                          y, stride, pad, pad);
      if (pass == cpu::onednn::ConvPass::kFwd) {
        primitive_ = dnnl::convolution_forward(fwd), kernel_name_ = fwd.impl_info_str();
        add(DNNL_ARG_SRC, fwd.src_desc()), add(DNNL_ARG_WEIGHTS, fwd.weights_desc()), add(DNNL_ARG_DST, fwd.dst_desc());
      } else if (pass == cpu::onednn::ConvPass::kBwdInput) {
        const dnnl::convolution_backward_data::primitive_desc pd(cpu::onednn::engine(), direct, x, w, y, stride, pad, pad, fwd);
        primitive_ = dnnl::convolution_backward_data(pd), kernel_name_ = pd.impl_info_str();
        add(DNNL_ARG_DIFF_SRC, pd.diff_src_desc()), add(DNNL_ARG_WEIGHTS, pd.weights_desc());
        add(DNNL_ARG_DIFF_DST, pd.diff_dst_desc());
      } else {
        const dnnl::convolution_backward_weights::primitive_desc pd(cpu::onednn::engine(), direct, x, w, y, stride, pad, pad,
                                                                    fwd);
        primitive_ = dnnl::convolution_backward_weights(pd), kernel_name_ = pd.impl_info_str();
        add(DNNL_ARG_SRC, pd.src_desc()), add(DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc());
        add(DNNL_ARG_DIFF_DST, pd.diff_dst_desc());
      }
    });
  }
  void run() {
    primitive_.execute(stream_, args_);
    stream_.wait();
  }
  const std::string& kernel_name() const { return kernel_name_; }

 private:
  void add(int index, const dnnl::memory::desc& desc) {
    dnnl::memory memory(desc, cpu::onednn::engine());
    float* values = static_cast<float*>(memory.get_data_handle());
    for (size_t i = 0; i < desc.get_size() / sizeof(float); ++i) values[i] = float(i % 2) - 0.5f;
    args_.emplace(index, memory);
  }
  dnnl::stream stream_;
  dnnl::primitive primitive_;
  std::string kernel_name_;
  std::unordered_map<int, dnnl::memory> args_;
};

// Manual time: ours.
template <class Pass>
void run_versus(benchmark::State& state, Bench& bench, cpu::onednn::ConvPass pass, const Pass& ours) {
  OneDnnConv theirs(pass, bench.s);
  theirs.run();
  std::vector<double> own, onednn;
  for (auto _ : state) {
    onednn.push_back(timed([&] { theirs.run(); }));
    own.push_back(timed(ours));
    state.SetIterationTime(own.back());
  }
  const double macs = double(bench.s.output_count(bench.n)) * double(bench.s.taps() * bench.s.C), cycle = seconds_per_cycle();
  state.counters["MAC/cycle"] = macs * cycle / median(own);
  state.counters["oneDNN"] = macs * cycle / median(onednn);
  state.counters["us"] = median(own) / double(bench.n) * 1e6;
  state.counters["ratio"] = median(onednn) / median(own);
  state.SetLabel(theirs.kernel_name());
}

void run_fwd_versus(benchmark::State& state, const Conv2dShape& shape) {
  Bench bench(shape, nullptr, cpu::default_isa());
  if (!bench.fwd_is_right()) return state.SkipWithError("wrong result");
  run_versus(state, bench, cpu::onednn::ConvPass::kFwd, [&] { bench.fwd(); });
}

void run_bwd_input_versus(benchmark::State& state, const Conv2dShape& shape) {
  Bench bench(shape, nullptr, cpu::default_isa());
  bench.bwd_input(bench.fixed16);
  std::vector<float> expected(size_t(shape.input_count(1)));
  ref::binary_conv_bwd_input_fixed16(expected.data(), bench.dz.data(), bench.alpha.data(), bench.w.data(), shape, 1);
  if (!std::equal(expected.begin(), expected.end(), bench.dx.data())) return state.SkipWithError("wrong result");
  run_versus(state, bench, cpu::onednn::ConvPass::kBwdInput, [&] { bench.bwd_input(bench.fixed16); });
}

void run_bwd_weight_versus(benchmark::State& state, const Conv2dShape& shape) {
  Bench bench(shape, nullptr, cpu::default_isa());
  cpu::binary_conv_bwd_weight(bench.context, bench.fixed16, bench.dw.data(), bench.x.data(), bench.dz.data(), 1,
                              GradMode::kOverwrite, bench.workspace.data());
  std::vector<float> expected(size_t(shape.K * shape.taps() * shape.C));
  ref::binary_conv_bwd_weight_fixed16(expected.data(), bench.x.data(), bench.dz.data(), shape, 1, GradMode::kOverwrite);
  if (!std::equal(expected.begin(), expected.end(), bench.dw.data())) return state.SkipWithError("wrong result");
  run_versus(state, bench, cpu::onednn::ConvPass::kBwdWeight, [&] { bench.bwd_weight(bench.fixed16); });
}

void run_norm_fwd(benchmark::State& state, Conv2dShape shape) {
  shape.N = 4;
  Bench bench(shape, nullptr, cpu::default_isa(), 2);
  const int64_t rows = shape.N * shape.P() * shape.Q(), K = shape.K;
  Aligned<float> y(rows * K), expected(rows * K), affine(2 * K);
  Aligned<word_t> bits(rows * word_count(K));
  for (int64_t k = 0; k < 2 * K; ++k) affine[k] = float(uniform01(5, uint64_t(k)) - 0.5);
  const BatchNormApply norm{bench.v.data(), bench.plan.v_type, affine.data(), bench.dz.data(), nullptr, nullptr};
  auto two_ops = [&](float* out) {
    cpu::binary_conv_fwd(bench.context, bench.plan, bench.v.data(), nullptr, bench.x.data(), bench.prepared.data(), shape.N,
                         bench.workspace.data());
    cpu::batch_norm_apply(bench.context, out, bits.data(), norm, rows, K);
  };
  auto fused = [&] {
    cpu::binary_conv_norm_fwd(bench.context, bench.plan, y.data(), bits.data(), norm, bench.x.data(), bench.prepared.data(),
                              shape.N, bench.workspace.data());
  };
  if (!bench.fwd_is_right()) return state.SkipWithError("wrong result");
  two_ops(expected.data());
  fused();
  if (!std::equal(y.data(), y.data() + rows * K, expected.data())) return state.SkipWithError("wrong result");
  std::vector<double> own, apart;
  for (auto _ : state) {
    apart.push_back(timed([&] { two_ops(y.data()); }));
    own.push_back(timed(fused));
    state.SetIterationTime(own.back());
  }
  state.counters["us"] = median(own) / double(shape.N) * 1e6;
  state.counters["two_ops_us"] = median(apart) / double(shape.N) * 1e6;
  state.counters["ratio"] = median(apart) / median(own);
}

const bool registered = [] {
  for (const Layer& layer : kLayers) {
    const cpu::Context context(1, cpu::default_isa());
    for (const char* kernel : cpu::binary_conv_kernel_names(context, layer.shape))
      benchmark::RegisterBenchmark((std::string("BinaryConvFwd/") + layer.name + "/" + kernel).c_str(), run_fwd, layer.shape,
                                   kernel);
    benchmark::RegisterBenchmark((std::string("BinaryConvBwdInput/") + layer.name).c_str(), run_bwd_input, layer.shape);
    benchmark::RegisterBenchmark((std::string("BinaryConvBwdWeight/") + layer.name).c_str(), run_bwd_weight, layer.shape);
    benchmark::RegisterBenchmark((std::string("BinaryConvNormFwd/") + layer.name).c_str(), run_norm_fwd, layer.shape)
        ->UseManualTime();
    auto versus = [&](const char* pass, void (*run)(benchmark::State&, const Conv2dShape&)) {
      const std::string name = std::string("BinaryConvVsOneDnn/") + pass + "/" + layer.name;
      benchmark::RegisterBenchmark(name.c_str(), run, layer.shape)->UseManualTime();
    };
    versus("forward", run_fwd_versus);
    versus("backward_input", run_bwd_input_versus);
    versus("backward_weight", run_bwd_weight_versus);
  }
  return true;
}();

}  // namespace
}  // namespace bireal
