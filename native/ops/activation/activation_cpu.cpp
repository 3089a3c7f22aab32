#include "cpu/context.h"
#include "ops/activation/activation.h"
#include "ops/activation/activation_rows.h"
#include "ops/activation/activation_rows_impl.h"

namespace bireal::cpu {

static void activation_fwd_rows_scalar(float* y, const float* x, int64_t count, int kind, float slope) {
  activation_fwd_loop(y, x, count, kind, slope);
}

static void activation_bwd_rows_scalar(float* dx, const float* dy, const float* x, const float* shortcut, int64_t count, int kind,
                                       float slope) {
  activation_bwd_loop(dx, dy, x, shortcut, count, kind, slope);
}

namespace {
struct ActivationRows {
  ActivationFwdRows* fwd;
  ActivationBwdRows* bwd;
};
}  // namespace

static ActivationRows select_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return {activation_fwd_rows_avx512, activation_bwd_rows_avx512};
  if (isa >= Isa::kAvx2) return {activation_fwd_rows_avx2, activation_bwd_rows_avx2};
  return {activation_fwd_rows_scalar, activation_bwd_rows_scalar};
}

void activation_fwd(Context& context, float* y, const float* x, int64_t count, ActivationKind kind, float slope) {
  ActivationFwdRows* run = select_rows(context.isa()).fwd;
  context.rows(count, int64_t(sizeof(float)),
               [&](int64_t begin, int64_t end) { run(y + begin, x + begin, end - begin, int(kind), slope); });
}

void activation_bwd(Context& context, float* dx, const float* dy, const float* x, const float* shortcut, int64_t count,
                    ActivationKind kind, float slope) {
  ActivationBwdRows* run = select_rows(context.isa()).bwd;
  context.rows(count, int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
    run(dx + begin, dy + begin, x + begin, shortcut ? shortcut + begin : nullptr, end - begin, int(kind), slope);
  });
}

}  // namespace bireal::cpu
