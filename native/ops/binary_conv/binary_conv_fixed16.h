// Gradients of binary_conv in 16-bit fixed point: the rounding rule, and what the kernels of each instruction set offer.
//
// A group is an image (bwd_input, of the values v = dz * alpha[k] rounded to float) or an output channel over all images
// (bwd_weight, of v = dz). With m = max |v| of the group:
//   q = round_to_even(v * (32767 / m)), quotient and product rounded to float;  q = 0 where m = 0;  |q| <= 32767
//   gradient = float(double(sum of +-q) * step),  step = double(m) / 32767;     the sum is an exact integer
// so that |q * step - v| <= step * (1/2 + 2^-7): half a step, and up to 2^15 * 3 * 2^-24 steps from the rounded quotient and
// products. A group goes through float32 instead if m is NaN, Inf or below 2^-100, or if m / rms(q * step) > 400.
//
// How: sums of four +-q over 4 output channels (bwd_input) or 4 output pixels (bwd_weight) take 16 values. They are written
// out once as a table, and the four sign bits of each lane select one of them: one permutation and one addition of 32-bit
// lanes for 4 multiply-adds a lane, where VPDPWSSD does 2. (AVX2, whose permutation is slow, looks up in memory:
// binary_conv_fixed16_lines.h.)
// Included by files compiled for one instruction set: C headers only, everything static and always inlined.
#pragma once
#include <string.h>

#include "core/bits.h"

namespace bireal {

enum { kFixed16Max = 32767 };

BIREAL_INLINE uint32_t fixed16_magnitude(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits & 0x7FFFFFFFu;  // ordered as |v|; Inf and NaN above all others
}

/// Whether a group with this largest magnitude is representable; 0 is.
BIREAL_INLINE bool fixed16_fits(uint32_t magnitude) {
  return magnitude == 0 || (magnitude >= 0x0D800000u /* 2^-100 */ && magnitude < 0x7F800000u);
}

BIREAL_INLINE float fixed16_value(uint32_t magnitude) {
  float m;
  memcpy(&m, &magnitude, sizeof m);
  return m;
}
BIREAL_INLINE float fixed16_inverse(uint32_t magnitude) {
  return magnitude == 0 ? 0.0f : float(kFixed16Max) / fixed16_value(magnitude);
}
BIREAL_INLINE double fixed16_step(uint32_t magnitude) { return double(fixed16_value(magnitude)) / kFixed16Max; }

/// Nearest integer, ties to even, for |x| <= 2^22; some integer for any other x.
BIREAL_INLINE int32_t fixed16_round(float x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23: the spacing of floats is 1 there
  float shifted = x + magic;
  uint32_t bits, base;
  memcpy(&bits, &shifted, sizeof bits);
  memcpy(&base, &magic, sizeof base);
  return int32_t(bits - base);
}

/// max / rms > 400 of `count` values with this sum of q^2, one of which is 32767. False for any sum up to count = 160,000.
BIREAL_INLINE bool fixed16_too_spread(double squares, int64_t count) {
  return double(kFixed16Max) * kFixed16Max * double(count) > 160000.0 * squares;
}
enum { kFixed16SpreadCount = 160000 };

/// Terms whose sum fits 32 bits: 65,536 * 32,767 < 2^31.
enum { kFixed16Terms = 65536 };

}  // namespace bireal

namespace bireal::cpu {

/// Output rows [h_begin, h_end) of one image of bwd_input.
struct Fixed16InputTask {
  const int32_t* tables;   // [dz row - first_p][channel quad][columns][entries]; columns outside dz are tables of q = 0
  const int32_t* weights;  // of prepare_weights, [block of input channels][R]
  float* dx;               // [H, W, C] of the image
  double step;
  int64_t h_begin, h_end, W, C, R, S, stride, pad, P;
  int64_t quads, first_p, columns, halo;  // halo: columns before dz column 0
};

/// One chunk of output pixels, output channels [k_begin, k_end) and some input channels of bwd_weight.
struct Fixed16WeightTask {
  int32_t* sums;          // [k][taps][sum_channels] to add to, at channel 0 of the block
  const int32_t* index;   // of expand_index
  const uint32_t* pairs;  // [2 * quads][pitch]: q of two pixels for each k, low half first
  int32_t* tables;        // scratch, [quads][channel_block][entries]
  bool first;             // overwrite sums
  int64_t quads, pitch, k_begin, k_end, taps, sum_channels, vectors;
};

struct Fixed16Kernel {
  const char* name;

