#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"
#include "cpu/context.h"
#include "ops/adam/adam.h"
#include "ops/adam/adam_rows.h"

namespace bireal {

void segments_check(const Segment* segments, int64_t segment_count, int64_t count) {
  int64_t free_from = 0;
  for (int64_t s = 0; s < segment_count; ++s) {
    const Segment& segment = segments[s];
    const std::string name = "segment " + std::to_string(s) + " (begin " + std::to_string(segment.begin) + ", count " +
                             std::to_string(segment.count) + "): ";
    // count - begin cannot overflow where begin is in [0, count].
    require(segment.begin >= 0 && segment.begin <= count && segment.count >= 0 && segment.count <= count - segment.begin,
            name + "leaves the buffer of " + std::to_string(count) + " parameters");
    require(segment.begin >= free_from, name + "must begin at or after the end of its predecessor, " + std::to_string(free_from));
    require(segment.decay >= 0 && segment.decay <= std::numeric_limits<float>::max(),
            name + "decay must be finite and >= 0, got " + std::to_string(segment.decay));
    free_from = segment.begin + segment.count;
  }
}

namespace cpu {

static void adam_rows_scalar(float* p, float* m, float* v, const float* g, int64_t count, const AdamConstants* a) {
  adam_rows(p, m, v, g, count, a);
}

static AdamRows* select_rows(Isa isa) {
  if (isa >= Isa::kAvx512) return adam_rows_avx512;
  if (isa >= Isa::kAvx2) return adam_rows_avx2;
  return adam_rows_scalar;
}

void adam(Context& context, float* p, float* m, float* v, const float* g, const Segment* segments, int64_t segment_count,
          const StepState* state, const AdamSpec& spec) {
  if (state->nonfinite != 0) return;
  AdamRows* run = select_rows(context.isa());
  AdamConstants a;
  a.beta1 = float(spec.beta1);
  a.rest1 = float(1 - spec.beta1);
  a.beta2 = float(spec.beta2);
  a.rest2 = float(1 - spec.beta2);
  a.step_size = float(state->lr / (1 - std::pow(spec.beta1, state->step)));
  a.root_correction = float(std::sqrt(1 - std::pow(spec.beta2, state->step)));
  a.eps = float(spec.eps);
  for (int64_t s = 0; s < segment_count; ++s) {
    const int64_t first = segments[s].begin;
    a.decay = float(segments[s].decay);
    context.rows(segments[s].count, 4 * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
      run(p + first + begin, m + first + begin, v + first + begin, g + first + begin, end - begin, &a);
    });
  }
}

}  // namespace cpu
}  // namespace bireal
