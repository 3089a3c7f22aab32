// The forward kernel without a vector popcount, written once for 32 and 64 bytes a vector. Unit: 16 bits per 4 channels of a pair
// of pixels, the offset of their table.
//
// popcount(x XOR w) of 4 channels, 0 to 4, has the parity of odd(x) + odd(w), where odd is popcount modulo 2, and
//   F(x, w) = (popcount(x XOR w) + odd(x) - odd(w)) / 2   is 0, 1 or 2 for all x and w.
// So the popcounts of a window add up to 2 sum F - sum odd(x) + sum odd(w): the sum of odd(x) is one number for a pixel, counted
// apart (binary_conv_cpu.cpp), that of odd(w) is part of the constants, and F needs half the room.
//
// F of 4 channels is one of 16 values for each x. Two pixels at once: their two nibbles choose one of 256 tables of 16 bytes,
// whose low four bits are F of the first pixel, the high four of the second. A byte shuffle looks up the weight nibbles of a
// whole vector of output channels in it: one instruction for 256 (512) products. Six such bytes can be added up (at most 12 in
// each half; seven could), then the halves have to be parted: t goes to one sum, t >> 4 as 16-bit lanes to another, both modulo
// 256. With A, B of the even and C, D of the odd byte of such a lane the sums are
//   low:  A + 16 B, C + 16 D       high:  B + 16 C, D
// so D, C, B, A follow one from the other, as long as each is below 256. 14 instructions for 6 * 256 products; with counts of 0
// to 4 they are 16, with a table a pixel 24.
//
// Where a filter of three columns moves on by one, the windows of two neighbours share two of three columns. Then pixels come in
// runs of neighbours, and a table is loaded once for all windows that see it (nibble_add_columns).
// `Vec` is the instruction set: a struct of always inlined functions, private to the file that is compiled for it.
#pragma once
#include <stddef.h>

#include "ops/binary_conv/binary_conv_kernels.h"

