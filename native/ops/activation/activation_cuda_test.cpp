#include "ops/activation/activation.h"
#include "testing/cuda_testing.h"

namespace bireal {
using namespace testing;

class ActivationCuda : public CudaTest {};

TEST_F(ActivationCuda, EveryKindIsRefRoundedOnceAlsoInPlace) {
  for (int64_t count : {1, 255, 256, 1023, 1024, 1025, 3000})
    for (DType type : kStoredTypes)
      for (ActivationKind kind :
           {ActivationKind::kRelu, ActivationKind::kLeakyClip, ActivationKind::kClip, ActivationKind::kIdentity}) {
        SCOPED_TRACE("count" + std::to_string(count) + " " + cuda::type_suffix(type) + " kind " + std::to_string(int(kind)));
        const std::vector<float> x = as_stored(type, nasty_floats(count, 41, true)),
                                 dy = as_stored(type, nasty_floats(count, 42, true)),
                                 shortcut = as_stored(type, nasty_floats(count, 43, true));
        std::vector<float> y(x.size()), dx(x.size()), joined(x.size());
        ref::activation_fwd(y.data(), x.data(), count, kind, 0.1f);
        ref::activation_bwd(dx.data(), dy.data(), x.data(), nullptr, count, kind, 0.1f);
        ref::activation_bwd(joined.data(), dy.data(), x.data(), shortcut.data(), count, kind, 0.1f);
        in_both_orders([&] {
          StoredArray gpu_x(type, x), gpu_dy(type, dy), gpu_shortcut(type, shortcut), gpu_y(type, count), gpu_dx(type, count);
          cuda::activation_fwd(cuda_device(), gpu_y.data(), gpu_x.data(), type, count, kind, 0.1f, cuda_stream());
          cuda::activation_bwd(cuda_device(), gpu_dx.data(), gpu_dy.data(), gpu_x.data(), nullptr, type, count, kind, 0.1f,
                               cuda_stream());
          expect_same_or_nan(gpu_y.values(), as_stored(type, y), "y");
          expect_same_or_nan(gpu_dx.values(), as_stored(type, dx), "dx");
          cuda::activation_bwd(cuda_device(), gpu_shortcut.data(), gpu_dy.data(), gpu_x.data(), gpu_shortcut.data(), type, count,
                               kind, 0.1f, cuda_stream());
          expect_same_or_nan(gpu_shortcut.values(), as_stored(type, joined), "dx over the shortcut");
          cuda::activation_bwd(cuda_device(), gpu_dy.data(), gpu_dy.data(), gpu_x.data(), nullptr, type, count, kind, 0.1f,
                               cuda_stream());
          cuda::activation_fwd(cuda_device(), gpu_x.data(), gpu_x.data(), type, count, kind, 0.1f, cuda_stream());
          expect_same_or_nan(gpu_dy.values(), as_stored(type, dx), "dx in place");
          expect_same_or_nan(gpu_x.values(), as_stored(type, y), "y in place");
        });
      }
}

}  // namespace bireal
