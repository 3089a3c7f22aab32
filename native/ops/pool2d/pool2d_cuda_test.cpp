#include "ops/pool2d/pool2d.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

namespace {
struct Window {
  int64_t n, H, W, C, R, S, stride, pad;
  Conv2dShape shape() const { return {n, H, W, C, C, R, S, stride, pad}; }
};
}  // namespace

// The networks' windows, overlapping and gapped ones, odd sizes with unused last rows, one row, 225 taps; channels around a word.
static const std::vector<Window>& windows() {
  static const std::vector<Window> list = {{2, 8, 8, 32, 3, 3, 2, 1}, {1, 7, 9, 33, 3, 3, 2, 1},   {3, 6, 4, 3, 2, 2, 2, 0},
                                           {2, 7, 5, 64, 2, 2, 2, 0}, {3, 7, 7, 65, 7, 7, 7, 0},   {1, 1, 1, 1, 1, 1, 1, 0},
                                           {2, 5, 6, 31, 3, 2, 1, 1}, {1, 9, 8, 8, 2, 1, 3, 0},    {1, 1, 40, 2, 1, 5, 2, 0},
                                           {2, 4, 4, 5, 4, 4, 1, 3},  {1, 17, 15, 4, 15, 15, 2, 7}};
  return list;
}

namespace {
class PoolCuda : public CudaTest {
 protected:
  template <class Body>
  static void for_windows_and_types(const Body& body) {
    for (const Window& k : windows())
      for (DType type : kStoredTypes) {
        SCOPED_TRACE(k.shape().text() + " " + cuda::type_suffix(type));
        in_both_orders([&] { body(k.shape(), k.n, type); });
      }
  }
};
using AvgPoolFwdCuda = PoolCuda;
using AvgPoolBwdCuda = PoolCuda;
}  // namespace

TEST_F(AvgPoolFwdCuda, MeansAreThoseOfRefRoundedOnce) {
  for_windows_and_types([&](const Conv2dShape& shape, int64_t n, DType type) {
    const std::vector<float> x = as_stored(type, nasty_floats(shape.input_count(n), 24, true));
    std::vector<float> y(size_t(shape.output_count(n)));
    ref::avg_pool_fwd(y.data(), x.data(), shape, n);
    StoredArray gpu_x(type, x), gpu_y(type, int64_t(y.size()));
    cuda::avg_pool_fwd(cuda_device(), gpu_y.data(), gpu_x.data(), type, shape, n, cuda_stream());
    expect_same_or_nan(gpu_y.values(), as_stored(type, y), "y");
  });
}

TEST_F(AvgPoolBwdCuda, GradientsAreThoseOfRefRoundedOnce) {
  for_windows_and_types([&](const Conv2dShape& shape, int64_t n, DType type) {
    const std::vector<float> dy = as_stored(type, nasty_floats(shape.output_count(n), 25, true));
    std::vector<float> dx(size_t(shape.input_count(n)));
    ref::avg_pool_bwd(dx.data(), dy.data(), shape, n);
    StoredArray gpu_dy(type, dy), gpu_dx(type, int64_t(dx.size()));
    cuda::avg_pool_bwd(cuda_device(), gpu_dx.data(), gpu_dy.data(), type, shape, n, cuda_stream());
    expect_same_or_nan(gpu_dx.values(), as_stored(type, dx), "dx");
  });
}

TEST_F(AvgPoolFwdCuda, RefusesMorePixelsThanALaunchCounts) {
  const Conv2dShape shape{1 << 20, 64, 64, 1, 1, 1, 1, 1, 0};
  try {
    cuda::avg_pool_fwd(cuda_device(), nullptr, nullptr, DType::kF16, shape, shape.N, cuda_stream());
    FAIL() << "accepted";
  } catch (const InvalidArgument& e) {
    EXPECT_STREQ(e.what(),
                 "avg_pool_fwd: 1048576 images of 4096 pixels are too many for one launch (2^31 pixels); use a smaller batch");
  }
}

}  // namespace bireal
