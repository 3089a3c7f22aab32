// The row kernels of sign_pack, one per instruction set; each is defined in the file that is compiled for it.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {
using SignPackRows = void(word_t* bits, const float* x, const float* threshold, int64_t rows, int64_t C);
SignPackRows sign_pack_rows_avx2, sign_pack_rows_avx512;
}  // namespace bireal::cpu
