#include "ops/batch_norm/batch_norm_max_pool.h"

#include "ops/batch_norm/batch_norm.h"
#include "ops/pool2d/pool2d.h"
#include "ops/sign_pack/sign_pack.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

namespace {

struct Window {
  int64_t n, H, W, C, R, S, stride, pad;
  Conv2dShape shape() const { return {n, H, W, C, C, R, S, stride, pad}; }
};

// The stem's window on sizes around the tiles (8 pooled, 16 input pixels), and odd ones: overlapping, gapped, unused last rows,
// one row, windows of which only a smaller tile fits.
const std::vector<Window>& windows() {
  static const std::vector<Window> list = {{2, 16, 16, 64, 3, 3, 2, 1}, {1, 33, 17, 33, 3, 3, 2, 1}, {1, 34, 35, 31, 3, 3, 2, 1},
                                           {3, 1, 1, 1, 1, 1, 1, 0},    {2, 5, 6, 65, 3, 2, 1, 1},   {1, 19, 8, 8, 2, 1, 3, 0},
                                           {1, 1, 40, 2, 1, 5, 2, 0},   {2, 4, 4, 5, 4, 4, 1, 3},    {1, 37, 33, 4, 15, 15, 2, 7},
                                           {2, 18, 20, 3, 7, 5, 3, 2}};
  return list;
}

// Scales of both signs and 0, with shifts; -0 and NaN at fixed channels of the larger layers.
std::vector<float> affine_of(int64_t C) {
  std::vector<float> affine = random_floats(2 * C, 71, 1.5f);
  for (int64_t c = 0; c < C; ++c) {
    if (c % 5 == 1) affine[size_t(c)] = 0;
    if (c % 5 == 2) affine[size_t(c)] = -std::fabs(affine[size_t(c)]);
    if (c % 11 == 6) affine[size_t(c)] = 1e-9f * affine[size_t(c)], affine[size_t(C + c)] = 1;  // different v, equal u
    if (c % 13 == 7) affine[size_t(c)] = -0.0f, affine[size_t(C + c)] = 0;
  }
  return affine;
}

template <class Body>
void for_windows_and_types(const Body& body) {
  for (const Window& k : windows())
    for (DType type : kStoredTypes) {
      SCOPED_TRACE(k.shape().text() + " " + cuda::type_suffix(type));
      cuda::batch_norm_max_pool_check(k.shape(), type);
      body(k.shape(), k.n, type);
    }
}

}  // namespace

TEST(BatchNormMaxPoolFwd, HandWorkedTiesAreThoseOfTheRoundedValuesAndScaleZeroTakesTheFirst) {
  // 1x3 windows over one row: v rises, so scale 1 takes the last, -1 the first, 0 the first; with scale 2^-30 and shift 1 all
  // three round to the same u, and the first wins although its v is the least.
  const Conv2dShape shape{1, 1, 3, 4, 4, 1, 3, 1, 0};
  const std::vector<float> v = {1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  const std::vector<float> affine = {1, -1, 0, 0x1p-30f, 0.5f, 0.5f, -2, 1};
  float y[4];
  uint8_t index[4];
  word_t bits[1];
  ref::batch_norm_max_pool_fwd(y, index, bits, v.data(), affine.data(), nullptr, shape, 1);
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{3.5f, -0.5f, -2, 1}));
  EXPECT_EQ(std::vector<uint8_t>(index, index + 4), (std::vector<uint8_t>{2, 0, 0, 0}));
  EXPECT_EQ(bits[0], 0b0110u);
}

class BatchNormMaxPoolFwdCuda : public CudaTest {};
class BatchNormMaxPoolBwdCuda : public CudaTest {};

TEST_F(BatchNormMaxPoolFwdCuda, ValuesIndicesAndBitsAreThoseOfTheUnfusedOps) {
  for_windows_and_types([&](const Conv2dShape& shape, int64_t n, DType type) {
    const int64_t C = shape.C, outputs = shape.output_count(n), pixels = outputs / C;
    const std::vector<float> v = as_stored(type, nasty_floats(shape.input_count(n), 72, true)), affine = affine_of(C);
    const std::vector<float> threshold = random_floats(C, 73);
    for (bool with_threshold : {false, true}) {
      SCOPED_TRACE(with_threshold ? "threshold" : "no threshold");
      std::vector<float> y(static_cast<size_t>(outputs));
      std::vector<uint8_t> index(y.size());
      std::vector<word_t> bits(size_t(pixels * word_count(C)));
      ref::batch_norm_max_pool_fwd(y.data(), index.data(), nullptr, v.data(), affine.data(), nullptr, shape, n);
      y = as_stored(type, y);
      ref::sign_pack_fwd(bits.data(), y.data(), with_threshold ? threshold.data() : nullptr, pixels, C);
      in_both_orders([&] {
        StoredArray gpu_v(type, v), gpu_y(type, outputs), y_alone(type, outputs);
        DeviceArray<float> gpu_affine(affine), gpu_threshold(threshold);
        DeviceArray<uint8_t> gpu_index(outputs), index_alone(outputs);
        DeviceArray<word_t> gpu_bits(int64_t(bits.size()));
        const float* threshold_address = with_threshold ? gpu_threshold.data() : nullptr;
        cuda::batch_norm_max_pool_fwd(cuda_device(), gpu_y.data(), gpu_index.data(), gpu_bits.data(), gpu_v.data(), type,
                                      gpu_affine.data(), threshold_address, shape, n, cuda_stream());
        cuda::batch_norm_max_pool_fwd(cuda_device(), y_alone.data(), index_alone.data(), nullptr, gpu_v.data(), type,
                                      gpu_affine.data(), threshold_address, shape, n, cuda_stream());
        expect_same_or_nan(gpu_y.values(), y, "y");
        expect_same_bits(gpu_index.values(), Guarded<uint8_t>(index), "index");
        expect_same_bits(gpu_bits.values(), Guarded<word_t>(bits), "bits");
        expect_same_or_nan(y_alone.values(), y, "y without bits");
        expect_same_bits(index_alone.values(), Guarded<uint8_t>(index), "index without bits");
      });
    }
  });
}

