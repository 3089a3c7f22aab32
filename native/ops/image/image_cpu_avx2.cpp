#include "ops/image/image_rows.h"
#include "ops/image/image_rows_impl.h"

namespace bireal::cpu {

void image_scale_bytes_avx2(float* x, const uint8_t* pixels, const float* scale, const float* shift, int64_t count) {
  image_scale_bytes_loop(x, pixels, scale, shift, count);
}

}  // namespace bireal::cpu
