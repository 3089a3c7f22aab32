// softmax_xent: a warp owns a row, in double, 4 rows a block; then one warp adds the rows in a fixed order. A batch of 512 x 1000
// logits is 1 MB: limited by latency.
#include "cuda/warp.cuh"
#include "ops/softmax_xent/softmax_xent_params.h"

namespace bireal::cuda {

static constexpr int kRowThreads = 128;

// softmax(x / temperature) of a row as exp(shifted - log_sum), every lane with the same sums. A NaN is never the largest, but
// makes the sum of exponentials, and with it every probability, NaN.
template <class T>
struct RowSoftmax {
  const T* x;
  double temperature, largest, log_sum;
  __device__ __forceinline__ RowSoftmax(const T* row, int K, int lane, double temperature) : x(row), temperature(temperature) {
    float top = -INFINITY;
    for (int j = lane; j < K; j += 32) top = fmaxf(top, to_float(x[j]));
    for (int offset = 16; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, offset));
    largest = double(top) / temperature;
    double sum = 0;
#pragma unroll 1  // and below: exp takes many registers
    for (int j = lane; j < K; j += 32) sum += exp(shifted(j));
    log_sum = log(warp_sum(sum));
  }
  __device__ __forceinline__ double shifted(int j) const { return double(to_float(x[j])) / temperature - largest; }
  __device__ __forceinline__ double log_probability(int j) const { return shifted(j) - log_sum; }
};

template <class T>
__device__ __forceinline__ void softmax_xent_rows(const SoftmaxXentParams& k) {
  const int64_t i = int64_t(blockIdx.x) * (kRowThreads / 32) + threadIdx.x / 32;
  if (i >= k.n) return;
  const int lane = threadIdx.x % 32, label = k.labels[i];
  const RowSoftmax<T> student(static_cast<const T*>(k.logits) + i * k.K, k.K, lane, k.temperature);
  // Without a teacher a softmax of no classes, which nobody asks.
  const RowSoftmax<T> teacher(static_cast<const T*>(k.teacher_logits) + i * k.K, k.teacher_logits ? k.K : 0, lane, k.temperature);
  auto target = [&](int j) {
    if (k.teacher_logits) return exp(teacher.log_probability(j));
    return (j == label ? 1 - k.smoothing : 0.0) + k.rest;
  };

  const float own = to_float(student.x[label]);
  double loss = 0;
  int ahead = 0;
#pragma unroll 1
  for (int j = lane; j < k.K; j += 32) {
    const float u = to_float(student.x[j]);
    loss -= target(j) * student.log_probability(j);
    loss += double(u) - double(u);  // 0, or NaN where the logit is NaN or Inf
    if (k.teacher_logits) loss += double(to_float(teacher.x[j])) - double(to_float(teacher.x[j]));
    if (u > own || (u == own && j < label)) ++ahead;
  }
  loss = warp_sum(loss);
  ahead = warp_sum(ahead);
  if (lane == 0) {
    k.rows[i * 4] = loss;
    k.rows[i * 4 + 1] = own == own && ahead < 1;
    k.rows[i * 4 + 2] = own == own && ahead < 5;
  }

  if (!k.dlogits) return;
  T* dlogits = static_cast<T*>(k.dlogits) + i * k.K;
  const double gradient_scale = k.scale ? k.gradient_scale * k.scale->scale : k.gradient_scale;
#pragma unroll 1
  for (int j = lane; j < k.K; j += 32)
    dlogits[j] = from_float<T>(float((exp(student.log_probability(j)) - target(j)) / k.temperature * gradient_scale));
}

BIREAL_STORAGE_ENTRIES(softmax_xent_rows, kRowThreads, SoftmaxXentParams, softmax_xent_rows)

// One warp: lane l adds rows l, l+32, ... in order, then the lanes in a tree.
extern "C" __global__ void __launch_bounds__(32) softmax_xent_metrics_f64_kernel(SoftmaxXentParams k) {
  double total[3] = {0, 0, 0};
  for (int64_t i = threadIdx.x; i < k.n; i += 32)
    for (int j = 0; j < 3; ++j) total[j] += k.rows[i * 4 + j];
  for (int j = 0; j < 3; ++j) total[j] = warp_sum(total[j]);
  if (threadIdx.x != 0) return;
  for (int j = 0; j < 4; ++j) {
    const double value = j < 3 ? total[j] : double(k.n);
    k.metrics[j] = k.accumulate ? k.metrics[j] + value : value;
  }
}

}  // namespace bireal::cuda
