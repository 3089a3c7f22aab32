#include "cpu/context.h"
#include "ops/sign_pack/sign_pack.h"
#include "ops/sign_pack/sign_pack_rows.h"

namespace bireal::cpu {

static SignPackRows* select_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return sign_pack_rows_avx512;
  if (isa >= Isa::kAvx2) return sign_pack_rows_avx2;
  return ref::sign_pack_fwd;
}

void sign_pack_fwd(Context& context, word_t* bits, const float* x, const float* threshold, int64_t rows, int64_t C) {
  SignPackRows* run = select_rows(context.isa());
  int64_t Cw = word_count(C);
  context.rows(rows, C * int64_t(sizeof(float)),
               [&](int64_t begin, int64_t end) { run(bits + begin * Cw, x + begin * C, threshold, end - begin, C); });
}

static void sign_unpack_rows_scalar(float* x, const word_t* bits, int64_t rows, int64_t C) { sign_unpack_loop(x, bits, rows, C); }

static SignUnpackRows* select_unpack_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return sign_unpack_rows_avx512;
  if (isa >= Isa::kAvx2) return sign_unpack_rows_avx2;
  return sign_unpack_rows_scalar;
}

void sign_unpack_fwd(Context& context, float* x, const word_t* bits, int64_t rows, int64_t C) {
  SignUnpackRows* run = select_unpack_rows(context.isa());
  int64_t Cw = word_count(C);
  context.rows(rows, C * int64_t(sizeof(float)),
               [&](int64_t begin, int64_t end) { run(x + begin * C, bits + begin * Cw, end - begin, C); });
}

}  // namespace bireal::cpu
