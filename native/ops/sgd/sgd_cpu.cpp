#include "cpu/context.h"
#include "ops/sgd/sgd.h"
#include "ops/sgd/sgd_rows.h"

namespace bireal::cpu {

static void sgd_rows_scalar(float* p, float* b, const float* g, int64_t count, const SgdConstants* s) {
  sgd_rows(p, b, g, count, s);
}

static SgdRows* select_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return sgd_rows_avx512;
  if (isa >= Isa::kAvx2) return sgd_rows_avx2;
  return sgd_rows_scalar;
}

void sgd(Context& context, float* p, float* b, const float* g, const Segment* segments, int64_t segment_count,
         const StepState* state, double momentum, SgdForm form) {
  if (state->nonfinite != 0) return;
  SgdRows* run = select_rows(context.isa());
  SgdConstants constants = {0, float(momentum), float(state->lr), form == SgdForm::kCaffe};
  for (int64_t s = 0; s < segment_count; ++s) {
    const int64_t first = segments[s].begin;
    constants.decay = float(segments[s].decay);
    context.rows(segments[s].count, 3 * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
      run(p + first + begin, b + first + begin, g + first + begin, end - begin, &constants);
    });
  }
}

}  // namespace bireal::cpu
