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
  Primitive fwd, fwd_row, bwd_input, bwd_input_row;
  int64_t scratch_bytes = 0;

  char* scratch(void* workspace, int worker) const { return static_cast<char*>(workspace) + worker * scratch_bytes; }
};

LinearPlan linear_plan(Context& context, int64_t N, int64_t C, int64_t K) {
  auto positive = [](int64_t value, const char* letter) {
    require(value >= 1, std::string("linear: ") + letter + " must be >= 1, got " + std::to_string(value));
  };
  positive(N, "N"), positive(C, "C"), positive(K, "K");

  const int threads = context.thread_count();
  auto p = std::make_shared<LinearPlan::Primitives>(LinearPlan::Primitives{ImageSlices(N), threads, {}, {}, {}, {}});
  const int64_t m = p->slices.images;
  auto fwd = [&](int64_t rows) {
    return make("linear_fwd", {matrix(rows, C), transposed(C, K), matrix(1, K), matrix(rows, K)}, threads);
  };
  auto bwd_input = [&](int64_t rows) {
    return make("linear_bwd_input", {matrix(rows, K), matrix(K, C), Desc(), matrix(rows, C)}, threads);
  };
  p->fwd = fwd(m);
  p->bwd_input = bwd_input(m);
  if (m > 1) {
    p->fwd_row = fwd(1);
    p->bwd_input_row = bwd_input(1);
  }
  for (const Primitive* primitive : {&p->fwd, &p->fwd_row, &p->bwd_input, &p->bwd_input_row})
    p->scratch_bytes = std::max(p->scratch_bytes, primitive->scratch_bytes());

  LinearPlan plan;
  plan.N = N;
  plan.C = C;
  plan.K = K;
  plan.workspace_bytes = threads * p->scratch_bytes;
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
                       int64_t n, GradMode mode, void*) {
  // Our own loop: the product is small (n rows), and cut by its output it needs no partial sums, where slices of n cost a
  // copy of w each.
  const int64_t C = plan.C, K = plan.K;
  constexpr int64_t kRows = 16, kBlock = 32;
  context.parallel((K + kRows - 1) / kRows, [&](int64_t task, int) {
    for (int64_t k = task * kRows; k < std::min(K, (task + 1) * kRows); ++k)
      for (int64_t begin = 0; begin < C; begin += kBlock) {
        const int64_t count = std::min(kBlock, C - begin);
        float sum[kBlock] = {};
        for (int64_t i = 0; i < n; ++i) {
          const float gradient = dy[i * K + k];
          const float* row = x + i * C + begin;
          if (count == kBlock)
            for (int64_t c = 0; c < kBlock; ++c) sum[c] += gradient * row[c];
          else
            for (int64_t c = 0; c < count; ++c) sum[c] += gradient * row[c];
        }
        float* out = dw + k * C + begin;
        for (int64_t c = 0; c < count; ++c) out[c] = mode == GradMode::kAccumulate ? out[c] + sum[c] : sum[c];
      }
  });

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
