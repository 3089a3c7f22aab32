#include <immintrin.h>

#include "ops/conv2d/conv2d_direct_impl.h"
#include "ops/conv2d/conv2d_winograd_impl.h"

namespace bireal::cpu {
namespace {

struct Avx512 {  // 24 of the 32 registers are sums
  using V = __m512;
  enum { kLanes = 16, kPixels = 12, kVectors = 2 };
  BIREAL_INLINE V zero() { return _mm512_setzero_ps(); }
  BIREAL_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
  BIREAL_INLINE V broadcast(const float* p) { return _mm512_set1_ps(*p); }
  BIREAL_INLINE V all(float value) { return _mm512_set1_ps(value); }
  BIREAL_INLINE V multiply_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  BIREAL_INLINE void add_products(V (&sum)[kVectors], const float* value, const V (&weights)[kVectors]) {
    for (int v = 0; v < kVectors; ++v) sum[v] = multiply_add(broadcast(value), weights[v], sum[v]);
  }
  BIREAL_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v); }
};

}  // namespace

static void run_avx512(const Conv2dRow& row) { conv2d_direct_row<Avx512>(row); }

static void run_weight_avx512(const Conv2dWeightRow& row) { conv2d_direct_weight_row<Avx512>(row); }

const Conv2dDirectKernel conv2d_direct_avx512 = {"direct:avx512", Avx512::kVectors* Avx512::kLanes, run_avx512,
                                                 run_weight_avx512};

static void transform_avx512(const Conv2dWinogradTiles& tiles, float* h, const float* x, int64_t rows) {
  conv2d_winograd_transform<Avx512>(tiles, h, x, rows);
}
static void run_winograd_avx512(const Conv2dWinogradTiles& tiles, const Conv2dWinogradRow& row) {
  conv2d_winograd_row<Avx512>(tiles, row);
}

static void run_winograd_weight_avx512(const Conv2dWinogradTiles& tiles, const Conv2dWinogradWeightRow& row) {
  conv2d_winograd_weight_row<Avx512>(tiles, row);
}

const Conv2dWinogradKernel conv2d_winograd_avx512 = {"winograd:avx512", Avx512::kVectors* Avx512::kLanes, transform_avx512,
                                                     run_winograd_avx512, run_winograd_weight_avx512};

}  // namespace bireal::cpu
