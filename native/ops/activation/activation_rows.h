// The loops of activation, one set per instruction set; each is defined in the file that is compiled for it.
// `kind` is the wire code of ActivationKind.
#pragma once
#include <stdint.h>

namespace bireal::cpu {
using ActivationFwdRows = void(float* y, const float* x, int64_t count, int kind, float slope);
using ActivationBwdRows = void(float* dx, const float* dy, const float* x, const float* shortcut, int64_t count, int kind,
                               float slope);
ActivationFwdRows activation_fwd_rows_avx2, activation_fwd_rows_avx512;
ActivationBwdRows activation_bwd_rows_avx2, activation_bwd_rows_avx512;
}  // namespace bireal::cpu
