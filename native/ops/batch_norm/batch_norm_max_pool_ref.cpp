#include <vector>

#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/pool2d/pool2d.h"
#include "ops/sign_pack/sign_pack.h"

namespace bireal::ref {

void batch_norm_max_pool_fwd(float* y, uint8_t* index, word_t* bits, const float* v, const float* affine, const float* threshold,
                             const Conv2dShape& shape, int64_t n) {
  std::vector<float> normalised(size_t(shape.input_count(n)));
  batch_norm_apply(normalised.data(), nullptr, {v, DType::kF32, affine, nullptr, nullptr, nullptr}, n * shape.H * shape.W,
                   shape.C);
  max_pool_fwd(y, index, normalised.data(), shape, n);
  if (bits) sign_pack_fwd(bits, y, threshold, n * shape.P() * shape.Q(), shape.C);
}

void batch_norm_max_pool_bwd_sums(double* sums, const float* dy, const uint8_t* index, const float* v, const Conv2dShape& shape,
                                  int64_t n) {
  std::vector<float> du(size_t(shape.input_count(n)));
  max_pool_bwd(du.data(), dy, index, shape, n);
  batch_norm_bwd_sums(sums, du.data(), v, DType::kF32, n * shape.H * shape.W, shape.C);
}

void batch_norm_max_pool_bwd_apply(float* dz, const float* dy, const uint8_t* index, const float* v, const float* coefficients,
                                   const Conv2dShape& shape, int64_t n) {
  std::vector<float> du(size_t(shape.input_count(n)));
  max_pool_bwd(du.data(), dy, index, shape, n);
  batch_norm_bwd_apply(dz, du.data(), v, DType::kF32, coefficients, n * shape.H * shape.W, shape.C);
}

}  // namespace bireal::ref
