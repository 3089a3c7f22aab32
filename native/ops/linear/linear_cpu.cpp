#include <algorithm>

#include "cpu/context.h"
#include "cpu/onednn.h"
#include "ops/linear/linear.h"

namespace bireal::cpu {
using onednn::ImageSlices;
using onednn::Primitive;
using Desc = dnnl::memory::desc;

namespace {

// One of the three products for a fixed count of rows.
struct Product {
  Desc a, b, bias, out;  // bias empty: none
};

// [rows, columns], stored row by row, or the transpose of such a matrix.
Desc matrix(int64_t rows, int64_t columns) {
  return Desc({rows, columns}, dnnl::memory::data_type::f32, dnnl::memory::dims{columns, 1});
}
Desc transposed(int64_t rows, int64_t columns) {
  return Desc({rows, columns}, dnnl::memory::data_type::f32, dnnl::memory::dims{1, rows});
}

Primitive make(const char* op, const Product& p, int thread_count) {
  return onednn::planning(op, [&] {
    dnnl::matmul::primitive_desc pd(onednn::engine(), p.a, p.b, p.bias, p.out, onednn::attributes());
    require(!onednn::is_reference(pd.impl_info_str()),
            std::string(op) + ": oneDNN has only its reference implementation (" + pd.impl_info_str() + ")");
    std::vector<Primitive::Arg> args = {{DNNL_ARG_SRC, p.a}, {DNNL_ARG_WEIGHTS, p.b}, {DNNL_ARG_DST, p.out}};
    if (!p.bias.is_zero()) args.push_back({DNNL_ARG_BIAS, p.bias});
    return Primitive(op, dnnl::matmul(pd), pd.scratchpad_desc(), args, thread_count);
  });
}

}  // namespace

struct LinearPlan::Primitives {
  ImageSlices slices;
  int thread_count;
  Primitive fwd, fwd_row, bwd_input, bwd_input_row, bwd_weight;  // the rest of the weight gradient is our own loop
  int64_t scratch_bytes = 0, weight_bytes = 0;

  char* scratch(void* workspace, int worker) const { return static_cast<char*>(workspace) + worker * scratch_bytes; }
};

LinearPlan linear_plan(Context& context, int64_t N, int64_t C, int64_t K) {
  auto positive = [](int64_t value, const char* letter) {
    require(value >= 1, std::string("linear: ") + letter + " must be >= 1, got " + std::to_string(value));
  };
  positive(N, "N"), positive(C, "C"), positive(K, "K");

  const int threads = context.thread_count();
  auto p = std::make_shared<LinearPlan::Primitives>(LinearPlan::Primitives{ImageSlices(N), threads, {}, {}, {}, {}, {}});
  const int64_t m = p->slices.images;
  auto fwd = [&](int64_t rows) {
    return make("linear_fwd", {matrix(rows, C), transposed(C, K), matrix(1, K), matrix(rows, K)}, threads);
  };
  auto bwd_input = [&](int64_t rows) {
    return make("linear_bwd_input", {matrix(rows, K), matrix(K, C), Desc(), matrix(rows, C)}, threads);
  };
  p->fwd = fwd(m);
  p->bwd_input = bwd_input(m);
  p->bwd_weight = make("linear_bwd_weight", {transposed(K, m), matrix(m, C), Desc(), matrix(K, C)}, threads);
  if (m > 1) {
    p->fwd_row = fwd(1);
    p->bwd_input_row = bwd_input(1);
  }
  for (const Primitive* primitive : {&p->fwd, &p->fwd_row, &p->bwd_input, &p->bwd_input_row, &p->bwd_weight})
    p->scratch_bytes = std::max(p->scratch_bytes, primitive->scratch_bytes());
  p->weight_bytes = onednn::aligned64(K * C * int64_t(sizeof(float)));

  LinearPlan plan;
  plan.N = N;
  plan.C = C;
  plan.K = K;
  plan.workspace_bytes = threads * p->scratch_bytes + (p->slices.full(N) + (m > 1)) * p->weight_bytes;
  plan.primitives = std::move(p);
  return plan;
}

void linear_fwd(Context& context, const LinearPlan& plan, float* y, const float* x, const float* w, const float* bias, int64_t n,
                void* workspace) {
  const LinearPlan::Primitives& p = *plan.primitives;
  const int64_t m = p.slices.images, full = p.slices.full(n), rest = p.slices.rest(n);
  context.parallel(full + rest, [&](int64_t task, int worker) {
    const int64_t begin = task < full ? task * m : full * m + (task - full);
    const Primitive& primitive = task < full ? p.fwd : p.fwd_row;
    primitive.run(worker, {x + begin * plan.C, w, y + begin * plan.K, bias}, p.scratch(workspace, worker));
  });
}

void linear_bwd_input(Context& context, const LinearPlan& plan, float* dx, const float* dy, const float* w, int64_t n,
                      void* workspace) {
  const LinearPlan::Primitives& p = *plan.primitives;
  const int64_t m = p.slices.images, full = p.slices.full(n), rest = p.slices.rest(n);
  context.parallel(full + rest, [&](int64_t task, int worker) {
    const int64_t begin = task < full ? task * m : full * m + (task - full);
    const Primitive& primitive = task < full ? p.bwd_input : p.bwd_input_row;
    primitive.run(worker, {dy + begin * plan.K, w, dx + begin * plan.C}, p.scratch(workspace, worker));
  });
}

void linear_bwd_weight(Context& context, const LinearPlan& plan, float* dw, float* dbias, const float* x, const float* dy,
                       int64_t n, GradMode mode, void* workspace) {
  const LinearPlan::Primitives& p = *plan.primitives;
  const int64_t C = plan.C, K = plan.K, m = p.slices.images, full = p.slices.full(n), rest = p.slices.rest(n);
  char* partials = p.scratch(workspace, p.thread_count);
  auto partial = [&](int64_t task) { return reinterpret_cast<float*>(partials + task * p.weight_bytes); };
  context.parallel(full + (rest > 0), [&](int64_t task, int worker) {
    float* out = partial(task);
    const int64_t begin = task * m;
    if (task < full) {
      p.bwd_weight.run(worker, {dy + begin * K, x + begin * C, out}, p.scratch(workspace, worker));
      return;
    }
    // Fewer rows than a slice, one outer product after the other.
    for (int64_t k = 0; k < K; ++k) {
      float* row = out + k * C;
      for (int64_t c = 0; c < C; ++c) row[c] = dy[begin * K + k] * x[begin * C + c];
      for (int64_t i = begin + 1; i < n; ++i)
        for (int64_t c = 0; c < C; ++c) row[c] += dy[i * K + k] * x[i * C + c];
    }
  });
  const int64_t parts = full + (rest > 0);
  onednn::add_partials(context, partial(0), partial(0), p.weight_bytes / int64_t(sizeof(float)), parts, K * C);
  onednn::store_gradient(context, dw, partial(0), K * C, mode);

  constexpr int64_t kColumns = 64;
  context.parallel((K + kColumns - 1) / kColumns, [&](int64_t task, int) {
    const int64_t begin = task * kColumns, count = std::min(kColumns, K - begin);
    double sum[kColumns] = {};
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = 0; k < count; ++k) sum[k] += dy[i * K + begin + k];
    for (int64_t k = 0; k < count; ++k)
      dbias[begin + k] = mode == GradMode::kAccumulate ? dbias[begin + k] + float(sum[k]) : float(sum[k]);
  });
}

}  // namespace bireal::cpu
