#include "ops/batch_norm/batch_norm.h"

#include <algorithm>

#include "cpu/context.h"
#include "ops/batch_norm/batch_norm_rows.h"
#include "ops/batch_norm/batch_norm_rows_impl.h"

namespace bireal::cpu {

static void sums_rows_scalar(void* sums, const void* v, int v_type, int64_t rows, int64_t C) {
  batch_norm_sums_loop<2>(sums, v, v_type, rows, C);
}

static void bwd_sums_rows_scalar(double* sums, const float* dy, const void* v, int v_type, int64_t rows, int64_t C) {
  batch_norm_bwd_sums_loop<2>(sums, dy, v, v_type, rows, C);
}

static void apply_rows_scalar(const BatchNormRows& in, int v_type) {
  batch_norm_typed(in.v, v_type, [&](const auto* v) {
    word_t* bits = in.bits;
    for (int64_t i = 0; i < in.rows; ++i)
      for (int64_t base = 0; base < in.C; base += kWordBits) {
        word_t word = batch_norm_apply_word(in, v, i, base, in.C - base < kWordBits ? in.C - base : int64_t(kWordBits));
        if (bits) *bits++ = word;
      }
  });
}

static void bwd_apply_rows_scalar(float* dz, const float* dy, const void* v, int v_type, const float* coefficients, int64_t rows,
                                  int64_t C) {
  batch_norm_bwd_apply_loop(dz, dy, v, v_type, coefficients, rows, C);
}

static void rprelu_bwd_slice_scalar(double* sums, const BatchNormRows& in, const float* dy, int v_type) {
  batch_norm_rprelu_bwd_rows(sums, in, dy, v_type);
}

static const BatchNormKernels& select_kernels(Isa isa) {
  static constexpr BatchNormKernels scalar = {sums_rows_scalar, bwd_sums_rows_scalar, apply_rows_scalar, rprelu_bwd_slice_scalar,
                                              bwd_apply_rows_scalar};
  if (isa >= Isa::kAvx512) return batch_norm_kernels_avx512;
  if (isa >= Isa::kAvx2) return batch_norm_kernels_avx2;
  return scalar;
}

static int64_t bytes_of(DType type) { return type == DType::kI16 ? 2 : 4; }

static const void* at_row(const void* v, DType type, int64_t row, int64_t C) {
  return static_cast<const char*>(v) + row * C * bytes_of(type);
}

static BatchNormApply at_row(const BatchNormApply& in, int64_t row, int64_t C) {
  BatchNormApply part = in;
  part.v = at_row(in.v, in.v_type, row, C);
  return part;
}

// Adds the slices [kSlices][count] in order.
template <class T>
static void add_slices(T* sums, const T* slices, int64_t count) {
  for (int64_t c = 0; c < count; ++c) sums[c] = 0;
  for (int64_t slice = 0; slice < Context::kSlices; ++slice)
    for (int64_t c = 0; c < count; ++c) sums[c] += slices[slice * count + c];
}

void batch_norm_sums(Context& context, void* sums, const void* v, DType v_type, int64_t rows, int64_t C, void* workspace) {
  auto* run = select_kernels(context.isa()).sums_rows;
  context.parallel(Context::kSlices, [&](int64_t slice, int) {
    int64_t begin = Context::slice_begin(rows, slice), end = Context::slice_begin(rows, slice + 1);
    int64_t* own = static_cast<int64_t*>(workspace) + slice * 2 * C;  // or doubles, whose 0 is the same
    std::fill(own, own + 2 * C, int64_t(0));
    run(own, at_row(v, v_type, begin, C), int(v_type), end - begin, C);
  });
  if (v_type == DType::kF32) {
    add_slices(static_cast<double*>(sums), static_cast<const double*>(workspace), 2 * C);
  } else {
    add_slices(static_cast<int64_t*>(sums), static_cast<const int64_t*>(workspace), 2 * C);
  }
}

void batch_norm_bwd_sums(Context& context, double* sums, const float* dy, const void* v, DType v_type, int64_t rows, int64_t C,
                         void* workspace) {
  double* slices = static_cast<double*>(workspace);
  context.parallel(Context::kSlices, [&](int64_t slice, int) {
    std::fill(slices + slice * 2 * C, slices + (slice + 1) * 2 * C, 0.0);
    batch_norm_bwd_sums_rows(context, slices + slice * 2 * C, dy, v, v_type, Context::slice_begin(rows, slice),
                             Context::slice_begin(rows, slice + 1), C);
  });
  batch_norm_add_slices(sums, slices, C);
}

void batch_norm_bwd_sums_rows(const Context& context, double* sums, const float* dy, const void* v, DType v_type, int64_t begin,
                              int64_t end, int64_t C) {
  select_kernels(context.isa()).bwd_sums_rows(sums, dy + begin * C, at_row(v, v_type, begin, C), int(v_type), end - begin, C);
}

void batch_norm_add_slices(double* sums, const double* slices, int64_t C) { add_slices(sums, slices, 2 * C); }

// Rows [begin, end) of `in`, whose v is that of row `begin`, with y and bits where they go.
static BatchNormRows part(const BatchNormApply& in, float* y, word_t* bits, int64_t begin, int64_t end, int64_t C) {
  BatchNormRows rows;
  rows.y = y + begin * C;
  rows.bits = bits ? bits + begin * word_count(C) : nullptr;
  rows.v = in.v;
  rows.scale = in.affine;
  rows.shift = in.affine + C;
  rows.shortcut = in.shortcut ? in.shortcut + begin * C : nullptr;
  rows.shortcut_scale = in.shortcut_affine;
  rows.shortcut_shift = in.shortcut_affine ? in.shortcut_affine + C : nullptr;
  rows.threshold = in.threshold;
  rows.bias1 = in.bias1;
  rows.slope = in.slope;
  rows.bias2 = in.bias2;
  rows.rows = end - begin;
  rows.C = C;
  return rows;
}

void batch_norm_apply(Context& context, float* y, word_t* bits, const BatchNormApply& in, int64_t rows, int64_t C) {
  context.rows(rows, C * (bytes_of(in.v_type) + 2 * int64_t(sizeof(float))),
               [&](int64_t begin, int64_t end) { batch_norm_apply_rows(context, y, bits, at_row(in, begin, C), begin, end, C); });
}

void batch_norm_apply_rows(const Context& context, float* y, word_t* bits, const BatchNormApply& in, int64_t begin, int64_t end,
                           int64_t C) {
  select_kernels(context.isa()).apply_rows(part(in, y, bits, begin, end, C), int(in.v_type));
}

static void store(float& gradient, double value, GradMode mode) {
  gradient = mode == GradMode::kAccumulate ? gradient + float(value) : float(value);
}

void batch_norm_rprelu_bwd(Context& context, float* dz, double* sums, float* dbias1, float* dslope, float* dbias2,
                           const float* dy, const BatchNormApply& in, int64_t rows, int64_t C, GradMode mode, void* workspace) {
  auto* run = select_kernels(context.isa()).rprelu_bwd_slice;
  double* slices = static_cast<double*>(workspace);
  context.parallel(Context::kSlices, [&](int64_t slice, int) {
    int64_t begin = Context::slice_begin(rows, slice), end = Context::slice_begin(rows, slice + 1);
    run(slices + slice * 4 * C, part(at_row(in, begin, C), dz, nullptr, begin, end, C), dy + begin * C, int(in.v_type));
  });
  for (int64_t c = 0; c < C; ++c) {
    double total[4] = {0, 0, 0, 0};
    for (int64_t slice = 0; slice < Context::kSlices; ++slice)
      for (int64_t term = 0; term < 4; ++term) total[term] += slices[(slice * 4 + term) * C + c];
    sums[c] = total[0];
    sums[C + c] = total[1];
    store(dbias1[c], total[0], mode);
    store(dslope[c], total[3], mode);
    store(dbias2[c], total[2], mode);
  }
}

void batch_norm_bwd_apply(Context& context, float* dz, const float* dy, const void* v, DType v_type, const float* coefficients,
                          int64_t rows, int64_t C) {
  auto* run = select_kernels(context.isa()).bwd_apply_rows;
  context.rows(rows, C * (bytes_of(v_type) + 2 * int64_t(sizeof(float))), [&](int64_t begin, int64_t end) {
    run(dz + begin * C, dy + begin * C, at_row(v, v_type, begin, C), int(v_type), coefficients, end - begin, C);
  });
}

}  // namespace bireal::cpu
