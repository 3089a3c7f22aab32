#include <cstring>

#include "cpu/context.h"
#include "ops/image/image.h"
#include "ops/image/image_rows.h"
#include "ops/image/image_rows_impl.h"

namespace bireal::cpu {

static void image_scale_bytes_scalar(float* x, const uint8_t* pixels, const float* scale, const float* shift, int64_t count) {
  image_scale_bytes_loop(x, pixels, scale, shift, count);
}

static ImageScaleBytes* select_scale_bytes(Isa isa) {
  if (isa >= Isa::kAvx512) return image_scale_bytes_avx512;
  if (isa >= Isa::kAvx2) return image_scale_bytes_avx2;
  return image_scale_bytes_scalar;
}

// A row is done in segments of whole pixels: the bytes are first laid out as the crop wants them (padding, mirror), then scaled
// with the constants repeated for each pixel of the segment, which vectorises for any C.
static constexpr int64_t kSegmentBytes = 256;

// Pixels [begin, end) of row h of image i, in the order of the output.
static void gather_pixels(uint8_t* segment, const uint8_t* image, const ImageCrop& crop, const ImageShape& shape, int64_t h,
                          int64_t begin, int64_t end) {
  int64_t C = shape.C, row = crop.top + h - shape.pad;
  std::memset(segment, 0, size_t((end - begin) * C));
  if (row < 0 || row >= shape.H0) return;
  const uint8_t* source = image + row * shape.W0 * C;
  if (crop.flip) {
    for (int64_t w = begin; w < end; ++w) {
      int64_t column = crop.left + shape.W - 1 - w - shape.pad;
      if (column < 0 || column >= shape.W0) continue;
      for (int64_t c = 0; c < C; ++c) segment[(w - begin) * C + c] = source[column * C + c];
    }
  } else {
    int64_t shift = crop.left - shape.pad;  // column = w + shift
    int64_t first = begin + shift < 0 ? -shift : begin, last = end + shift > shape.W0 ? shape.W0 - shift : end;
    if (first < last) std::memcpy(segment + (first - begin) * C, source + (first + shift) * C, size_t((last - first) * C));
  }
}

void image_normalize(Context& context, float* x, const uint8_t* pixels, const ImageCrop* crops, const double* mean,
                     const double* std, const ImageShape& shape, int64_t n) {
  shape.check_crops(crops, n);
  ImageScaleBytes* scale_bytes = select_scale_bytes(context.isa());
  int64_t C = shape.C, segment_pixels = kSegmentBytes / C;
  float scale[kSegmentBytes], shift[kSegmentBytes];
  for (int64_t j = 0; j < segment_pixels * C; ++j) {
    scale[j] = float(1 / (255 * std[j % C]));
    shift[j] = float(-mean[j % C] / std[j % C]);
  }
  context.rows(n * shape.H, shape.W * C * int64_t(sizeof(float)), [&](int64_t begin_row, int64_t end_row) {
    uint8_t segment[kSegmentBytes];
    for (int64_t row = begin_row; row < end_row; ++row) {
      int64_t i = row / shape.H;
      const uint8_t* image = pixels + i * shape.H0 * shape.W0 * C;
      for (int64_t begin = 0; begin < shape.W; begin += segment_pixels) {
        int64_t end = begin + segment_pixels < shape.W ? begin + segment_pixels : shape.W;
        gather_pixels(segment, image, crops[i], shape, row % shape.H, begin, end);
        scale_bytes(x + (row * shape.W + begin) * C, segment, scale, shift, (end - begin) * C);
      }
    }
  });
}

}  // namespace bireal::cpu
