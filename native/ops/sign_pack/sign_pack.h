// sign_pack: packs the signs of a real tensor into bits, and turns bits back into -1 and +1.
//
//   bits[i, c] = sign(x[i, c] + threshold[c])          (threshold absent: 0; the sum is one float32 addition)
//   unpack   x[i, c] = -1 where bits[i, c], else +1                     (for real weights behind a sign: ReActNet, step 1)
//
// Shapes    x [rows, C] float, threshold [C] float or null, bits [rows, Cw] word_t; rows = N*H*W  (bits: core/bits.h)
// Padding   tail bits are written as 0
// Range     any float; NaN packs as +1
// Aliasing  none.  Allocates nothing.  Workspace  none
// Order     elementwise: exact on every ISA and thread count
// Throws    nothing
// Source    Liu et al. 2018, eq. 1; threshold: Liu et al. 2020 (ReActNet), RSign; sign(0): docs/decisions.md, row 1
#pragma once
#include "core/bits.h"
#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal::ref {
void sign_pack_fwd(word_t* bits, const float* x, const float* threshold, int64_t rows, int64_t C);
void sign_unpack_fwd(float* x, const word_t* bits, int64_t rows, int64_t C);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
void sign_pack_fwd(Context& context, word_t* bits, const float* x, const float* threshold, int64_t rows, int64_t C);
void sign_unpack_fwd(Context& context, float* x, const word_t* bits, int64_t rows, int64_t C);
}  // namespace bireal::cpu
namespace bireal::cuda {
/// x_type: kF32, kF16 or kBf16; the sum with the threshold is one float32 addition of the stored value.
void sign_pack_fwd(const Device& device, word_t* bits, const void* x, DType x_type, const float* threshold, int64_t rows,
                   int64_t C, Stream stream);
/// x_type as above. Throws InvalidArgument for 2^32 elements or more.
void sign_unpack_fwd(const Device& device, void* x, DType x_type, const word_t* bits, int64_t rows, int64_t C, Stream stream);
}  // namespace bireal::cuda