  /// max[k] = larger of max[k] and the magnitudes of dz[.., k] * alpha[k]; alpha may be null (1).
  void (*magnitudes)(uint32_t* max, const float* dz, const float* alpha, int64_t pixels, int64_t K);
  /// Sum of q^2.
  double (*squares)(const float* dz, const float* alpha, float inverse, int64_t pixels, int64_t K);

  // What follows is null (or 0) where the passes have another form.
  int64_t lanes, index_words;  // channels of an index vector, a multiple of 16, and its size in 32-bit words
  int64_t entries;             // size of a table in 32-bit words
  int64_t input_vectors;       // bwd_input: vectors of input channels side by side
  int64_t channel_block;       // bwd_weight: output channels a tile, divides 4
  int64_t stream_block;        // bwd_weight: (tap, vector) pairs a tile

  /// Index vectors of the weights for input channels block*input_vectors*lanes.. and filter row r.
  void (*prepare_weights)(int32_t* out, const word_t* w, int64_t block, int64_t r, int64_t K, int64_t C, int64_t R, int64_t S,
                          int64_t stride);
  /// Tables of one row of dz: out [quads][columns][entries]. `scratch` holds 4 * quads values.
  void (*stage_row)(int32_t* out, int16_t* scratch, const float* dz, const float* alpha, float inverse, int64_t Q, int64_t K,
                    int64_t columns, int64_t halo);
  void (*run_input)(const Fixed16InputTask& task);

  /// pairs[i][k] of pixels 2i and 2i+1 for k in [k_begin, k_end), zeros behind `pixels` and K; 2 * quads rows.
  void (*quantise_pairs)(uint32_t* pairs, const float* dz, const float* inverse, int64_t pixels, int64_t quads, int64_t K,
                         int64_t pitch, int64_t k_begin, int64_t k_end);
  /// Index vectors of the activations. spread: one bit in 4 (fixed16_spread), groups of 16 channels; pixel[4 * quads]: where
  /// a pixel's window begins; its rows are `pitch` groups apart, its columns `groups`.
  void (*expand_index)(int32_t* out, const uint64_t* spread, const int32_t* pixel, int64_t quads, int64_t groups, int64_t pitch,
                       int64_t R, int64_t S);
  void (*run_weight)(const Fixed16WeightTask& task);
  /// out[i] = float((sum of partials[s][i] - correction) * step), or added to out.
  void (*finish)(float* out, const int32_t* partials, int64_t stride, int64_t slices, double correction, double step,
                 int64_t count, bool accumulate);
};

/// Largest magnitude of dz * alpha. by_channel: scratch of K values.
BIREAL_INLINE uint32_t fixed16_largest(const Fixed16Kernel& kernel, const float* dz, const float* alpha, int64_t pixels,
                                       int64_t K, uint32_t* by_channel) {
  memset(by_channel, 0, (size_t)K * sizeof(uint32_t));
  kernel.magnitudes(by_channel, dz, alpha, pixels, K);
  uint32_t largest = 0;
  for (int64_t k = 0; k < K; ++k) largest = by_channel[k] > largest ? by_channel[k] : largest;
  return largest;
}

extern const Fixed16Kernel kFixed16Portable, kFixed16Avx2, kFixed16Avx512;

/// Taps of a filter row that step through dz one column at a time: t, t + stride, ... Rows of the filter are cut into such
/// groups of up to 3, all groups of t mod stride = 0 first.
enum { kFixed16GroupTaps = 3 };

/// Bit i of 16 to bit 4 i.
BIREAL_INLINE uint64_t fixed16_spread(uint32_t bits) {
  uint64_t x = bits & 0xFFFFu;
  x = (x | x << 24) & 0x000000FF000000FFull;
  x = (x | x << 12) & 0x000F000F000F000Full;
  x = (x | x << 6) & 0x0303030303030303ull;
  return (x | x << 3) & 0x1111111111111111ull;
}

}  // namespace bireal::cpu
