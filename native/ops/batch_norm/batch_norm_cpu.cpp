#include "ops/batch_norm/batch_norm.h"

#include "cpu/context.h"
#include "ops/batch_norm/batch_norm_rows.h"
#include "ops/batch_norm/batch_norm_rows_impl.h"

namespace bireal::cpu {

static void sums_slice_scalar(void* sums, const void* v, int v_type, int64_t rows, int64_t C) {
  batch_norm_sums_loop<2>(sums, v, v_type, rows, C);
}

static void bwd_sums_slice_scalar(double* sums, const float* dy, const void* v, int v_type, int64_t rows, int64_t C) {
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

static const BatchNormKernels& select_kernels(Isa isa) {
  static constexpr BatchNormKernels scalar = {sums_slice_scalar, bwd_sums_slice_scalar, apply_rows_scalar, bwd_apply_rows_scalar};
  if (isa >= Isa::kAvx512) return batch_norm_kernels_avx512;
  if (isa >= Isa::kAvx2) return batch_norm_kernels_avx2;
  return scalar;
}

static int64_t bytes_of(DType type) { return type == DType::kI16 ? 2 : 4; }

static const void* at_row(const void* v, DType type, int64_t row, int64_t C) {
  return static_cast<const char*>(v) + row * C * bytes_of(type);
}

// Adds the slices [kSlices][2,C] in order.
template <class T>
static void add_slices(T* sums, const T* slices, int64_t C) {
  for (int64_t c = 0; c < 2 * C; ++c) sums[c] = 0;
  for (int64_t slice = 0; slice < Context::kSlices; ++slice)
    for (int64_t c = 0; c < 2 * C; ++c) sums[c] += slices[slice * 2 * C + c];
}

void batch_norm_sums(Context& context, void* sums, const void* v, DType v_type, int64_t rows, int64_t C, void* workspace) {
  auto* run = select_kernels(context.isa()).sums_slice;
  context.parallel(Context::kSlices, [&](int64_t slice, int) {
    int64_t begin = Context::slice_begin(rows, slice), end = Context::slice_begin(rows, slice + 1);
    run(static_cast<int64_t*>(workspace) + slice * 2 * C, at_row(v, v_type, begin, C), int(v_type), end - begin, C);
  });
  if (v_type == DType::kF32) {
    add_slices(static_cast<double*>(sums), static_cast<const double*>(workspace), C);
  } else {
    add_slices(static_cast<int64_t*>(sums), static_cast<const int64_t*>(workspace), C);
  }
}

void batch_norm_bwd_sums(Context& context, double* sums, const float* dy, const void* v, DType v_type, int64_t rows, int64_t C,
                         void* workspace) {
  auto* run = select_kernels(context.isa()).bwd_sums_slice;
  double* slices = static_cast<double*>(workspace);
  context.parallel(Context::kSlices, [&](int64_t slice, int) {
    int64_t begin = Context::slice_begin(rows, slice), end = Context::slice_begin(rows, slice + 1);
    run(slices + slice * 2 * C, dy + begin * C, at_row(v, v_type, begin, C), int(v_type), end - begin, C);
  });
  add_slices(sums, slices, C);
}

void batch_norm_apply(Context& context, float* y, word_t* bits, const BatchNormApply& in, int64_t rows, int64_t C) {
  auto* run = select_kernels(context.isa()).apply_rows;
  int64_t Cw = word_count(C);
  context.rows(rows, C * (bytes_of(in.v_type) + 2 * int64_t(sizeof(float))), [&](int64_t begin, int64_t end) {
    BatchNormRows chunk;
    chunk.y = y + begin * C;
    chunk.bits = bits ? bits + begin * Cw : nullptr;
    chunk.v = at_row(in.v, in.v_type, begin, C);
    chunk.scale = in.affine;
    chunk.shift = in.affine + C;
    chunk.shortcut = in.shortcut ? in.shortcut + begin * C : nullptr;
    chunk.shortcut_scale = in.shortcut_affine;
    chunk.shortcut_shift = in.shortcut_affine ? in.shortcut_affine + C : nullptr;
    chunk.threshold = in.threshold;
    chunk.rows = end - begin;
    chunk.C = C;
    run(chunk, int(in.v_type));
  });
}

void batch_norm_bwd_apply(Context& context, float* dz, const float* dy, const void* v, DType v_type, const float* coefficients,
                          int64_t rows, int64_t C) {
  auto* run = select_kernels(context.isa()).bwd_apply_rows;
  context.rows(rows, C * (bytes_of(v_type) + 2 * int64_t(sizeof(float))), [&](int64_t begin, int64_t end) {
    run(dz + begin * C, dy + begin * C, at_row(v, v_type, begin, C), int(v_type), coefficients, end - begin, C);
  });
}

}  // namespace bireal::cpu
