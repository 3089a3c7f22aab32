#include "ops/sign_pack/sign_pack.h"

namespace bireal::ref {

void sign_pack_fwd(word_t* bits, const float* x, const float* threshold, int64_t rows, int64_t C) {
  int64_t Cw = word_count(C);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t word = 0; word < Cw; ++word) bits[i * Cw + word] = 0;
    for (int64_t c = 0; c < C; ++c) {
      float u = threshold ? x[i * C + c] + threshold[c] : x[i * C + c];
      bits[i * Cw + c / kWordBits] |= sign_bit(u) << (c % kWordBits);
    }
  }
}

void sign_unpack_fwd(float* x, const word_t* bits, int64_t rows, int64_t C) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < C; ++c) x[i * C + c] = float(bit_value(bits + i * word_count(C), c));
}

}  // namespace bireal::ref
