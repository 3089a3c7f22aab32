#include "ops/batch_norm/batch_norm_max_pool.h"

#include "cuda/row_slices.h"
#include "ops/batch_norm/batch_norm.h"
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

// Of both signs, with 0, -0 and NaN.
std::vector<float> gamma_of(int64_t C) {
  std::vector<float> gamma = random_floats(C, 71);
  for (int64_t c = 0; c < C; ++c) {
    if (c % 5 == 1) gamma[size_t(c)] = 0;
    if (c % 5 == 2) gamma[size_t(c)] = -std::fabs(gamma[size_t(c)]);
    if (c % 13 == 7) gamma[size_t(c)] = -0.0f;
    if (c % 17 == 4) gamma[size_t(c)] = std::numeric_limits<float>::quiet_NaN();
  }
  return gamma;
}

// Below 1024, so that nothing of fp16 is infinite.
std::vector<float> small(DType type, std::vector<float> values) {
  for (float& x : values) x = std::fmod(x, 1024.0f);
  return as_stored(type, values);
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

class BatchNormMaxPoolFwdCuda : public CudaTest {};
class BatchNormMaxPoolBwdApplyCuda : public CudaTest {};

TEST_F(BatchNormMaxPoolFwdCuda, ValuesAndIndicesAreThoseOfRefForEverySignOfGamma) {
  for_windows_and_types([&](const Conv2dShape& shape, int64_t n, DType type) {
    const int64_t outputs = shape.output_count(n);
    const std::vector<float> v = as_stored(type, nasty_floats(shape.input_count(n), 72, true)), gamma = gamma_of(shape.C);
    std::vector<float> vmax(static_cast<size_t>(outputs));
    std::vector<uint8_t> index(vmax.size());
    ref::batch_norm_max_pool_fwd(vmax.data(), index.data(), nullptr, v.data(), gamma.data(), shape, n);
    in_both_orders([&] {
      StoredArray gpu_v(type, v), gpu_vmax(type, outputs);
      DeviceArray<float> gpu_gamma(gamma);
      DeviceArray<uint8_t> gpu_index(outputs);
      cuda::batch_norm_max_pool_fwd(cuda_device(), gpu_vmax.data(), gpu_index.data(), nullptr, gpu_v.data(), type,
                                    gpu_gamma.data(), shape, n, cuda_stream());
      expect_same_or_nan(gpu_vmax.values(), vmax, "vmax");
      expect_same_bits(gpu_index.values(), Guarded<uint8_t>(index), "index");
    });
  });
}

TEST_F(BatchNormMaxPoolFwdCuda, SumsAreThoseOfAllOfVWithinTheirBound) {
  for_windows_and_types([&](const Conv2dShape& shape, int64_t n, DType type) {
    const int64_t C = shape.C, outputs = shape.output_count(n), rows = n * shape.H * shape.W;
    const int64_t slices = cuda::row_slice_count(rows, C);
    const std::vector<float> v = small(type, nasty_floats(shape.input_count(n), 74)), gamma = gamma_of(C);
    std::vector<double> sums(size_t(2 * C)), magnitude(sums.size());
    ref::batch_norm_sums(sums.data(), v.data(), DType::kF32, rows, C);
    for (size_t i = 0; i < v.size(); ++i) {
      magnitude[i % size_t(C)] += std::fabs(double(v[i]));
      magnitude[size_t(C) + i % size_t(C)] += double(v[i]) * double(v[i]);
    }
    std::vector<double> first;
    in_both_orders([&] {
      StoredArray gpu_v(type, v), gpu_vmax(type, outputs);
      DeviceArray<float> gpu_gamma(gamma);
      DeviceArray<uint8_t> gpu_index(outputs);
      DeviceArray<double> gpu_sums(slices * 2 * C);
      cuda::batch_norm_max_pool_fwd(cuda_device(), gpu_vmax.data(), gpu_index.data(), gpu_sums.data(), gpu_v.data(), type,
                                    gpu_gamma.data(), shape, n, cuda_stream());
      const std::vector<double> partial = gpu_sums.values().values();
      const double error = double(rows) * 0x1p-53 + (type == DType::kF32 ? 0 : 0x1p-21);
      for (size_t j = 0; j < sums.size(); ++j) {
        double got = 0;
        for (int64_t slice = 0; slice < slices; ++slice) got += partial[size_t(slice * 2 * C) + j];
        ASSERT_NEAR(got, sums[j], error * magnitude[j]) << "sums[" << j << "]";
      }
      if (first.empty()) first = partial;
      expect_same_bits(Guarded<double>(partial), Guarded<double>(first), "sums in the other order of threads");
    });
  });
}

TEST_F(BatchNormMaxPoolBwdApplyCuda, GradientsAreThoseOfRefRoundedOnce) {
  for_windows_and_types([&](const Conv2dShape& shape, int64_t n, DType type) {
    const int64_t C = shape.C, inputs = shape.input_count(n), outputs = shape.output_count(n);
    const std::vector<float> v = small(type, nasty_floats(inputs, 74)), dy = small(type, nasty_floats(outputs, 75));
    const std::vector<float> gamma = gamma_of(C), coefficients = random_floats(3 * C, 76);
    std::vector<float> vmax(static_cast<size_t>(outputs)), dz(static_cast<size_t>(inputs));
    std::vector<uint8_t> index(vmax.size());
    ref::batch_norm_max_pool_fwd(vmax.data(), index.data(), nullptr, v.data(), gamma.data(), shape, n);
    ref::batch_norm_max_pool_bwd_apply(dz.data(), dy.data(), index.data(), v.data(), coefficients.data(), shape, n);
    in_both_orders([&] {
      StoredArray gpu_v(type, v), gpu_dy(type, dy), gpu_dz(type, inputs);
      DeviceArray<uint8_t> gpu_index(index);
      DeviceArray<float> gpu_coefficients(coefficients);
      cuda::batch_norm_max_pool_bwd_apply(cuda_device(), gpu_dz.data(), gpu_dy.data(), gpu_index.data(), gpu_v.data(), type,
                                          gpu_coefficients.data(), shape, n, cuda_stream());
      expect_same_or_nan(gpu_dz.values(), as_stored(type, dz), "dz");
    });
  });
}

TEST_F(BatchNormMaxPoolFwdCuda, SlicesOfSeveralTiles) {
  // 2100 images of one tile, 32 channels: 1024 slices of two and of three tiles. Whole numbers, so the sums are exact.
  const int64_t n = 2100, C = 32;
  const Conv2dShape shape{n, 6, 6, C, C, 3, 3, 2, 1};
  std::vector<float> v(size_t(n * 36 * C)), gamma(size_t(C), 1.0f), dy(size_t(n * 9 * C)), coefficients(size_t(3 * C), 1.0f);
  for (size_t i = 0; i < v.size(); ++i) v[i] = float(i % 7);
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = float(i % 5);
  std::vector<float> vmax(dy.size()), dz(v.size());
  std::vector<uint8_t> index(dy.size());
  std::vector<double> sums(size_t(2 * C)), got(sums.size());
  ref::batch_norm_max_pool_fwd(vmax.data(), index.data(), sums.data(), v.data(), gamma.data(), shape, n);
  ref::batch_norm_max_pool_bwd_apply(dz.data(), dy.data(), index.data(), v.data(), coefficients.data(), shape, n);
  const int64_t slices = cuda::row_slice_count(n * 36, C);
  EXPECT_EQ(slices, 1024);
  StoredArray gpu_v(DType::kF16, v), gpu_vmax(DType::kF16, n * 9 * C), gpu_dy(DType::kF16, dy), gpu_dz(DType::kF16, n * 36 * C);
  DeviceArray<float> gpu_gamma(gamma), gpu_coefficients(coefficients);
  DeviceArray<uint8_t> gpu_index(n * 9 * C);
  DeviceArray<double> gpu_sums(slices * 2 * C);
  cuda::batch_norm_max_pool_fwd(cuda_device(), gpu_vmax.data(), gpu_index.data(), gpu_sums.data(), gpu_v.data(), DType::kF16,
                                gpu_gamma.data(), shape, n, cuda_stream());
  cuda::batch_norm_max_pool_bwd_apply(cuda_device(), gpu_dz.data(), gpu_dy.data(), gpu_index.data(), gpu_v.data(), DType::kF16,
                                      gpu_coefficients.data(), shape, n, cuda_stream());
  const std::vector<double> partial = gpu_sums.values().values();
  for (size_t j = 0; j < partial.size(); ++j) got[j % got.size()] += partial[j];
  EXPECT_EQ(got, sums);
  expect_same_or_nan(gpu_vmax.values(), vmax, "vmax");
  expect_same_bits(gpu_index.values(), Guarded<uint8_t>(index), "index");
  expect_same_or_nan(gpu_dz.values(), dz, "dz");
}

TEST(BatchNormMaxPoolCheck, RefusesAWindowThatNoTileHoldsAndSaysWhatToDo) {
  try {
    cuda::batch_norm_max_pool_check({1, 40, 40, 8, 8, 1, 40, 1, 0}, DType::kF32);
    FAIL() << "accepted";
  } catch (const InvalidArgument& e) {
    EXPECT_STREQ(e.what(),
                 "batch_norm_max_pool_fwd: the windows of N1_H40_W40_C8_K8_R1_S40_st1_pad0 do not fit shared memory; use "
                 "smaller ones");
  }
}

}  // namespace bireal
