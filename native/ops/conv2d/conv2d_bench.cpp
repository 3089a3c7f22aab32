// op_bench --benchmark_filter=Conv2d: the real convolutions over images (stems of the imagenet and the cifar networks), on one
// thread. The first image is compared with the reference before timing, by a bound that any wrong term breaks. "MAC/cycle" counts
// the multiplications of the formula, whatever the kernel saves of them, and cycles of the clock under load. Conv2dPoolNormFwd
// alternates with its three ops one after the other: 4 images on two threads, as evaluation has them.
#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/rng.h"
#include "cpu/context.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/conv2d/conv2d.h"
#include "testing/bench.h"

namespace bireal {
using namespace testing;

namespace {

struct Layer {
  const char* name;
  Conv2dShape shape;
};

const Layer kLayers[] = {{"C3_224_7x7_stride2", {8, 224, 224, 3, 64, 7, 7, 2, 3}},
                         {"C3_32_3x3", {32, 32, 32, 3, 64, 3, 3, 1, 1}},
                         {"C1_32_3x3", {32, 32, 32, 1, 32, 3, 3, 1, 1}}};

struct Bench {
  Conv2dShape s;
  cpu::Context context;
  cpu::Conv2dPlan plan;
  Aligned<float> x, w, y, dw;
  Aligned<char> workspace;

  explicit Bench(const Conv2dShape& shape, int threads = 1)
      : s(shape),
        context(threads, cpu::default_isa()),
        plan(cpu::conv2d_plan(context, s)),
        x(s.input_count(s.N)),
        w(s.K * s.taps() * s.C),
        y(s.output_count(s.N)),
        dw(s.K * s.taps() * s.C),
        workspace(plan.workspace_bytes) {
    for (int64_t i = 0; i < s.input_count(s.N); ++i) x[i] = float(uniform01(1, uint64_t(i)) - 0.5);
    for (int64_t i = 0; i < s.K * s.taps() * s.C; ++i) w[i] = float(uniform01(2, uint64_t(i)) - 0.5);
  }
  void fwd() { cpu::conv2d_fwd(context, plan, y.data(), x.data(), w.data(), s.N, workspace.data()); }
  void bwd_weight(int64_t n) {
    cpu::conv2d_bwd_weight(context, plan, dw.data(), x.data(), y.data(), n, GradMode::kOverwrite, workspace.data());
  }
};

bool close(const Aligned<float>& got, const std::vector<float>& expected) {
  for (size_t i = 0; i < expected.size(); ++i)
    if (!(std::fabs(got[int64_t(i)] - expected[i]) <= 1e-3 + 1e-4 * std::fabs(expected[i]))) return false;
  return true;
}

void report(benchmark::State& state, const Bench& bench) {
  const double macs = double(bench.s.output_count(bench.s.N)) * double(bench.s.taps() * bench.s.C);
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["MAC/cycle"] = benchmark::Counter(macs * seconds_per_cycle(), rate);
  state.counters["per_image"] = benchmark::Counter(double(bench.s.N), rate | benchmark::Counter::kInvert);
}

void run_fwd(benchmark::State& state, const Conv2dShape& shape) {
  Bench bench(shape);
  bench.fwd();
  std::vector<float> expected(size_t(shape.output_count(1)));
  ref::conv2d_fwd(expected.data(), bench.x.data(), bench.w.data(), shape, 1);
  if (!close(bench.y, expected)) return state.SkipWithError("wrong result");
  for (auto _ : state) bench.fwd();
  report(state, bench);
  state.SetLabel(bench.plan.kernel_name);
}

// Manual time: in one pass.
void run_pool_norm_fwd(benchmark::State& state, Conv2dShape shape) {
  shape.N = 4;
  Bench bench(shape, 2);
  const Conv2dShape pool{4, shape.P(), shape.Q(), shape.K, shape.K, 3, 3, 2, 1};
  const int64_t rows = pool.N * pool.P() * pool.Q(), K = shape.K;
  Aligned<float> vmax(rows * K), y(rows * K), expected(rows * K), gamma(K), affine(2 * K);
  Aligned<uint8_t> index(rows * K);
  Aligned<word_t> bits(rows * word_count(K));
  for (int64_t k = 0; k < K; ++k) gamma[k] = k % 4 == 0 ? -1.0f : 1.0f;
  for (int64_t k = 0; k < 2 * K; ++k) affine[k] = float(uniform01(5, uint64_t(k)) - 0.5);
  const BatchNormApply norm{vmax.data(), DType::kF32, affine.data(), nullptr, nullptr, nullptr};
  auto three_ops = [&](float* out) {
    bench.fwd();
    cpu::batch_norm_max_pool_fwd(bench.context, vmax.data(), index.data(), nullptr, bench.y.data(), gamma.data(), pool, 4,
                                 nullptr);
    cpu::batch_norm_apply(bench.context, out, bits.data(), norm, rows, K);
  };
  auto fused = [&] {
    cpu::conv2d_pool_norm_fwd(bench.context, bench.plan, y.data(), bits.data(), gamma.data(), norm, bench.x.data(),
                              bench.w.data(), 4, bench.workspace.data());
  };
  three_ops(expected.data());
  fused();
  if (!std::equal(y.data(), y.data() + rows * K, expected.data())) return state.SkipWithError("wrong result");
  std::vector<double> own, apart;
  for (auto _ : state) {
    apart.push_back(timed([&] { three_ops(y.data()); }));
    own.push_back(timed(fused));
    state.SetIterationTime(own.back());
  }
  state.counters["us"] = median(own) / 4 * 1e6;
  state.counters["best_us"] = *std::min_element(own.begin(), own.end()) / 4 * 1e6;
  state.counters["three_ops_us"] = median(apart) / 4 * 1e6;
  state.counters["ratio"] = median(apart) / median(own);
}

void run_bwd_weight(benchmark::State& state, const Conv2dShape& shape) {
  Bench bench(shape);
  bench.fwd();  // y serves as dy
  bench.bwd_weight(1);
  std::vector<float> expected(size_t(shape.K * shape.taps() * shape.C));
  ref::conv2d_bwd_weight(expected.data(), bench.x.data(), bench.y.data(), shape, 1, GradMode::kOverwrite);
  if (!close(bench.dw, expected)) return state.SkipWithError("wrong result");
  for (auto _ : state) bench.bwd_weight(shape.N);
  report(state, bench);
}

const bool registered = [] {
  cpu::Context context(1, cpu::default_isa());
  for (const Layer& layer : kLayers) {
    benchmark::RegisterBenchmark((std::string("Conv2dFwd/") + layer.name).c_str(), run_fwd, layer.shape);
    if (cpu::conv2d_fuses_max_pool(cpu::conv2d_plan(context, layer.shape), 3, 3, 2, 1))
      benchmark::RegisterBenchmark((std::string("Conv2dPoolNormFwd/") + layer.name).c_str(), run_pool_norm_fwd, layer.shape)
          ->UseManualTime();
    benchmark::RegisterBenchmark((std::string("Conv2dBwdWeight/") + layer.name).c_str(), run_bwd_weight, layer.shape);
  }
  return true;
}();

}  // namespace
}  // namespace bireal
