// activation: the elementwise nonlinearities of the real-valued networks, and their gradient joined with that of the shortcut.
//
//   dx[i] = shortcut[i] + dy[i] * y'(x[i])               (shortcut absent: no addition)
//   kRelu        y = max(x, 0)                           y' = 1[x > 0]
//   kLeakyClip   y = x on (-1,1); slope (x+1) - 1 for x <= -1; slope (x-1) + 1 for x >= 1     y' = 1 inside, slope elsewhere
//   kClip        kLeakyClip with slope 0 (the argument is ignored), at +-infinity too: y = +-1, y' = 0
//   kIdentity    y = x                                   y' = 1, for a NaN too
//
// Shapes    x, y, dy, dx, shortcut [count] float, shortcut may be null; slope 0.1 in the published recipe
// Range     any float; relu(-0) is +0; a NaN stays a NaN forward and passes no gradient (kIdentity: dy)
// Aliasing  y may be x; dx may be dy or shortcut.  Allocates nothing.  Workspace  none
// Order     elementwise: the same bits on every ISA and thread count
// Throws    nothing
// Source    networks.md 1C.2 (lClip: open interval inside, slope at +-1), 1C.4
#pragma once
#include <stdint.h>

#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal {
/// Wire codes of bireal.backend.ActivationKind.
enum class ActivationKind : int32_t { kRelu = 0, kLeakyClip = 1, kClip = 2, kIdentity = 3 };
}  // namespace bireal
namespace bireal::ref {
void activation_fwd(float* y, const float* x, int64_t count, ActivationKind kind, float slope);
void activation_bwd(float* dx, const float* dy, const float* x, const float* shortcut, int64_t count, ActivationKind kind,
                    float slope);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
void activation_fwd(Context& context, float* y, const float* x, int64_t count, ActivationKind kind, float slope);
void activation_bwd(Context& context, float* dx, const float* dy, const float* x, const float* shortcut, int64_t count,
                    ActivationKind kind, float slope);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// `type` is that of every tensor: kF32, kF16 or kBf16; computed in float32, rounded once.
void activation_fwd(const Device& device, void* y, const void* x, DType type, int64_t count, ActivationKind kind, float slope,
                    Stream stream);
void activation_bwd(const Device& device, void* dx, const void* dy, const void* x, const void* shortcut, DType type,
                    int64_t count, ActivationKind kind, float slope, Stream stream);
}  // namespace bireal::cuda