TEST_F(BatchNormMaxPoolBwdCuda, SumsAreWithinTheirBoundAndGradientsAreThoseOfTheUnfusedOps) {
  for_windows_and_types([&](const Conv2dShape& shape, int64_t n, DType type) {
    const int64_t C = shape.C, inputs = shape.input_count(n), outputs = shape.output_count(n);
    // Below 1024, so that nothing of fp16 is infinite.
    auto small = [&](std::vector<float> values) {
      for (float& x : values) x = std::fmod(x, 1024.0f);
      return as_stored(type, values);
    };
    const std::vector<float> v = small(nasty_floats(inputs, 74)), dy = small(nasty_floats(outputs, 75));
    const std::vector<float> affine = affine_of(C), coefficients = random_floats(3 * C, 76);
    std::vector<float> y(static_cast<size_t>(outputs)), du(static_cast<size_t>(inputs)), dz(du.size());
    std::vector<uint8_t> index(y.size());
    std::vector<double> sums(size_t(2 * C)), magnitude(sums.size());
    ref::batch_norm_max_pool_fwd(y.data(), index.data(), nullptr, v.data(), affine.data(), nullptr, shape, n);
    ref::batch_norm_max_pool_bwd_sums(sums.data(), dy.data(), index.data(), v.data(), shape, n);
    ref::batch_norm_max_pool_bwd_apply(dz.data(), dy.data(), index.data(), v.data(), coefficients.data(), shape, n);
    ref::max_pool_bwd(du.data(), dy.data(), index.data(), shape, n);
    for (size_t i = 0; i < du.size(); ++i) {
      magnitude[i % size_t(C)] += std::fabs(double(du[i]));
      magnitude[size_t(C) + i % size_t(C)] += std::fabs(double(du[i]) * double(v[i]));
    }
    std::vector<double> first;
    in_both_orders([&] {
      StoredArray gpu_v(type, v), gpu_dy(type, dy), gpu_dz(type, inputs);
      DeviceArray<uint8_t> gpu_index(index);
      DeviceArray<float> gpu_coefficients(coefficients);
      DeviceArray<double> gpu_sums(2 * C), workspace(cuda::batch_norm_max_pool_workspace_bytes(shape, type) / 8);
      cuda::batch_norm_max_pool_bwd_sums(cuda_device(), gpu_sums.data(), gpu_dy.data(), gpu_index.data(), gpu_v.data(), type,
                                         shape, n, workspace.data(), cuda_stream());
      cuda::batch_norm_max_pool_bwd_apply(cuda_device(), gpu_dz.data(), gpu_dy.data(), gpu_index.data(), gpu_v.data(), type,
                                          gpu_coefficients.data(), shape, n, cuda_stream());
      const std::vector<double> got = gpu_sums.values().values();
      // Both sums of n*H*W doubles, each in its own order.
      for (size_t j = 0; j < sums.size(); ++j)
        ASSERT_NEAR(got[j], sums[j], double(n * shape.H * shape.W) * 0x1p-53 * magnitude[j]) << "sums[" << j << "]";
      if (first.empty()) first = got;
      expect_same_bits(Guarded<double>(got), Guarded<double>(first), "sums in the other order of threads");
      expect_same_or_nan(gpu_dz.values(), as_stored(type, dz), "dz");
    });
  });
}

TEST_F(BatchNormMaxPoolBwdCuda, SumsOfMoreTilesThanSlices) {
  // 1200 images of one tile: slices of one and of two tiles. Whole numbers, so the sums are exact.
  const Conv2dShape shape{1200, 2, 2, 1, 1, 2, 2, 1, 0};
  std::vector<float> v(4800), dy(1200);
  for (size_t i = 0; i < v.size(); ++i) v[i] = float(i % 7);
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = float(i % 5);
  std::vector<uint8_t> index(1200, 3);
  std::vector<double> sums(2);
  ref::batch_norm_max_pool_bwd_sums(sums.data(), dy.data(), index.data(), v.data(), shape, 1200);
  DeviceArray<float> gpu_v(v), gpu_dy(dy);
  DeviceArray<uint8_t> gpu_index(index);
  DeviceArray<double> gpu_sums(2), workspace(cuda::batch_norm_max_pool_workspace_bytes(shape, DType::kF32) / 8);
  EXPECT_EQ(workspace.bytes(), 2 * 1024 * 8);
  cuda::batch_norm_max_pool_bwd_sums(cuda_device(), gpu_sums.data(), gpu_dy.data(), gpu_index.data(), gpu_v.data(), DType::kF32,
                                     shape, 1200, workspace.data(), cuda_stream());
  EXPECT_EQ(gpu_sums.values().values(), sums);
}

TEST(BatchNormMaxPoolCheck, RefusesAWindowThatNoTileHoldsAndSaysWhatToDo) {
  try {
    cuda::batch_norm_max_pool_check({1, 40, 40, 8, 8, 1, 40, 1, 0}, DType::kF32);
    FAIL() << "accepted";
  } catch (const InvalidArgument& e) {
    EXPECT_STREQ(e.what(),
                 "batch_norm_max_pool_fwd: the windows of N1_H40_W40_C8_K8_R1_S40_st1_pad0 do not fit shared memory; use "
                 "batch_norm_apply, max_pool and sign_pack one after the other");
  }
}

}  // namespace bireal
