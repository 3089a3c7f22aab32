// image: a warp writes one row of one image, 8 rows a block. Limited by memory, 1 byte read and sizeof(T) written an element.
#include "cuda/warp.cuh"
#include "ops/image/image_params.h"

namespace bireal::cuda {

static constexpr int kThreads = 256;

// A crop that lies outside its image reads padding, never memory outside the pixels: the host has checked it, the device cannot.
template <class T>
__device__ __forceinline__ void image_normalize(const ImageParams& k) {
  __shared__ float scale[256], shift[256];
  for (int c = threadIdx.x; c < k.C; c += kThreads) {
    scale[c] = float(1 / (255 * k.std[c]));
    shift[c] = float(-k.mean[c] / k.std[c]);
  }
  __syncthreads();
  const uint32_t row_index = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (row_index >= k.rows) return;
  const int i = int(row_index / uint32_t(k.H)), h = int(row_index % uint32_t(k.H));
  const ImageCrop crop = k.crops[i];
  const int row = crop.top + h - k.pad;
  const uint8_t* source = k.pixels + (int64_t(i) * k.H0 + row) * k.W0 * k.C;
  T* x = static_cast<T*>(k.x) + int64_t(row_index) * k.W * k.C;
  for (int j = threadIdx.x % 32; j < k.W * k.C; j += 32) {
    const int w = j / k.C, c = j % k.C;
    const int column = crop.left + (crop.flip ? k.W - 1 - w : w) - k.pad;
    const bool inside = row >= 0 && row < k.H0 && column >= 0 && column < k.W0;
    const float pixel = inside ? float(source[column * k.C + c]) : 0.0f;
    x[j] = from_float<T>(fmaf(pixel, scale[c], shift[c]));
  }
}

BIREAL_STORAGE_ENTRIES(image_normalize, kThreads, ImageParams, image_normalize)

}  // namespace bireal::cuda
