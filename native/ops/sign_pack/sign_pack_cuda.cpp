#include "cuda/launch.h"
#include "ops/sign_pack/sign_pack.h"
#include "ops/sign_pack/sign_pack_params.h"

namespace bireal::cuda {

void sign_pack_fwd(const Device& device, word_t* bits, const void* x, DType x_type, const float* threshold, int64_t rows,
                   int64_t C, Stream stream) {
  const int64_t Cw = word_count(C), words = rows * Cw;
  SignPackParams p{bits, x, threshold, words, int32_t(C), int32_t(Cw)};
  launch(device, storage_kernel("sign_pack_fwd", x_type), LaunchShape(256, ceil_div(words, 256)), p, stream);
}

void sign_unpack_fwd(const Device& device, void* x, DType x_type, const word_t* bits, int64_t rows, int64_t C, Stream stream) {
  const int64_t items = rows * (C % 8 == 0 ? C / 8 : C);
  require(items < (int64_t(1) << 32) - 256, [&] {
    return "sign_unpack: " + std::to_string(rows) + " rows of " + std::to_string(C) + " channels are beyond 32-bit indices";
  });
  const SignUnpackParams p{x, bits, uint32_t(items), int32_t(C)};
  launch(device, storage_kernel("sign_unpack_fwd", x_type), LaunchShape(256, ceil_div(items, 256)), p, stream);
}

}  // namespace bireal::cuda
