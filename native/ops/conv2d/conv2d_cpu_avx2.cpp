#include <immintrin.h>

#include "ops/conv2d/conv2d_direct_impl.h"
#include "ops/conv2d/conv2d_winograd_impl.h"

namespace bireal::cpu {
namespace {

struct Avx2 {  // 12 of the 16 registers are sums
  using V = __m256;
  enum { kLanes = 8, kPixels = 6, kVectors = 2 };
  BIREAL_INLINE V zero() { return _mm256_setzero_ps(); }
  BIREAL_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
  BIREAL_INLINE V broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  BIREAL_INLINE V all(float value) { return _mm256_set1_ps(value); }
  BIREAL_INLINE V multiply_add(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  /// gcc 12 orders intrinsics so that it needs more than 16 registers.
  BIREAL_INLINE void add_products(V (&sum)[kVectors], const float* value, const V (&weights)[kVectors]) {
    V factor;
    asm("vbroadcastss %[value], %[factor]\n\tvfmadd231ps %[factor], %[w0], %[sum0]\n\tvfmadd231ps %[factor], %[w1], %[sum1]"
        : [sum0] "+x"(sum[0]), [sum1] "+x"(sum[1]), [factor] "=&x"(factor)
        : [value] "m"(*value), [w0] "x"(weights[0]), [w1] "x"(weights[1]));
  }
  BIREAL_INLINE void store(float* p, V v) { _mm256_storeu_ps(p, v); }
};

}  // namespace

static void run_avx2(const Conv2dRow& row) { conv2d_direct_row<Avx2>(row); }

static void run_weight_avx2(const Conv2dWeightRow& row) { conv2d_direct_weight_row<Avx2>(row); }

const Conv2dDirectKernel conv2d_direct_avx2 = {"direct:avx2", Avx2::kVectors* Avx2::kLanes, run_avx2, run_weight_avx2};

static void transform_avx2(const Conv2dWinogradTiles& tiles, float* h, const float* x, int64_t rows) {
  conv2d_winograd_transform<Avx2>(tiles, h, x, rows);
}
static void run_winograd_avx2(const Conv2dWinogradTiles& tiles, const Conv2dWinogradRow& row) {
  conv2d_winograd_row<Avx2>(tiles, row);
}

static void run_winograd_weight_avx2(const Conv2dWinogradTiles& tiles, const Conv2dWinogradWeightRow& row) {
  conv2d_winograd_weight_row<Avx2>(tiles, row);
}

const Conv2dWinogradKernel conv2d_winograd_avx2 = {"winograd:avx2", Avx2::kVectors* Avx2::kLanes, transform_avx2,
                                                   run_winograd_avx2, run_winograd_weight_avx2};

}  // namespace bireal::cpu
