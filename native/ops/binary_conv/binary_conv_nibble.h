// The forward kernel without a vector popcount, written once for 32 and 64 bytes a vector. Unit: a byte per 4 channels of a
// pixel, holding 16 times the nibble.
//
// popcount(x XOR w) of 4 channels is one of 16 values for each x; so x chooses a table of 16 bytes, and a byte shuffle looks up
// the weight nibbles of a whole vector of output channels in it: 2 instructions (shuffle, add) for 128 (256) products, and a
// table load shared by the vectors of weights. Bytes hold 63 additions of at most 4; then they are widened to 16 bits.
// `Vec` is the instruction set: a struct of always inlined functions, private to the file that is compiled for it.
#pragma once
#include <stddef.h>

#include "ops/binary_conv/binary_conv_kernels.h"

namespace bireal::cpu {

/// table[x][w] = popcount(x XOR w), repeated to fill a vector: a broadcasting load would cost Zen 4 one of its two shuffles.
template <int kBytes>
struct NibbleTables {
  alignas(64) uint8_t table[16][kBytes] = {};
  constexpr NibbleTables() {
    for (int x = 0; x < 16; ++x)
      for (int w = 0; w < kBytes; ++w)
        for (int bit = 0; bit < 4; ++bit) table[x][w] += (x ^ w) >> bit & 1;
  }
};

/// Sums of v and v^2 over pixels, for kVectors vectors of bytes of channels: 4 vectors of 32-bit lanes each.
template <class Vec, int kVectors>
struct NibbleSums {
  typename Vec::V v[kVectors][4], square[kVectors][4];
};

template <class Vec, int kVectors>
BIREAL_INLINE void nibble_sums_flush(NibbleSums<Vec, kVectors>* s, int64_t* sums, int64_t padded_K) {
  enum { kLanes = Vec::kBytes / 4 };
  for (int j = 0; j < kVectors; ++j)
    for (int part = 0; part < 4; ++part) {
      alignas(64) int32_t v[kLanes];
      alignas(64) uint32_t square[kLanes];
      Vec::store(v, s->v[j][part]);
      Vec::store(square, s->square[j][part]);
      s->v[j][part] = s->square[j][part] = Vec::zero();
      for (int lane = 0; lane < kLanes; ++lane) {
        // part / 2: which half of the channels; part % 2: low or high four of each eight (unpacking pixels to pairs).
        int64_t channel = j * Vec::kBytes + part / 2 * (Vec::kBytes / 2) + lane / 4 * 8 + part % 2 * 4 + lane % 4;
        sums[channel] += v[lane];
        sums[padded_K + channel] += square[lane];
      }
    }
}

template <class Vec>
BIREAL_INLINE void nibble_sums_add(typename Vec::V* v, typename Vec::V* square, typename Vec::V first, typename Vec::V second) {
  typename Vec::V low = Vec::unpack_low16(first, second), high = Vec::unpack_high16(first, second);
  v[0] = Vec::add32(v[0], Vec::multiply_add16(low, Vec::ones16()));
  v[1] = Vec::add32(v[1], Vec::multiply_add16(high, Vec::ones16()));
  square[0] = Vec::add32(square[0], Vec::multiply_add16(low, low));
  square[1] = Vec::add32(square[1], Vec::multiply_add16(high, high));
}

template <class Vec, int kPixels, int kVectors>
BIREAL_INLINE void nibble_tile(const BinaryConvTask& task, const uint8_t* weights, int64_t first, int64_t k0,
                               NibbleSums<Vec, kVectors>* sums) {
  using V = typename Vec::V;
  enum { kStepsInByte = 60 };  // at most 63, and whole unrolled steps; a row of the filter has a multiple of 8
  static constexpr NibbleTables<Vec::kBytes> kTables;
  const uint8_t* x[kPixels];
  V total[kPixels][kVectors][2];
#pragma GCC unroll 8
  for (int i = 0; i < kPixels; ++i) {
    x[i] = (const uint8_t*)task.x + task.pixel[first + i];
    asm("" : "+r"(x[i]));  // one pointer a pixel; gcc 12 would split it in two and add them up in the inner loop
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) total[i][j][0] = total[i][j][1] = Vec::zero();
  }
  const int64_t vector_stride = task.R * task.row_units * Vec::kBytes;  // from one block of channels to the next
  for (int64_t r = 0, done = 0; r < task.R;) {
    V bytes[kPixels][kVectors];  // of this round: in registers
#pragma GCC unroll 8
    for (int i = 0; i < kPixels; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) bytes[i][j] = Vec::zero();
    int64_t room = kStepsInByte;
    do {
      const int64_t steps = task.row_units - done < room ? task.row_units - done : room;
      const int64_t begin = r * task.pitch_units + done, end = begin + steps;
      for (int64_t unit = begin; unit < end; unit += Vec::kUnroll)
#pragma GCC unroll 4
        for (int step = 0; step < Vec::kUnroll; ++step, weights += Vec::kBytes) {
          V w[kVectors];
#pragma GCC unroll 4
          for (int j = 0; j < kVectors; ++j) w[j] = Vec::load(weights + j * vector_stride);
#pragma GCC unroll 8
          for (int i = 0; i < kPixels; ++i) {
            V table = Vec::load(&kTables.table[0][0] + (size_t)x[i][unit + step] * (Vec::kBytes / 16));
#pragma GCC unroll 4
            for (int j = 0; j < kVectors; ++j) Vec::add_shuffled(bytes[i][j], table, w[j]);
          }
        }
      room -= steps;
      done += steps;
      if (done == task.row_units) done = 0, ++r;
    } while (room > 0 && r < task.R);
#pragma GCC unroll 8
    for (int i = 0; i < kPixels; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        total[i][j][0] = Vec::add16(total[i][j][0], Vec::unpack_low8(bytes[i][j], Vec::zero()));
        total[i][j][1] = Vec::add16(total[i][j][1], Vec::unpack_high8(bytes[i][j], Vec::zero()));
      }
  }

#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int64_t k = k0 + j * Vec::kBytes + half * (Vec::kBytes / 2);
      V v[kPixels + 1];
#pragma GCC unroll 8
      for (int i = 0; i < kPixels; ++i) {
        // int16: constant - 2*count is right modulo 2^16.
        const int16_t* constant = (const int16_t*)task.constants + task.constant[first + i] + k;
        v[i] = Vec::sub16(Vec::load(constant), Vec::add16(total[i][j][half], total[i][j][half]));
        if (k < task.K) Vec::store_channels((int16_t*)task.v + (first + i) * task.K + k, v[i], task.K - k);
      }
      v[kPixels] = Vec::zero();
      if (task.sums)
#pragma GCC unroll 4
        for (int i = 0; i < kPixels; i += 2)
          nibble_sums_add<Vec>(&sums->v[j][2 * half], &sums->square[j][2 * half], v[i], v[i + 1]);
    }
}

