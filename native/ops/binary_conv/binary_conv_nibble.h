// The forward kernel without a vector popcount, written once for 32 and 64 bytes a vector. Unit: 16 bits per 4 channels of a pair
// of pixels, the offset of their table.
//
// popcount(x XOR w) of 4 channels is one of 16 values for each x. Two pixels at once: their two nibbles choose one of 256 tables
// of 16 bytes, whose low four bits are the count of the first pixel, the high four of the second. A byte shuffle looks up the
// weight nibbles of a whole vector of output channels in it: one instruction for 256 (512) products. Three such bytes can be
// added up (at most 12 in each half), then the halves have to be parted: t goes to one sum, t >> 4 as 16-bit lanes to another,
// both modulo 256. With A, B of the even and C, D of the odd byte of such a lane the sums are
//   low:  A + 16 B, C + 16 D       high:  B + 16 C, D
// so D, C, B, A follow one from the other, as long as each is below 256. 8 instructions for 3 * 256 products; with a table a
// pixel it is 12.
// `Vec` is the instruction set: a struct of always inlined functions, private to the file that is compiled for it.
#pragma once
#include <stddef.h>

#include "ops/binary_conv/binary_conv_kernels.h"

namespace bireal::cpu {

/// table[x][w] = popcount(x % 16 XOR w) + 16 popcount(x / 16 XOR w), repeated to fill a vector: a broadcasting load would cost
/// Zen 4 one of its two shuffles.
template <int kBytes>
struct NibbleTables {
  alignas(64) uint8_t table[256][kBytes] = {};
  constexpr NibbleTables() {
    for (int x = 0; x < 256; ++x)
      for (int w = 0; w < kBytes; ++w)
        for (int bit = 0; bit < 4; ++bit) table[x][w] += ((x ^ w) >> bit & 1) + 16 * ((x / 16 ^ w) >> bit & 1);
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

/// Steps between two partings of the bytes: some rows of the filter, or a part of one, so that all loops are equally long.
struct NibbleRounds {
  int64_t steps, rows;
};
BIREAL_INLINE NibbleRounds nibble_rounds(int64_t row_units) {
  const int64_t most = 63;  // a byte holds 63 additions of at most 4
  const int64_t parts = (row_units + most - 1) / most, steps = ((row_units + parts - 1) / parts + 2) / 3 * 3;
  return {steps, parts > 1 ? 1 : most / steps};
}

/// Adds kSteps units of each pair, one after the other.
template <class Vec, int kSteps, int kPairs, int kVectors>
BIREAL_INLINE void nibble_add(typename Vec::V (&low)[kPairs][kVectors], typename Vec::V (&high)[kPairs][kVectors],
                              const uint8_t* tables, const uint16_t* const (&x)[kPairs], int64_t unit, const uint8_t* weights,
                              int64_t vector_stride) {
  using V = typename Vec::V;
  V bytes[kPairs][kVectors];
#pragma GCC unroll 3
  for (int step = 0; step < kSteps; ++step) {
    V w[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      w[j] = Vec::load(weights + step * Vec::kBytes + j * vector_stride);
      Vec::keep(w[j]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kPairs; ++i) {
      const V table = Vec::load(tables + x[i][unit + step]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j)
        if (step == 0)
          Vec::shuffle(bytes[i][j], table, w[j]);
        else
          Vec::add_shuffled(bytes[i][j], table, w[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kPairs; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) Vec::add_halves(low[i][j], high[i][j], bytes[i][j]);
}

/// Has `count` channels from k0 on of the pixels of a tile in the second-level cache when their v is normalised.
BIREAL_INLINE void nibble_fetch(const BinaryConvTask& task, int64_t first, int64_t pairs, int64_t k0, int64_t count) {
  enum { kFloatsInLine = 16 };
  for (int64_t i = 2 * first; i < 2 * (first + pairs); ++i) {
    if (task.output[i] < 0) continue;
    const int64_t begin = task.output[i] * task.K + k0;
    for (int64_t k = begin; k < begin + count; k += kFloatsInLine) {
      __builtin_prefetch(task.y + k, 1, 2);
      if (task.shortcut) __builtin_prefetch(task.shortcut + k, 0, 2);
    }
  }
}

template <class Vec, int kPairs, int kVectors>
BIREAL_INLINE void nibble_tile(const BinaryConvTask& task, const uint8_t* weights, int64_t first, int64_t k0, NibbleRounds rounds,
                               NibbleSums<Vec, kVectors>* sums) {
  using V = typename Vec::V;
  static constexpr NibbleTables<Vec::kBytes> kTables;
  const uint8_t* tables = &kTables.table[0][0];
  const uint16_t* x[kPairs];
  V total[kPairs][kVectors][2][2];  // [pixel of the pair][half of the channels], 16 bits
#pragma GCC unroll 8
  for (int i = 0; i < kPairs; ++i) {
    x[i] = (const uint16_t*)task.x + task.pixel[first + i];
    asm("" : "+r"(x[i]));  // one pointer a pair; gcc 12 would split it in two and add them up in the inner loop
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j)
      total[i][j][0][0] = total[i][j][0][1] = total[i][j][1][0] = total[i][j][1][1] = Vec::zero();
  }
  const int64_t vector_stride = task.R * task.row_units * Vec::kBytes;  // from one block of channels to the next
  for (int64_t r = 0, done = 0; r < task.R;) {
    V low_sum[kPairs][kVectors], high_sum[kPairs][kVectors];  // of this round: in registers
#pragma GCC unroll 8
    for (int i = 0; i < kPairs; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) low_sum[i][j] = high_sum[i][j] = Vec::zero();
    for (int64_t row = 0; row < rounds.rows && r < task.R; ++row) {
      int64_t unit = r * task.pitch_units + done,
              left = task.row_units - done < rounds.steps ? task.row_units - done : rounds.steps;
      done += left;
      for (; left >= 3; left -= 3, unit += 3, weights += 3 * Vec::kBytes)
        nibble_add<Vec, 3>(low_sum, high_sum, tables, x, unit, weights, vector_stride);
      if (left == 2)
        nibble_add<Vec, 2>(low_sum, high_sum, tables, x, unit, weights, vector_stride);
      else if (left == 1)
        nibble_add<Vec, 1>(low_sum, high_sum, tables, x, unit, weights, vector_stride);
      weights += left * Vec::kBytes;
      if (done == task.row_units) done = 0, ++r;
    }
#pragma GCC unroll 8
    for (int i = 0; i < kPairs; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        const V low = low_sum[i][j], high = high_sum[i][j], byte = Vec::bytes16();
        const V d = Vec::shift_right8(high);
        const V c = Vec::and_(Vec::sub16(Vec::shift_right8(low), Vec::shift_left4(d)), byte);
        const V b = Vec::and_(Vec::sub16(high, Vec::shift_left4(c)), byte);
        const V a = Vec::and_(Vec::sub16(low, Vec::shift_left4(b)), byte);
        total[i][j][0][0] = Vec::add16(total[i][j][0][0], a);
        total[i][j][0][1] = Vec::add16(total[i][j][0][1], c);
        total[i][j][1][0] = Vec::add16(total[i][j][1][0], b);
        total[i][j][1][1] = Vec::add16(total[i][j][1][1], d);
      }
  }

#pragma GCC unroll 8
  for (int i = 0; i < kPairs; ++i) {
    const int32_t *output = task.output + 2 * (first + i), *constant = task.constant + 2 * (first + i);
    const int16_t* constants[2] = {(const int16_t*)task.constants + constant[0] + k0,
                                   (const int16_t*)task.constants + constant[1] + k0};
    const bool both = output[1] >= 0;
    int16_t* v[2] = {(int16_t*)task.v + output[0] * task.K + k0, (int16_t*)task.v + output[both] * task.K + k0};
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const int64_t k = j * Vec::kBytes + half * (Vec::kBytes / 2), present = task.K - k0 - k;
        V value[2];
#pragma GCC unroll 2
        for (int pixel = 0; pixel < 2; ++pixel) {
          // int16: constant - 2*count is right modulo 2^16.
          const V count = total[i][j][pixel][half];
          value[pixel] = Vec::sub16(Vec::load(constants[pixel] + k), Vec::add16(count, count));
          if (present > 0 && (pixel == 0 || both)) Vec::store_channels(v[pixel] + k, value[pixel], present);
        }
        if (task.sums)
          nibble_sums_add<Vec>(&sums->v[j][2 * half], &sums->square[j][2 * half], value[0], both ? value[1] : Vec::zero());
      }
  }
}

template <class Vec, int kPairs, int kVectors>
BIREAL_INLINE void nibble_tile_of(int64_t width, const BinaryConvTask& task, const uint8_t* weights, int64_t first, int64_t k0,
                                  NibbleRounds rounds, NibbleSums<Vec, kVectors>* sums) {
  if constexpr (kPairs > 1) {
    if (width < kPairs) return nibble_tile_of<Vec, kPairs - 1, kVectors>(width, task, weights, first, k0, rounds, sums);
  }
  nibble_tile<Vec, kPairs, kVectors>(task, weights, first, k0, rounds, sums);
}

template <class Vec, int kVectors>
BIREAL_INLINE void nibble_block(const BinaryConvTask& task, int64_t k0) {
  // Tiles of nearly equal width: 25 pairs at most 4 wide are 7 tiles of 3 or 4, without a tail of 1.
  enum { kPairs = kVectors == 1 ? Vec::kNarrowPairs : Vec::kPairs };
  const int64_t tiles = (task.pixel_count + kPairs - 1) / kPairs;
  const int64_t narrow = task.pixel_count / tiles, wide_tiles = task.pixel_count % tiles;
  const uint8_t* weights = (const uint8_t*)task.weights + k0 * task.R * task.row_units;
  NibbleSums<Vec, kVectors> sums;
  for (int j = 0; j < kVectors; ++j)
    for (int part = 0; part < 4; ++part) sums.v[j][part] = sums.square[j][part] = Vec::zero();
  const NibbleRounds rounds = nibble_rounds(task.row_units);
  int64_t first = 0, left = task.tiles_per_flush;
  for (int64_t t = 0; t < tiles; ++t) {
    int64_t width = narrow + (t < wide_tiles);
    if (task.y) nibble_fetch(task, first, width, k0, kVectors * Vec::kBytes);
    nibble_tile_of<Vec, kPairs, kVectors>(width, task, weights, first, k0, rounds, &sums);
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
