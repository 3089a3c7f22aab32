// The kernels of conv2d for long filters over few channels (the 7x7/2 stem of an image): a fast FIR algorithm along a row.
//
// Output column q sees the columns (q + t) * stride + f of the padded image: tap t of phase f, with filter column
// s = t * stride + f. So a row of a filter is `stride` filters of up to 4 taps, each over columns of one phase. A tile is 4
// output columns; its 4 x 4 products of each phase, row and channel are computed by Toom and Cook's way in 7, one for each point
// {0, 1, -1, 2, -2, 1/2, infinity}:
//
//   v = B d   of the 7 columns d of a phase that a tile sees,     u = G w   of the taps (zero beyond the filter),
//   y = A sum over r, f, c of u * v   (elementwise in the points), and for the gradient   dw = A sum over tiles of (G dy) * v.
//
// Source: Winograd, Arithmetic Complexity of Computations (1980); Lavin and Gray, arXiv:1509.09308, for the matrices. The points
// are those of 14 sets that had the smallest error: 2.0 to 2.2 times that of the direct sum in float32 for 7x7 over 3 channels
// (docs/results.md).
#pragma once
#include <stdint.h>

#include "core/bits.h"

namespace bireal::cpu {

/// The matrices of 4 outputs and 4 taps. The rows of B are scaled by powers of two to a largest value in [1, 2).
struct Winograd4x4 {
  enum { kOutputs = 4, kTaps = 4, kPoints = kOutputs + kTaps - 1 };
  float A[kOutputs][kPoints] = {};
  float B[kPoints][kPoints] = {};
  double G[kPoints][kTaps] = {};

  constexpr Winograd4x4() {
    // 1 and 2, 3 and 4 are pairs +p, -p, of which the kernels make use; the last point is infinity.
    const double points[kPoints - 1] = {0, 1, -1, 2, -2, 0.5};
    for (int i = 0; i < kPoints; ++i) {
      // The product of (x - p) over the other finite points; its value at this one.
      double product[kPoints + 1] = {1}, value = 1;
      int degree = 0;
      for (int l = 0; l < kPoints - 1; ++l) {
        if (l == i) continue;
        ++degree;
        for (int k = degree; k >= 0; --k) product[k] = (k > 0 ? product[k - 1] : 0) - points[l] * product[k];
        if (i < kPoints - 1) value *= points[i] - points[l];
      }
      double largest = 0, scale = 1;
      for (int k = 0; k < kPoints; ++k) {
        if (product[k] > largest) largest = product[k];
        if (-product[k] > largest) largest = -product[k];
      }
      for (; largest * scale >= 2; scale /= 2) {
      }
      for (int k = 0; k < kPoints; ++k) B[i][k] = float(product[k] * scale);
      double power = 1 / (value * scale);
      if (i == kPoints - 1) {
        G[i][kTaps - 1] = power, A[kOutputs - 1][i] = 1;
        continue;
      }
      for (int t = 0; t < kTaps; ++t, power *= points[i]) G[i][t] = power;
      power = 1;
      for (int k = 0; k < kOutputs; ++k, power *= points[i]) A[k][i] = float(power);
    }
  }
};

/// Some rows of the padded image and what becomes of them: x [row][column][C], v [point][tile][row][phase][C]. So the terms of a
/// tile and an output row, R filter rows of stride*C, lie in sequence.
struct Conv2dWinogradTiles {
  int64_t tiles, rows, depth;  // of an output row; of the padded image; stride * C
  int64_t x_pitch_floats;      // from one row to the next

  Conv2dWinogradTiles(int64_t Q, int64_t rows, int64_t stride, int64_t C)
      : tiles((Q + Winograd4x4::kOutputs - 1) / Winograd4x4::kOutputs),
        rows(rows),
        depth(stride * C),
        x_pitch_floats((tiles * Winograd4x4::kOutputs + Winograd4x4::kTaps - 1) * depth) {}
  int64_t x_floats() const { return rows * x_pitch_floats + kMostLanes; }
  int64_t tile_floats() const { return rows * depth + kMostLanes; }  // room for the last vector of a row
  int64_t point_floats() const { return tiles * tile_floats(); }
  int64_t v_floats() const { return Winograd4x4::kPoints * point_floats(); }

 private:
  enum { kMostLanes = 16 };
};

struct Conv2dWinogradRow {  // one row of output pixels
  const float* v;           // of point 0, tile 0 and the first filter row inside the image
  int64_t point_floats, tile_floats, tiles;
  int64_t terms;           // filter rows inside the image * stride * C
  const float* u;          // [padded K / block][point][R*stride*C][block], from the same filter row on
  int64_t u_point_floats;  // from one point to the next: R*stride*C*block
  float* y;                // [Q,K]
  int64_t Q, K;
};

struct Conv2dWinogradKernel {
  const char* name;
  int64_t block;  // output channels that lie side by side in u; K is padded with zeros to a multiple
  void (*transform)(const Conv2dWinogradTiles& tiles, float* v, const float* x);  // v = B x
  void (*run)(const Conv2dWinogradRow& row);
};
extern const Conv2dWinogradKernel conv2d_winograd_avx2, conv2d_winograd_avx512;

}  // namespace bireal::cpu
