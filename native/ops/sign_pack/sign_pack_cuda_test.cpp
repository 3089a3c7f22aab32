#include "ops/sign_pack/sign_pack.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class SignPackCuda : public CudaTest {};

TEST_F(SignPackCuda, EveryStoredTypeMatchesRefAndWritesTailBits) {
  in_both_orders([] {
    for (DType type : kStoredTypes)
      for (int64_t C : nasty_channels())
        for (int64_t rows : {1, 7, 300})
          for (bool with_threshold : {false, true}) {
            SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_rows" + std::to_string(rows) + "_C" + std::to_string(C));
            const std::vector<float> x = as_stored(type, nasty_floats(rows * C, 1, true)), t = nasty_floats(C, 2);
            Guarded<word_t> expected(rows * word_count(C));
            ref::sign_pack_fwd(expected.data(), x.data(), with_threshold ? t.data() : nullptr, rows, C);
            StoredArray device_x(type, x);
            DeviceArray<float> threshold(t);
            DeviceArray<word_t> bits(expected.count());
            cuda::sign_pack_fwd(cuda_device(), bits.data(), device_x.data(), type, with_threshold ? threshold.data() : nullptr,
                                rows, C, cuda_stream());
            expect_same_bits(bits.values(), expected, "bits");
          }
  });
}

TEST_F(SignPackCuda, UnpackMatchesRefInEveryStoredType) {
  std::vector<int64_t> channels = nasty_channels();
  channels.insert(channels.end(), {12, 40});  // multiples of four alone, and of eight but not of a word's 32
  in_both_orders([&] {
    for (DType type : kStoredTypes)
      for (int64_t C : channels)
        for (int64_t rows : {1, 7, 300}) {
          SCOPED_TRACE(std::string(cuda::type_suffix(type)) + "_rows" + std::to_string(rows) + "_C" + std::to_string(C));
          const std::vector<float> x = nasty_floats(rows * C, 1, true);
          Guarded<word_t> bits(rows * word_count(C));
          Guarded<float> expected(rows * C);
          ref::sign_pack_fwd(bits.data(), x.data(), nullptr, rows, C);
          ref::sign_unpack_fwd(expected.data(), bits.data(), rows, C);
          DeviceArray<word_t> device_bits(bits.values());
          StoredArray unpacked(type, rows * C);
          cuda::sign_unpack_fwd(cuda_device(), unpacked.data(), type, device_bits.data(), rows, C, cuda_stream());
          if (rows == 300 && C % 32 == 0 && type != DType::kF32) expect_coalesced();  // 8 floats are two stores
          expect_same_bits(unpacked.values(), expected, "x");
        }
  });
}

}  // namespace bireal
