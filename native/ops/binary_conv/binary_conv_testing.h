// Shapes, operands and bounds shared by the tests of binary_conv.
#pragma once
#include <cmath>
#include <vector>

#include "core/rng.h"
#include "ops/binary_conv/binary_conv.h"
#include "testing/testing.h"

namespace bireal::testing {

// Random packed rows [rows, Cw] with zero tails.
inline std::vector<word_t> random_bits(int64_t rows, int64_t C, uint64_t seed) {
  std::vector<word_t> bits(static_cast<size_t>(rows * word_count(C)));
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = word_t(splitmix64(seed, i)) & valid_mask(C, int64_t(i) % word_count(C));
  return bits;
}

inline std::vector<float> unpacked(const std::vector<word_t>& bits, int64_t C) {
  std::vector<float> values;
  for (size_t row = 0; row < bits.size() / size_t(word_count(C)); ++row)
    for (int64_t c = 0; c < C; ++c) values.push_back(float(bit_value(bits.data() + row * size_t(word_count(C)), c)));
  return values;
}

struct Operands {
  std::vector<word_t> x, w;
  Operands(const Conv2dShape& s, int64_t n, uint64_t seed)
      : x(random_bits(n * s.H * s.W, s.C, seed)), w(random_bits(s.K * s.taps(), s.C, seed + 1)) {}
};

// The kinds of trouble: tails of C and K, one-pixel sides, odd sides under stride 2, every border class, windows that hang over
// both sides, tasks of several images and of several row blocks, no padding, filters from 1x1 to 7x7, stride beyond the filter,
// runs of neighbours that no tile divides.
inline std::vector<Conv2dShape> nasty_shapes() {
  std::vector<Conv2dShape> shapes;
  for (int64_t C : nasty_channels()) shapes.push_back({2, 7, 5, C, 8, 3, 3, 1, 1});
  for (int64_t K : {1, 17, 33, 40, 64, 65, 96, 130}) shapes.push_back({2, 5, 6, 40, K, 3, 3, 1, 1});
  for (int64_t side : {1, 2, 3, 4, 8, 9})
    for (int64_t stride : {1, 2}) shapes.push_back({5, side, side, 65, 17, 3, 3, stride, 1});
  shapes.insert(shapes.end(), {{3, 1, 9, 33, 17, 3, 3, 1, 1},   {3, 9, 1, 33, 17, 3, 3, 2, 1},  {2, 40, 30, 31, 20, 3, 3, 1, 1},
                               {2, 31, 29, 32, 35, 3, 3, 2, 1}, {1, 4, 300, 32, 3, 3, 3, 1, 1}, {2, 7, 7, 33, 40, 1, 1, 1, 0},
                               {2, 9, 8, 64, 40, 1, 1, 2, 0},   {2, 9, 8, 64, 5, 1, 1, 3, 0},   {2, 6, 7, 33, 17, 3, 3, 1, 0},
                               {2, 7, 7, 33, 17, 3, 3, 2, 0},   {2, 9, 7, 33, 17, 5, 5, 1, 2},  {2, 9, 7, 33, 17, 5, 5, 2, 1},
                               {2, 11, 10, 33, 17, 7, 7, 2, 3}, {3, 2, 1, 33, 17, 7, 7, 1, 3},  {2, 5, 8, 33, 17, 1, 3, 1, 0},
                               {2, 5, 8, 33, 17, 3, 2, 1, 1},   {20, 3, 3, 70, 10, 3, 3, 1, 1}, {2, 4, 4, 600, 34, 3, 3, 1, 1},
                               {2, 7, 7, 40, 130, 3, 3, 1, 1},  {1, 7, 6, 33, 70, 3, 3, 1, 1},  {3, 6, 5, 260, 70, 3, 3, 1, 1},
                               {2, 9, 8, 300, 70, 3, 3, 2, 1},  {3, 6, 9, 33, 70, 5, 3, 1, 1}});
  return shapes;
}

// Shapes for the backward passes; the reference is slow, so fewer and smaller. Slices are N/16 images, rounded up: 35 images
// are 11 slices of 3 and a rest of 2.
inline std::vector<Conv2dShape> backward_shapes() {
  std::vector<Conv2dShape> shapes;
  for (int64_t C : nasty_channels()) shapes.push_back({2, 5, 4, C, 6, 3, 3, 1, 1});
  for (int64_t K : {1, 17, 40}) shapes.push_back({2, 5, 6, 33, K, 3, 3, 2, 1});
  shapes.insert(shapes.end(), {{35, 4, 4, 32, 16, 3, 3, 1, 1},
                               {3, 1, 9, 33, 17, 3, 3, 1, 1},
                               {3, 9, 1, 33, 17, 3, 3, 2, 1},
                               {2, 7, 7, 33, 17, 1, 1, 1, 0},
                               {2, 9, 8, 32, 17, 1, 1, 2, 0},
                               {2, 6, 7, 33, 17, 3, 3, 1, 0},
                               {2, 9, 7, 33, 17, 5, 5, 1, 2},
                               {2, 11, 10, 33, 17, 7, 7, 2, 3}});
  return shapes;
}

// The reference's gradient with the absolute values of all its terms, and how many terms there are: bounds are made of them.
// sum_terms[i] counts in double; dz and alpha may be any floats.
struct Bound {
  std::vector<double> magnitude, terms;
  explicit Bound(int64_t count) : magnitude(size_t(count), 0.0), terms(size_t(count), 0.0) {}
  void add(int64_t i, double value) { magnitude[size_t(i)] += std::fabs(value), terms[size_t(i)] += 1; }
  // (terms + 4) * 2^-24 * sum|terms|: each of terms - 1 additions and a few products rounds by at most 2^-24 of what is there.
  std::vector<double> values() const {
    std::vector<double> bound;
    for (size_t i = 0; i < terms.size(); ++i) bound.push_back((terms[i] + 4) * 0x1p-24 * magnitude[i]);
    return bound;
  }
};

template <class Body>
void for_each_pair(const Conv2dShape& s, int64_t n, const Body& body) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t p = 0; p < s.P(); ++p)
      for (int64_t q = 0; q < s.Q(); ++q)
        for (int64_t r = 0; r < s.R; ++r)
          for (int64_t t = 0; t < s.S; ++t) {
            int64_t h = p * s.stride + r - s.pad, w = q * s.stride + t - s.pad;
            if (h >= 0 && h < s.H && w >= 0 && w < s.W) body((i * s.H + h) * s.W + w, r * s.S + t, (i * s.P() + p) * s.Q() + q);
          }
}

}  // namespace bireal::testing
