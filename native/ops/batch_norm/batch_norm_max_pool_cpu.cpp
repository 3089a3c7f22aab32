#include "cpu/context.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/batch_norm/batch_norm_max_pool_rows.h"
#include "ops/batch_norm/batch_norm_max_pool_rows_impl.h"

namespace bireal::cpu {

static void batch_norm_max_pool_rows_scalar(const BatchNormMaxPoolRows& k, int64_t begin_row, int64_t end_row) {
  const int64_t words = word_count(k.C);
  for (int64_t row = begin_row; row < end_row; ++row)
    for (int64_t q = 0; q < k.Q; ++q) {
      const float* image = k.v + row / k.P * k.H * k.W * k.C;
      const int64_t h0 = row % k.P * k.stride - k.pad, w0 = q * k.stride - k.pad, out = (row * k.Q + q) * k.C;
      for (int64_t c = 0; c < k.C; ++c) k.y[out + c] = batch_norm_max_pool_one(k, image, h0, w0, c, k.index + out + c);
      for (int64_t word = 0; word < words && k.bits; ++word) {
        word_t bits = 0;
        for (int64_t c = word * kWordBits; c < k.C && c < (word + 1) * kWordBits; ++c)
          bits |= sign_bit(k.threshold ? k.y[out + c] + k.threshold[c] : k.y[out + c]) << (c % kWordBits);
        k.bits[(row * k.Q + q) * words + word] = bits;
      }
    }
}

static BatchNormMaxPoolRowsFn* select_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return batch_norm_max_pool_rows_avx512;
  if (isa >= Isa::kAvx2) return batch_norm_max_pool_rows_avx2;
  return batch_norm_max_pool_rows_scalar;
}

void batch_norm_max_pool_fwd(Context& context, float* y, uint8_t* index, word_t* bits, const float* v, const float* affine,
                             const float* threshold, const Conv2dShape& k, int64_t n) {
  BatchNormMaxPoolRows in = {};
  in.H = k.H, in.W = k.W, in.C = k.C, in.R = k.R, in.S = k.S, in.stride = k.stride, in.pad = k.pad;
  in.P = k.P(), in.Q = k.Q();
  in.y = y, in.index = index, in.bits = bits, in.v = v;
  in.scale = affine, in.shift = affine + k.C, in.threshold = threshold;
  BatchNormMaxPoolRowsFn* run = select_rows(context.isa());
  context.rows(n * in.P, in.Q * k.C * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) { run(in, begin, end); });
}

}  // namespace bireal::cpu
