// The kernels of conv2d for long filters over few channels (the 7x7/2 stem of an image): a fast FIR algorithm in both directions.
//
// Output column q sees the columns (q + t) * stride + f of the padded image: tap t of phase f, with filter column
// t * stride + f. So a row of a filter is `stride` filters of 4 taps (zeros come before a shorter row), each over columns of one
// phase, and a column of it likewise. A tile is 4 x 4 output pixels. In each direction the 4 x 4 products of outputs and taps are
// computed by Toom and Cook's way in 7, one for each point {0, 5/8, -5/8, 5/4, -5/4, 7/2, -7/2}; nested, 49 for 256:
//
//   v = B d B^T   of the 7 x 7 pixels d of a phase that a tile sees,     u = G w G^T   of the taps,
//   y = A (sum over row phase, column phase and c of u * v) A^T   (elementwise in the points).
//
// The gradient of the weights is the same the other way round, summed over tiles before it is transformed:
//
//   dw = G^T (sum over tiles of v * m) G,     m = A^T dy A   of the 4 x 4 gradients of a tile.
//
// Source: Winograd, Arithmetic Complexity of Computations (1980); Lavin and Gray, arXiv:1509.09308, for the matrices. Of the
// sets of three pairs and of those with infinity that were compared these points have nearly the smallest error: 3.6 times that
// of the direct sum in float32 (root mean square, 7x7 over 3 channels; docs/results.md). A phase whose first tap is a zero has no
// product at point 0. The gradient's error is 2.5 times that of the direct sum.
#pragma once
#include <stdint.h>

#include "core/bits.h"

namespace bireal::cpu {

/// The matrices of 4 outputs and 4 taps.
struct Winograd4x4 {
  enum { kOutputs = 4, kTaps = 4, kPairs = 3, kPoints = 1 + 2 * kPairs };
  float A[kOutputs][kPoints] = {};
  float B[kPoints][kPoints] = {};  // exact
  double G[kPoints][kTaps] = {};
  // Each pair of points is scaled so that the output of this power of it needs no multiplication.
  int unit[kPairs] = {2, 1, 3};

  constexpr Winograd4x4() {
    const double points[kPoints] = {0, 0.625, -0.625, 1.25, -1.25, 3.5, -3.5};
    for (int i = 0; i < kPoints; ++i) {
      // The product of (x - p) over the other points; its value at this one.
      double product[kPoints + 1] = {1}, value = 1;
      int degree = 0;
      for (int l = 0; l < kPoints; ++l) {
        if (l == i) continue;
        ++degree;
        for (int k = degree; k >= 0; --k) product[k] = (k > 0 ? product[k - 1] : 0) - points[l] * product[k];
        value *= points[i] - points[l];
      }
      for (int k = 0; k < kPoints; ++k) B[i][k] = float(product[k]);
      double scale = 1;
      for (int k = 0; i > 0 && k < unit[(i - 1) / 2]; ++k) scale *= points[i] < 0 ? -points[i] : points[i];
      double power = scale / value;
      for (int t = 0; t < kTaps; ++t, power *= points[i]) G[i][t] = power;
      power = 1 / scale;
      for (int k = 0; k < kOutputs; ++k, power *= points[i]) A[k][i] = float(power);
    }
  }
};

/// Where things lie, with room for the last vector of a plane:
/// x [row][column][C], the padded image; h [row][column point][plane]; v [row point][row phase][column point][plane];
/// a plane is [tile][column phase][C].
struct Conv2dWinogradTiles {
  int64_t tiles;           // in a row of them
  int64_t stride, depth;   // depth: stride * C
  int64_t x_pitch_floats;  // from one row to the next
  int64_t plane_floats;

  Conv2dWinogradTiles(int64_t Q, int64_t stride, int64_t C)
      : tiles((Q + Winograd4x4::kOutputs - 1) / Winograd4x4::kOutputs),
        stride(stride),
        depth(stride * C),
        x_pitch_floats((tiles * Winograd4x4::kOutputs + Winograd4x4::kTaps - 1) * depth),
        plane_floats((tiles * depth + 2 * kMostLanes - 1) / kMostLanes * kMostLanes) {}
  /// Rows of the padded image that `rows` rows of output see, in whole tiles.
  int64_t input_rows(int64_t rows) const {
    return ((rows + Winograd4x4::kOutputs - 1) / Winograd4x4::kOutputs * Winograd4x4::kOutputs + Winograd4x4::kTaps - 1) * stride;
  }
  int64_t x_floats(int64_t rows) const { return rows * x_pitch_floats + kMostLanes; }
  int64_t row_floats() const { return Winograd4x4::kPoints * plane_floats; }
  int64_t v_floats() const { return Winograd4x4::kPoints * stride * row_floats(); }
  /// Tiles whose transformed gradients are kept at a time, for one block of channels. An odd number: the points of a tile shall
  /// not share a few sets of the cache.
  enum { kGroup = 29 };

 private:
  enum { kMostLanes = 16 };
};

struct Conv2dWinogradRow {          // one row of tiles
  const float* h;                   // from the first row on that it sees
  float* v;                         // scratch
  const float* u;                   // [padded K / block][row point][column point][row phase][column phase][C][block]
  int64_t row_zeros, column_zeros;  // of the filter padded in front to 4 * stride: phases without a product at point 0
  float* y;                         // [rows][Q,K]
  int64_t rows, Q, K;               // rows <= 4
};

struct Conv2dWinogradWeightRow {  // the same for the gradient
  const float* h;
  float *v, *m;  // scratch; m [row points of a pair][column point][kGroup][block]
  float* sums;   // as u, to add to
  int64_t row_zeros, column_zeros;
  const float* dy;       // [rows][Q,K]
  const float* next_dy;  // of the row of tiles that comes next, or anything: it is only fetched into a cache
  int64_t rows, Q, K;
};

struct Conv2dWinogradKernel {
  const char* name;
  int64_t block;  // output channels that lie side by side in u; K is padded with zeros to a multiple
  void (*transform)(const Conv2dWinogradTiles& tiles, float* h, const float* x, int64_t rows);  // h = x B^T
  void (*run)(const Conv2dWinogradTiles& tiles, const Conv2dWinogradRow& row);
  void (*run_weight)(const Conv2dWinogradTiles& tiles, const Conv2dWinogradWeightRow& row);
};
extern const Conv2dWinogradKernel conv2d_winograd_avx2, conv2d_winograd_avx512;

}  // namespace bireal::cpu