template <class Vec, int kVectors>
BIREAL_INLINE void nibble_block(const BinaryConvTask& task, int64_t k0) {
  // Tiles of nearly equal width: 49 pixels at most 6 wide are 9 tiles of 5 or 6, without a tail of 1.
  enum { kPixels = Vec::kPixels };
  const int64_t tiles = (task.pixel_count + kPixels - 1) / kPixels;
  const int64_t narrow = task.pixel_count / tiles, wide_tiles = task.pixel_count % tiles;
  const uint8_t* weights = (const uint8_t*)task.weights + k0 * task.R * task.row_units;
  NibbleSums<Vec, kVectors> sums;
  for (int j = 0; j < kVectors; ++j)
    for (int part = 0; part < 4; ++part) sums.v[j][part] = sums.square[j][part] = Vec::zero();
  int64_t first = 0, left = task.tiles_per_flush;
  for (int64_t t = 0; t < tiles; ++t) {
    int64_t width = narrow + (t < wide_tiles);
    Vec::template tile<kVectors>(width, task, weights, first, k0, &sums);
    first += width;
    if (task.sums && (--left == 0 || t + 1 == tiles)) {
      nibble_sums_flush(&sums, task.sums + k0, task.padded_K);
      left = task.tiles_per_flush;
    }
  }
}

template <class Vec>
BIREAL_INLINE void nibble_run(const BinaryConvTask& task) {
  enum { kWide = Vec::kVectors * Vec::kBytes };
  int64_t k0 = 0;
  for (; k0 + kWide <= task.padded_K; k0 += kWide) nibble_block<Vec, Vec::kVectors>(task, k0);
  for (; k0 < task.padded_K; k0 += Vec::kBytes) nibble_block<Vec, 1>(task, k0);
}

}  // namespace bireal::cpu
