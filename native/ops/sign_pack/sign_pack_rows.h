// The row kernels of sign_pack, one per instruction set; each is defined in the file that is compiled for it.
#pragma once
#include "core/bits.h"

namespace bireal::cpu {
using SignPackRows = void(word_t* bits, const float* x, const float* threshold, int64_t rows, int64_t C);
SignPackRows sign_pack_rows_avx2, sign_pack_rows_avx512;
using SignUnpackRows = void(float* x, const word_t* bits, int64_t rows, int64_t C);
SignUnpackRows sign_unpack_rows_avx2, sign_unpack_rows_avx512;

/// Compiled for the instruction set of the including file: shift, and, or of the sign bit of 1.0f.
BIREAL_INLINE void sign_unpack_loop(float* x, const word_t* bits, int64_t rows, int64_t C) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t base = 0; base < C; base += kWordBits, ++bits) {
      word_t word = *bits;
      int64_t count = C - base < kWordBits ? C - base : int64_t(kWordBits);
      float* out = x + i * C + base;
      for (int64_t lane = 0; lane < count; ++lane) {
        word_t value = (word >> lane & 1u) << 31 | 0x3F800000u;
        __builtin_memcpy(out + lane, &value, sizeof value);
      }
    }
}
}  // namespace bireal::cpu
