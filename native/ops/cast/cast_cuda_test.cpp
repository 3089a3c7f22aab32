#include "ops/cast/cast.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class CastCuda : public CudaTest {};

TEST_F(CastCuda, RoundsOnceAndAddsInFloat32) {
  for (int64_t count : {1, 255, 256, 1023, 1024, 1025, 3000})
    for (DType type : kStoredTypes) {
      SCOPED_TRACE("count" + std::to_string(count) + " " + cuda::type_suffix(type));
      const std::vector<float> x = nasty_floats(count, 51, true), stored = as_stored(type, x),
                               before = nasty_floats(count, 52, true);
      std::vector<float> added(x.size());
      for (size_t i = 0; i < x.size(); ++i) added[i] = before[i] + stored[i];
      in_both_orders([&] {
        StoredArray wide(DType::kF32, x), narrow(type, count), back(DType::kF32, count), sum(DType::kF32, before);
        cuda::cast_narrow(cuda_device(), narrow.data(), type, static_cast<const float*>(wide.data()), count, cuda_stream());
        expect_same_or_nan(narrow.values(), stored, "narrow");
        cuda::cast_widen(cuda_device(), static_cast<float*>(back.data()), narrow.data(), type, count, GradMode::kOverwrite,
                         cuda_stream());
        expect_same_or_nan(back.values(), stored, "widen");
        cuda::cast_widen(cuda_device(), static_cast<float*>(sum.data()), narrow.data(), type, count, GradMode::kAccumulate,
                         cuda_stream());
        expect_same_or_nan(sum.values(), added, "widen and add");
      });
    }
}

}  // namespace bireal
