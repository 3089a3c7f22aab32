#include "ops/sign_pack/sign_pack.h"

#include "testing/testing.h"

namespace bireal {
using namespace testing;

TEST(SignPackFwd, HandWorkedWord) {
  // -0, NaN and +0 are +1 (bit 0); only x < 0 sets a bit. PyTorch's ternary sign would give 0 for the zeros.
  float nan = std::numeric_limits<float>::quiet_NaN();
  Guarded<float> x(std::vector<float>{-1.0f, 1.0f, -0.0f, 0.0f, nan, -nan, -1e-42f, -std::numeric_limits<float>::infinity()});
  Guarded<word_t> bits(1);
  ref::sign_pack_fwd(bits.data(), x.data(), nullptr, 1, 8);
  EXPECT_EQ(bits[0], 0b11000001u);
}

TEST(SignPackFwd, EveryIsaMatchesRefAndWritesTailBits) {
  for (auto& context : all_contexts())
    for (int64_t C : nasty_channels())
      for (int64_t rows : {1, 7, 2000})
        for (bool with_threshold : {false, true}) {
          SCOPED_TRACE(context_name(*context) + " rows" + std::to_string(rows) + "_C" + std::to_string(C));
          Guarded<float> x(nasty_floats(rows * C, 1, true)), threshold(nasty_floats(C, 2));
          Guarded<word_t> expected(rows * word_count(C)), got(rows * word_count(C));
          const float* t = with_threshold ? threshold.data() : nullptr;
          ref::sign_pack_fwd(expected.data(), x.data(), t, rows, C);
          cpu::sign_pack_fwd(*context, got.data(), x.data(), t, rows, C);
          expect_same_bits(got, expected, "bits");
          got.expect_guards("bits");
          for (int64_t i = 0; i < rows; ++i)
            ASSERT_EQ(got[(i + 1) * word_count(C) - 1] & ~valid_mask(C, word_count(C) - 1), 0u) << "tail of row " << i;
        }
}

TEST(SignUnpackFwd, HandWorkedWord) {
  Guarded<word_t> bits(std::vector<word_t>{0b101u, 0b1u});
  Guarded<float> x(6);
  ref::sign_unpack_fwd(x.data(), bits.data(), 2, 3);
  EXPECT_EQ(x.values(), (std::vector<float>{-1, 1, -1, -1, 1, 1}));
}

TEST(SignUnpackFwd, EveryIsaMatchesRefAndUndoesPacking) {
  for (auto& context : all_contexts())
    for (int64_t C : nasty_channels())
      for (int64_t rows : {1, 7, 2000}) {
        SCOPED_TRACE(context_name(*context) + " rows" + std::to_string(rows) + "_C" + std::to_string(C));
        Guarded<float> x(nasty_floats(rows * C, 1, true)), expected(rows * C), got(rows * C);
        Guarded<word_t> bits(rows * word_count(C)), again(rows * word_count(C));
        ref::sign_pack_fwd(bits.data(), x.data(), nullptr, rows, C);
        ref::sign_unpack_fwd(expected.data(), bits.data(), rows, C);
        cpu::sign_unpack_fwd(*context, got.data(), bits.data(), rows, C);
        expect_same_bits(got, expected, "x");
        got.expect_guards("x");
        ref::sign_pack_fwd(again.data(), got.data(), nullptr, rows, C);
        expect_same_bits(again, bits, "packed again");
      }
}

}  // namespace bireal