namespace bireal::cpu {

/// table[x][w] = F(x % 16, w) + 16 F(x / 16, w), repeated to fill a vector: a broadcasting load would cost
/// Zen 4 one of its two shuffles.
template <int kBytes>
struct NibbleTables {
  alignas(64) uint8_t table[256][kBytes] = {};
  static constexpr int count(int x) { return (x & 1) + (x >> 1 & 1) + (x >> 2 & 1) + (x >> 3 & 1); }
  static constexpr int half(int x, int w) { return (count(x ^ w) + count(x) % 2 - count(w) % 2) / 2; }
  constexpr NibbleTables() {
    for (int x = 0; x < 256; ++x)
      for (int w = 0; w < kBytes; ++w) table[x][w] = uint8_t(half(x % 16, w % 16) + 16 * half(x / 16, w % 16));
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

/// Units of a window between two partings of the bytes: a byte holds 127 additions of at most 2, and this is a multiple of 6.
constexpr int64_t kNibbleRound = 126;

/// Adds kSteps units of each pair, one after the other.
template <class Vec, int kSteps, int kPairs, int kVectors>
BIREAL_INLINE void nibble_add(typename Vec::V (&low)[kPairs][kVectors], typename Vec::V (&high)[kPairs][kVectors],
                              const uint8_t* tables, const uint16_t* const (&x)[kPairs], int64_t unit, const uint8_t* weights,
                              int64_t vector_stride) {
  using V = typename Vec::V;
  V bytes[kPairs][kVectors];
#pragma GCC unroll 6
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

/// The same for pairs that are neighbours, whose windows of three columns overlap: two units of each column of the tile, with the
/// weights of three columns. `x` and `column` (from one column to the next) are in bytes.
template <class Vec, int kPairs, int kVectors>
BIREAL_INLINE void nibble_add_columns(typename Vec::V (&low)[kPairs][kVectors], typename Vec::V (&high)[kPairs][kVectors],
                                      const uint8_t* tables, const uint8_t* x, int64_t column, int64_t column3,
                                      const uint8_t* weights, int64_t vector_stride) {
  using V = typename Vec::V;
  const uint8_t* at[6] = {x, x + column, x + 2 * column, x + column3, x + 4 * column, x + column3 + 2 * column};
  V bytes[kPairs][kVectors];
#pragma GCC unroll 2
  for (int unit = 0; unit < 2; ++unit) {
    V w[3][kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kPairs + 2; ++c) {
      const V table = Vec::load(tables + *(const uint16_t*)(at[c] + unit * sizeof(uint16_t)));
      // The pair that began last is first: it is done with a column's weights when the next pair loads those of the next column.
#pragma GCC unroll 8
      for (int i = kPairs - 1; i >= 0; --i) {
        const int tap = c - i;
        if (tap < 0 || tap > 2) continue;
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) {
          if (i == 0) {
            w[tap][j] = Vec::load(weights + (3 * unit + tap) * Vec::kBytes + j * vector_stride);
            Vec::keep(w[tap][j]);
          }
          if (unit == 0 && tap == 0)
            Vec::shuffle(bytes[i][j], table, w[tap][j]);
          else
            Vec::add_shuffled(bytes[i][j], table, w[tap][j]);
        }
      }
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

/// kColumns: the pairs are neighbours (task.column_units).
template <class Vec, bool kColumns, int kPairs, int kVectors>
BIREAL_INLINE void nibble_tile(const BinaryConvTask& task, const uint8_t* weights, int64_t first, int64_t k0,
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
  // In a row of the filter: units of a column with the weights of three, or all units.
  const int64_t taps = kColumns ? 3 : 1, row_units = task.row_units / taps;
  int64_t column = 2 * task.column_units, column3 = 3 * column;
  asm("" : "+r"(column), "+r"(column3));  // as they are: gcc 12 would keep each sum with a unit's offset in a register
  for (int64_t r = 0, done = 0; r < task.R;) {
    V low_sum[kPairs][kVectors], high_sum[kPairs][kVectors];  // of this round: in registers
#pragma GCC unroll 8
    for (int i = 0; i < kPairs; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) low_sum[i][j] = high_sum[i][j] = Vec::zero();
    for (int64_t left = kNibbleRound / taps; left > 0 && r < task.R;) {
      int64_t unit = r * task.pitch_units + done, count = row_units - done < left ? row_units - done : left;
      done += count;
      left -= count;
      if constexpr (kColumns) {
        const uint8_t* at = (const uint8_t*)(x[0] + unit);
        for (const uint8_t* end = at + 2 * count; at < end; at += 4, weights += 6 * Vec::kBytes)
          nibble_add_columns<Vec>(low_sum, high_sum, tables, at, column, column3, weights, vector_stride);
      } else {
        for (; count >= 6; count -= 6, unit += 6, weights += 6 * Vec::kBytes)
          nibble_add<Vec, 6>(low_sum, high_sum, tables, x, unit, weights, vector_stride);
        for (; count > 0; count -= 2, unit += 2, weights += 2 * Vec::kBytes)  // words of 8 units: 2 or 4 are left
          nibble_add<Vec, 2>(low_sum, high_sum, tables, x, unit, weights, vector_stride);
      }
      if (done == row_units) done = 0, ++r;
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
    const V odd[2] = {Vec::broadcast16(task.odd + output[0]), Vec::broadcast16(task.odd + output[both])};
    int16_t* v[2] = {(int16_t*)task.v + output[0] * task.K + k0, (int16_t*)task.v + output[both] * task.K + k0};
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const int64_t k = j * Vec::kBytes + half * (Vec::kBytes / 2), present = task.K - k0 - k;
        V value[2];
#pragma GCC unroll 2
        for (int pixel = 0; pixel < 2; ++pixel) {
          // int16: constant - 2 * (2 * total - odd) is right modulo 2^16.
          value[pixel] =
              Vec::sub16(Vec::add16(Vec::load(constants[pixel] + k), odd[pixel]), Vec::shift_left2(total[i][j][pixel][half]));
          if (present > 0 && (pixel == 0 || both)) Vec::store_channels(v[pixel] + k, value[pixel], present);
        }
        if (task.sums)
          nibble_sums_add<Vec>(&sums->v[j][2 * half], &sums->square[j][2 * half], value[0], both ? value[1] : Vec::zero());
      }
  }
}

template <class Vec, bool kColumns, int kPairs, int kVectors>
BIREAL_INLINE void nibble_tile_of(int64_t width, const BinaryConvTask& task, const uint8_t* weights, int64_t first, int64_t k0,
                                  NibbleSums<Vec, kVectors>* sums) {
  if constexpr (kPairs > 1) {
    if (width < kPairs) return nibble_tile_of<Vec, kColumns, kPairs - 1, kVectors>(width, task, weights, first, k0, sums);
  }
  nibble_tile<Vec, kColumns, kPairs, kVectors>(task, weights, first, k0, sums);
}

/// The end of the run of neighbours that begins with pair `first`.
BIREAL_INLINE int64_t nibble_neighbours_end(const BinaryConvTask& task, int64_t first) {
  int64_t end = first + 1;
  while (end < task.pixel_count && task.pixel[end] == task.pixel[end - 1] + task.column_units) ++end;
  return end;
}

template <class Vec, bool kColumns, int kVectors>
BIREAL_INLINE void nibble_block(const BinaryConvTask& task, int64_t k0) {
  enum { kPairs = kVectors == 1 ? Vec::kNarrowPairs : Vec::kPairs };
  const uint8_t* weights = (const uint8_t*)task.weights + k0 * task.R * task.row_units;
  NibbleSums<Vec, kVectors> sums;
  for (int j = 0; j < kVectors; ++j)
    for (int part = 0; part < 4; ++part) sums.v[j][part] = sums.square[j][part] = Vec::zero();
  int64_t tiles_left = task.tiles_per_flush;
  for (int64_t first = 0, end; first < task.pixel_count; first = end) {
    end = kColumns ? nibble_neighbours_end(task, first) : task.pixel_count;
    // Tiles of nearly equal width: 25 pairs at most 4 wide are 7 tiles of 3 or 4, without a tail of 1.
    for (int64_t tiles = (end - first + kPairs - 1) / kPairs; tiles > 0; --tiles) {
      const int64_t width = (end - first) / tiles;
      if (task.y) nibble_fetch(task, first, width, k0, kVectors * Vec::kBytes);
      nibble_tile_of<Vec, kColumns, kPairs, kVectors>(width, task, weights, first, k0, &sums);
      first += width;
      if (task.sums && --tiles_left == 0) {
        nibble_sums_flush(&sums, task.sums + k0, task.padded_K);
        tiles_left = task.tiles_per_flush;
      }
    }
  }
  if (task.sums) nibble_sums_flush(&sums, task.sums + k0, task.padded_K);
}

template <class Vec, bool kColumns>
BIREAL_INLINE void nibble_blocks(const BinaryConvTask& task) {
  enum { kWide = Vec::kVectors * Vec::kBytes };
  int64_t k0 = 0;
  // A pair that is left over would read all weights for itself alone: 7 pairs are 4 and 3 of narrow tiles.
  const bool left_over = kColumns && Vec::kPairs < Vec::kNarrowPairs && nibble_neighbours_end(task, 0) % Vec::kPairs == 1;
  for (; !left_over && k0 + kWide <= task.padded_K; k0 += kWide) nibble_block<Vec, kColumns, Vec::kVectors>(task, k0);
  for (; k0 < task.padded_K; k0 += Vec::kBytes) nibble_block<Vec, kColumns, 1>(task, k0);
}

template <class Vec>
BIREAL_INLINE void nibble_run(const BinaryConvTask& task) {
  if (task.column_units)
    nibble_blocks<Vec, true>(task);
  else
    nibble_blocks<Vec, false>(task);
}

}  // namespace bireal::cpu
