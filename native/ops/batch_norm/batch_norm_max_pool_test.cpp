#include "ops/batch_norm/batch_norm_max_pool.h"

#include "testing/testing.h"

namespace bireal {
using namespace testing;

namespace {

struct Window {
  int64_t n, H, W, R, S, stride, pad;
};

// The stem's window, overlapping and gapped ones, odd sizes with unused last rows, one row, mostly padding.
constexpr Window kWindows[] = {{2, 8, 8, 3, 3, 2, 1},  {1, 7, 9, 3, 3, 2, 1}, {2, 17, 33, 3, 3, 2, 1},
                               {1, 1, 1, 1, 1, 1, 0},  {2, 5, 6, 3, 2, 1, 1}, {1, 9, 8, 2, 1, 3, 0},
                               {1, 1, 40, 1, 5, 2, 0}, {2, 4, 4, 4, 4, 1, 3}, {1, 9, 7, 7, 5, 2, 3}};
constexpr int64_t kChannels[] = {1, 3, 8, 15, 16, 31, 32, 33, 40, 63, 64, 65};

// Scales of both signs and 0, with shifts; -0, and scales so small that different v give the same u.
std::vector<float> affine_of(int64_t C) {
  std::vector<float> affine = random_floats(2 * C, 71, 1.5f);
  for (int64_t c = 0; c < C; ++c) {
    if (c % 5 == 1) affine[size_t(c)] = 0;
    if (c % 5 == 2) affine[size_t(c)] = -std::fabs(affine[size_t(c)]);
    if (c % 11 == 6) affine[size_t(c)] = 1e-9f * affine[size_t(c)], affine[size_t(C + c)] = 1;
    if (c % 13 == 7) affine[size_t(c)] = -0.0f, affine[size_t(C + c)] = 0;
  }
  return affine;
}

}  // namespace

TEST(BatchNormMaxPoolFwd, HandWorkedTheMaximumIsOneOfTheNormalisedValues) {
  // 1x3 windows over one row: v rises, so scale 1 takes the last, -1 the first, 0 the first; with scale 2^-30 and shift 1 all
  // three round to the same u, and the first wins although its v is the least.
  const Conv2dShape shape{1, 1, 3, 4, 4, 1, 3, 1, 0};
  const std::vector<float> v = {1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  const std::vector<float> affine = {1, -1, 0, 0x1p-30f, 0.5f, 0.5f, -2, 1};
  for (auto& context : all_contexts()) {
    SCOPED_TRACE(context_name(*context));
    float y[4];
    uint8_t index[4];
    word_t bits[1];
    cpu::batch_norm_max_pool_fwd(*context, y, index, bits, v.data(), affine.data(), nullptr, shape, 1);
    EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{3.5f, -0.5f, -2, 1}));
    EXPECT_EQ(std::vector<int>(index, index + 4), (std::vector<int>{2, 0, 0, 0}));
    EXPECT_EQ(bits[0], 0b0110u);
  }
}

TEST(BatchNormMaxPoolFwd, EveryIsaMatchesRefForValuesIndicesAndBits) {
  for (auto& context : all_contexts())
    for (const Window& k : kWindows)
      for (int64_t C : kChannels)
        for (int with : {0, 1, 2}) {  // no bits, bits, bits behind a threshold
          const Conv2dShape shape{k.n + 1, k.H, k.W, C, C, k.R, k.S, k.stride, k.pad};
          SCOPED_TRACE(context_name(*context) + " " + shape.text() + " " + std::to_string(with));
          Guarded<float> v(nasty_floats(shape.input_count(k.n), 41, true)), affine(affine_of(C));
          Guarded<float> threshold(random_floats(C, 42));
          const int64_t outputs = shape.output_count(k.n), words = outputs / C * word_count(C);
          Guarded<float> expected(outputs), got(outputs);
          Guarded<uint8_t> expected_index(outputs), got_index(outputs);
          Guarded<word_t> expected_bits(words), got_bits(words);
          const float* t = with == 2 ? threshold.data() : nullptr;
          ref::batch_norm_max_pool_fwd(expected.data(), expected_index.data(), with ? expected_bits.data() : nullptr, v.data(),
                                       affine.data(), t, shape, k.n);
          cpu::batch_norm_max_pool_fwd(*context, got.data(), got_index.data(), with ? got_bits.data() : nullptr, v.data(),
                                       affine.data(), t, shape, k.n);
          for (int64_t i = 0; i < outputs; ++i)
            ASSERT_TRUE(std::memcmp(&got[i], &expected[i], 4) == 0 || (std::isnan(got[i]) && std::isnan(expected[i])))
                << "y[" << i << "]: got " << got[i] << ", expected " << expected[i];
          got.expect_guards("y");
          expect_same_bits(got_index, expected_index, "index");
          got_index.expect_guards("index");
          expect_same_bits(got_bits, expected_bits, "bits");
          got_bits.expect_guards("bits");
        }
}

}  // namespace bireal
