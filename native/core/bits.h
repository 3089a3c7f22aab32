// The bit contract. Every packed tensor of the project follows this page; no other file turns a float into a bit.
//
//   word      32 bits, channels of one pixel packed along the innermost (channel) axis of an NHWC tensor:
//             channel c is bit c % 32 (bit 0 = least significant) of word c / 32
//   bit 1     means -1, bit 0 means +1
//   sign(x)   -1 iff x < 0. Hence +0, -0 and NaN are +1 (a NaN is caught by finite_norm, not here)
//   tail      bits at channels >= C of the last word are 0; every producer writes them, every consumer may rely on it
//   C         the true channel count travels with the tensor; it cannot be recovered from the words
//   dot       sum of C products of +-1 = C - 2 * popcount(a XOR b)
//
// This differs from the published code in two points, both tested in sign_pack_test and binary_conv_test:
// PyTorch's sign(0) is 0 (a third value, which one bit cannot hold); zero padding there is a 0 operand, here a tap
// outside the image is skipped, which gives the same sum.
//
// Included by files compiled for one instruction set: everything is static and always inlined, C headers only.
#pragma once
#include <stdint.h>

#define BIREAL_INLINE static inline __attribute__((always_inline, unused))

typedef uint32_t word_t;
enum { kWordBits = 32 };

/// Words that hold C channels of one pixel.
BIREAL_INLINE int64_t word_count(int64_t C) { return (C + kWordBits - 1) / kWordBits; }

/// 1 iff sign(x) is -1.
BIREAL_INLINE word_t sign_bit(float x) { return x < 0.0f ? 1u : 0u; }

/// Mask of the valid bits of word `word` of a pixel with C channels.
BIREAL_INLINE word_t valid_mask(int64_t C, int64_t word) {
  int64_t left = C - word * kWordBits;
  return left >= kWordBits ? 0xFFFFFFFFu : ((word_t)1u << left) - 1u;
}

/// +1 or -1: the value of channel c in the packed pixel.
BIREAL_INLINE int32_t bit_value(const word_t* pixel, int64_t c) {
  return (pixel[c / kWordBits] >> (c % kWordBits)) & 1u ? -1 : 1;
}
