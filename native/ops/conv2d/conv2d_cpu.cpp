#include <algorithm>
#include <cstring>
#include <optional>

#include "cpu/context.h"
#include "cpu/onednn.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/batch_norm/batch_norm_max_pool_rows.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/conv2d_direct.h"
#include "ops/conv2d/conv2d_direct_impl.h"
#include "ops/conv2d/conv2d_winograd.h"
#include "ops/conv2d/conv2d_winograd_impl.h"

namespace bireal::cpu {
using onednn::aligned64;
using onednn::ConvPass;
using onednn::SlicedConv;

namespace {

struct Portable {
  typedef float V __attribute__((vector_size(16)));
  enum { kLanes = 4, kPixels = 4, kVectors = 2 };
  static V zero() { return V{}; }
  static V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static V broadcast(const float* p) { return V{} + *p; }
  static V all(float value) { return V{} + value; }
  static V multiply_add(V a, V b, V c) { return a * b + c; }
  static void add_products(V (&sum)[kVectors], const float* value, const V (&weights)[kVectors]) {
    for (int v = 0; v < kVectors; ++v) sum[v] = multiply_add(broadcast(value), weights[v], sum[v]);
  }
  static void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
};

constexpr Conv2dDirectKernel kPortable = {"direct:portable", Portable::kVectors* Portable::kLanes, conv2d_direct_row<Portable>,
                                          conv2d_direct_weight_row<Portable>};
constexpr Conv2dWinogradKernel kPortableWinograd = {"winograd:portable", Portable::kVectors* Portable::kLanes,
                                                    conv2d_winograd_transform<Portable>, conv2d_winograd_row<Portable>,
                                                    conv2d_winograd_weight_row<Portable>};

const Conv2dDirectKernel& select_direct(Isa isa) {
  if (isa >= Isa::kAvx512) return conv2d_direct_avx512;
  if (isa >= Isa::kAvx2) return conv2d_direct_avx2;
  return kPortable;
}

const Conv2dWinogradKernel& select_winograd(Isa isa) {
  if (isa >= Isa::kAvx512) return conv2d_winograd_avx512;
  if (isa >= Isa::kAvx2) return conv2d_winograd_avx2;
  return kPortableWinograd;
}

/// Up to so many the forward pass and the gradient of the weights are our own: images.
constexpr int64_t kMostDirectChannels = 4;

/// A task of the forward kernels is so many rows of an image.
constexpr int64_t kTaskRows = 8;
int64_t staged_rows(const Conv2dShape& s) { return (kTaskRows - 1) * s.stride + s.R; }

/// `rows` rows of an image from `first` on, each behind `side` zeros and with zeros up to `pitch` floats; rows outside the image
/// are zeros.
void stage(float* out, const float* image, const Conv2dShape& s, int64_t first, int64_t rows, int64_t side, int64_t pitch) {
  side = std::min(pitch, side);
  const int64_t row_floats = std::min(pitch - side, s.W * s.C);
  for (int64_t h = first; h < first + rows; ++h, out += pitch) {
    const bool inside = h >= 0 && h < s.H;
    std::fill(out, inside ? out + side : out + pitch, 0.0f);
    if (!inside) continue;
    std::memcpy(out + side, image + h * s.W * s.C, size_t(row_floats) * sizeof(float));
    std::fill(out + side + row_floats, out + pitch, 0.0f);
  }
}

/// Calls body(worker, image, begin, end) for rows [begin, end) of each image's output, in tasks.
template <class Body>
void each_task(Context& context, const Conv2dShape& s, int64_t n, const Body& body) {
  const int64_t P = s.P(), blocks = (P + kTaskRows - 1) / kTaskRows;
  context.parallel(n * blocks, [&](int64_t task, int worker) {
    const int64_t begin = task % blocks * kTaskRows;
    body(worker, task / blocks, begin, std::min(P, begin + kTaskRows));
  });
}

/// Forward pass of a convolution of few channels. The rows of a task are copied with their border of zeros.
class DirectConv {
 public:
  DirectConv(Isa isa, const Conv2dShape& shape, int thread_count)
      : kernel_(select_direct(isa)), s_(shape), thread_count_(thread_count) {
    pitch_ = (s_.W + 2 * s_.pad) * s_.C;
    const int64_t padded_K = (s_.K + kernel_.block - 1) / kernel_.block * kernel_.block;
    weight_bytes_ = aligned64(padded_K * s_.taps() * s_.C * int64_t(sizeof(float)));
    staged_bytes_ = aligned64(staged_rows(s_) * pitch_ * int64_t(sizeof(float)));
  }

  const char* kernel_name() const { return kernel_.name; }
  int64_t workspace_bytes() const { return weight_bytes_ + thread_count_ * staged_bytes_; }

  void run(Context& context, float* y, const float* x, const float* w, int64_t n, void* workspace) const {
    float* own_w = static_cast<float*>(workspace);
    lay_out_weights(own_w, w);
    const int64_t P = s_.P(), Q = s_.Q();
    each_task(context, s_, n, [&](int worker, int64_t image, int64_t begin, int64_t end) {
      float* staged = reinterpret_cast<float*>(static_cast<char*>(workspace) + weight_bytes_ + worker * staged_bytes_);
      const int64_t first = begin * s_.stride - s_.pad;
      stage(staged, x + image * s_.input_count(1), s_, first, (end - 1 - begin) * s_.stride + s_.R, s_.pad * s_.C, pitch_);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t h = p * s_.stride - s_.pad;
        kernel_.run({staged + (h - first) * pitch_, pitch_, s_.stride * s_.C, s_.R, s_.S * s_.C, std::max<int64_t>(0, -h),
                     std::min(s_.R, s_.H - h), own_w, y + (image * P + p) * Q * s_.K, Q, s_.K});
      }
    });
  }

 private:
  /// [K,R,S,C] to [padded K / block][R*S*C][block].
  void lay_out_weights(float* out, const float* w) const {
    const int64_t terms = s_.taps() * s_.C, block = kernel_.block;
    std::memset(out, 0, size_t(weight_bytes_));
    for (int64_t k = 0; k < s_.K; ++k)
      for (int64_t term = 0; term < terms; ++term) out[(k / block * terms + term) * block + k % block] = w[k * terms + term];
  }

  const Conv2dDirectKernel& kernel_;
  Conv2dShape s_;
  int thread_count_;
  int64_t pitch_, weight_bytes_, staged_bytes_;
};

/// Gradient of the weights of a convolution of few channels. Each slice of the batch is one task, from row to row.
class DirectWeight {
 public:
  DirectWeight(Isa isa, const Conv2dShape& shape, int thread_count)
      : kernel_(select_direct(isa)), s_(shape), thread_count_(thread_count) {
    pitch_ = (s_.W + 2 * s_.pad) * s_.C;
    padded_K_ = (s_.K + kernel_.block - 1) / kernel_.block * kernel_.block;
    sum_floats_ = aligned64(padded_K_ * s_.taps() * s_.C * int64_t(sizeof(float))) / int64_t(sizeof(float));
    staged_bytes_ = aligned64(staged_rows(s_) * pitch_ * int64_t(sizeof(float)));
    // K in whole blocks is read where it lies.
    row_bytes_ = padded_K_ == s_.K ? 0 : aligned64(s_.Q() * padded_K_ * int64_t(sizeof(float)));
    slices_ = std::min(Context::kSlices, s_.N);
  }

  int64_t workspace_bytes() const {
    return slices_ * sum_floats_ * int64_t(sizeof(float)) + thread_count_ * (staged_bytes_ + row_bytes_);
  }

  void run(Context& context, float* dw, const float* x, const float* dy, int64_t n, GradMode mode, void* workspace) const {
    const int64_t P = s_.P(), Q = s_.Q(), row_floats = s_.S * s_.C, terms = s_.R * row_floats;
    const int64_t images = (s_.N + slices_ - 1) / slices_, slices = (n + images - 1) / images;
    float* sums = static_cast<float*>(workspace);
    char* workers = static_cast<char*>(workspace) + slices_ * sum_floats_ * int64_t(sizeof(float));
    context.parallel(slices, [&](int64_t slice, int worker) {
      float* own = sums + slice * sum_floats_;
      char* scratch = workers + worker * (staged_bytes_ + row_bytes_);
      float *staged = reinterpret_cast<float*>(scratch), *padded = reinterpret_cast<float*>(scratch + staged_bytes_);
      std::fill(own, own + sum_floats_, 0.0f);
      if (row_bytes_ > 0) std::memset(padded, 0, size_t(row_bytes_));
      for (int64_t image = slice * images; image < std::min(n, (slice + 1) * images); ++image)
        for (int64_t begin = 0; begin < P; begin += kTaskRows) {
          const int64_t end = std::min(P, begin + kTaskRows), first = begin * s_.stride - s_.pad;
          stage(staged, x + image * s_.input_count(1), s_, first, (end - 1 - begin) * s_.stride + s_.R, s_.pad * s_.C, pitch_);
          for (int64_t p = begin; p < end; ++p) {
            const float* row = dy + (image * P + p) * Q * s_.K;
            for (int64_t q = 0; q < Q && row_bytes_ > 0; ++q) std::copy_n(row + q * s_.K, s_.K, padded + q * padded_K_);
            const int64_t h = p * s_.stride - s_.pad;
            kernel_.run_weight({staged + (h - first) * pitch_, pitch_, s_.stride * s_.C, s_.R, row_floats,
                                std::max<int64_t>(0, -h), std::min(s_.R, s_.H - h), row_bytes_ > 0 ? padded : row, own, Q,
                                padded_K_});
          }
        }
    });
    onednn::add_partials(context, sums, sums, sum_floats_, slices, sum_floats_);
    const int64_t block = kernel_.block;
    context.parallel(s_.K, [&](int64_t k, int) {
      const float* sum = sums + k / block * terms * block + k % block;
      float* to = dw + k * terms;
      for (int64_t term = 0; term < terms; ++term, sum += block)
        to[term] = mode == GradMode::kAccumulate ? to[term] + *sum : *sum;
    });
  }

 private:
  const Conv2dDirectKernel& kernel_;
  Conv2dShape s_;
  int thread_count_;
  int64_t pitch_, padded_K_, sum_floats_, staged_bytes_, row_bytes_, slices_;
};

bool winograd_pays(const Conv2dShape& s) {
  constexpr int64_t kTaps = Winograd4x4::kTaps;
  return s.C <= kMostDirectChannels && (s.R + s.stride - 1) / s.stride == kTaps && (s.S + s.stride - 1) / s.stride == kTaps;
}

/// The forward pass by Winograd's algorithm. The rows of a task are transformed once.
class WinogradConv {
 public:
  WinogradConv(Isa isa, const Conv2dShape& shape, int thread_count)
      : kernel_(select_winograd(isa)), s_(shape), tiles_(shape.Q(), shape.stride, shape.C), thread_count_(thread_count) {
    auto bytes = [](int64_t floats) { return aligned64(floats * int64_t(sizeof(float))); };
    const int64_t blocks = (s_.K + kernel_.block - 1) / kernel_.block, rows = tiles_.input_rows(kTaskRows);
    u_bytes_ = bytes(blocks * block_floats());
    v_bytes_ = bytes(tiles_.v_floats());
    h_bytes_ = bytes(rows * tiles_.row_floats());
    x_bytes_ = bytes(tiles_.x_floats(rows));
    y_bytes_ = bytes(kOutputs * s_.Q() * s_.K);
    pooled_bytes_ = bytes(pooled(s_.Q()) * s_.K);
    worker_bytes_ = v_bytes_ + h_bytes_ + x_bytes_ + y_bytes_ + 4 * pooled_bytes_;
  }

  const char* kernel_name() const { return kernel_.name; }
  int64_t workspace_bytes() const { return u_bytes_ + thread_count_ * worker_bytes_; }

  void run(Context& context, float* y, const float* x, const float* w, int64_t n, void* workspace) const {
    transform_all_weights(context, w, workspace);
    const int64_t P = s_.P(), Q = s_.Q();
    each_task(context, s_, n, [&](int worker, int64_t image, int64_t begin, int64_t end) {
      const Scratch own = scratch(workspace, worker);
      transform_rows(own, x + image * s_.input_count(1), begin, end);
      for (int64_t p = begin; p < end; p += kOutputs)
        run_row(workspace, own, p - begin, y + (image * P + p) * Q * s_.K, std::min(end - p, kOutputs), true);
    });
  }

  /// v of four rows at a time, which are pooled and normalised before the next are made, in the second-level cache.
  void run_pooled(Context& context, float* y, word_t* bits, const float* gamma, const BatchNormApply& norm, const float* x,
                  const float* w, int64_t n, void* workspace) const {
    transform_all_weights(context, w, workspace);
    const int64_t P = s_.P(), Q = s_.Q(), K = s_.K, bands = (P + kOutputs - 1) / kOutputs;
    // A part of an image makes the four rows above it once more, for the last of them: no part more than keeps threads busy. How
    // many there are does not show in the results.
    const int64_t parts = std::min(bands, (2 * context.thread_count() + n - 1) / n);
    context.parallel(n * parts, [&](int64_t task, int worker) {
      const Scratch own = scratch(workspace, worker);
      const int64_t image = task / parts, part = task % parts;
      const int64_t begin = bands * part / parts * kOutputs, end = std::min(P, bands * (part + 1) / parts * kOutputs);
      BatchNormMaxPoolBand band = {own.y, 0, Q, K, pooled(Q), gamma, nullptr, own.last[0], own.vmax};
      for (int64_t first = begin == 0 ? 0 : begin - kOutputs; first < end; first += kTaskRows) {
        const int64_t last = std::min(end, first + kTaskRows);
        transform_rows(own, x + image * s_.input_count(1), first, last);
        for (int64_t p = first; p < last; p += kOutputs) {
          band.rows = std::min(last - p, kOutputs);
          run_row(workspace, own, p - first, own.y, band.rows, false);
          batch_norm_max_pool_band(context, band);
          band.above = band.last;
          band.last = band.last == own.last[0] ? own.last[1] : own.last[0];
          if (p < begin) continue;
          const int64_t row = (image * pooled(P) + p / 2) * pooled(Q);
          BatchNormApply rows = norm;
          rows.v = own.vmax;
          rows.v_type = DType::kF32;
          batch_norm_apply_rows(context, y, bits, rows, row, row + pooled(band.rows) * pooled(Q), K);
        }
      }
    });
  }

 private:
  static constexpr int64_t kTaps = Winograd4x4::kTaps, kOutputs = Winograd4x4::kOutputs, kPoints = Winograd4x4::kPoints;
  static_assert(kTaskRows % kOutputs == 0 && kOutputs == kBatchNormMaxPoolBandRows);
  int64_t block_floats() const { return kPoints * kPoints * s_.stride * tiles_.depth * kernel_.block; }
  /// Rows or columns behind a pooling by 3x3/2 with a border of one.
  static int64_t pooled(int64_t extent) { return (extent + 1) / 2; }

  struct Scratch {  // of one worker
    float *v, *h, *x;
    float* y;        // [kOutputs][Q,K]
    float* last[2];  // [pooled Q,K]
    float* vmax;     // [2][pooled Q,K]
  };
  Scratch scratch(void* workspace, int worker) const {
    char* own = static_cast<char*>(workspace) + u_bytes_ + worker * worker_bytes_;
    auto take = [&](int64_t bytes) {
      own += bytes;
      return reinterpret_cast<float*>(own - bytes);
    };
    Scratch s;
    s.v = take(v_bytes_);
    s.h = take(h_bytes_);
    s.x = take(x_bytes_);
    s.y = take(y_bytes_);
    s.last[0] = take(pooled_bytes_);
    s.last[1] = take(pooled_bytes_);
    s.vmax = take(2 * pooled_bytes_);
    return s;
  }

  int64_t row_zeros() const { return kTaps * s_.stride - s_.R; }
  int64_t column_zeros() const { return kTaps * s_.stride - s_.S; }

  /// h of output rows [begin, end) of an image.
  void transform_rows(const Scratch& own, const float* image, int64_t begin, int64_t end) const {
    const int64_t rows = tiles_.input_rows(end - begin);
    stage(own.x, image, s_, begin * s_.stride - s_.pad - row_zeros(), rows, (s_.pad + column_zeros()) * s_.C,
          tiles_.x_pitch_floats);
    kernel_.transform(tiles_, own.h, own.x, rows);
  }

  /// y [rows][Q,K] of up to kOutputs rows from row p of those in h on.
  void run_row(const void* workspace, const Scratch& own, int64_t p, float* y, int64_t rows, bool fetch) const {
    kernel_.run(tiles_, {own.h + p * s_.stride * tiles_.row_floats(), own.v, static_cast<const float*>(workspace), row_zeros(),
                         column_zeros(), y, rows, s_.Q(), s_.K, fetch});
  }

  void transform_all_weights(Context& context, const float* w, void* workspace) const {
    context.parallel((s_.K + kernel_.block - 1) / kernel_.block,
                     [&](int64_t block, int) { transform_weights(static_cast<float*>(workspace), w, block); });
  }

  /// w [K,R,S,C] to u [padded K / block][row point][column point][row phase][column phase][C][block].
  void transform_weights(float* u, const float* w, int64_t block) const {
    constexpr int64_t kMostBlock = 32;
    const int64_t width = kernel_.block, k0 = block * width, filters = std::min(width, s_.K - k0), depth = tiles_.depth;
    const int64_t row_zeros = kTaps * s_.stride - s_.R, column_zeros = (kTaps * s_.stride - s_.S) * s_.C;
    u += block * block_floats();
    for (int64_t row_phase = 0; row_phase < s_.stride; ++row_phase)
      for (int64_t j = 0; j < depth; ++j, u += width) {
        double lines[kTaps][kPoints][kMostBlock] = {};  // w G^T
        for (int64_t t = 0; t < kTaps; ++t)
          for (int64_t i = 0; i < kTaps; ++i) {
            const int64_t r = t * s_.stride + row_phase - row_zeros, column = i * depth + j - column_zeros;
            if (r < 0 || column < 0) continue;
            for (int64_t k = 0; k < filters; ++k) {
              const double tap = w[((k0 + k) * s_.R + r) * s_.S * s_.C + column];
              for (int64_t point = 0; point < kPoints; ++point) lines[t][point][k] += kWinograd.G[point][i] * tap;
            }
          }
        for (int64_t row_point = 0; row_point < kPoints; ++row_point)
          for (int64_t point = 0; point < kPoints; ++point) {
            float* to = u + (row_point * kPoints + point) * s_.stride * depth * width;
            for (int64_t k = 0; k < width; ++k) {
              double sum = 0;
              for (int64_t t = 0; t < kTaps; ++t) sum += kWinograd.G[row_point][t] * lines[t][point][k];
              to[k] = float(sum);
            }
          }
      }
  }

  const Conv2dWinogradKernel& kernel_;
  Conv2dShape s_;
  Conv2dWinogradTiles tiles_;
  int thread_count_;
  int64_t u_bytes_, v_bytes_, h_bytes_, x_bytes_, y_bytes_, pooled_bytes_, worker_bytes_;
};

/// The gradient of the weights by Winograd's algorithm: products of transformed pixels and gradients are summed point by point
/// over a slice of the batch, then over the slices, and the sums transformed once.
class WinogradWeight {
 public:
  WinogradWeight(Isa isa, const Conv2dShape& shape, int thread_count)
      : kernel_(select_winograd(isa)), s_(shape), tiles_(shape.Q(), shape.stride, shape.C), thread_count_(thread_count) {
    const int64_t rows = tiles_.input_rows(kTaskRows);
    blocks_ = (s_.K + kernel_.block - 1) / kernel_.block;
    sum_floats_ = aligned64(blocks_ * kPoints * point_floats() * int64_t(sizeof(float))) / int64_t(sizeof(float));
    v_bytes_ = aligned64(tiles_.v_floats() * int64_t(sizeof(float)));
    h_bytes_ = aligned64(rows * tiles_.row_floats() * int64_t(sizeof(float)));
    m_bytes_ = aligned64(2 * kLine * Conv2dWinogradTiles::kGroup * kernel_.block * int64_t(sizeof(float)));
    worker_bytes_ = v_bytes_ + h_bytes_ + m_bytes_ + aligned64(tiles_.x_floats(rows) * int64_t(sizeof(float)));
    slices_ = std::min(Context::kSlices, s_.N);
  }

  int64_t workspace_bytes() const { return slices_ * sum_floats_ * int64_t(sizeof(float)) + thread_count_ * worker_bytes_; }

  void run(Context& context, float* dw, const float* x, const float* dy, int64_t n, GradMode mode, void* workspace) const {
    const int64_t images = (s_.N + slices_ - 1) / slices_, slices = (n + images - 1) / images;
    float* sums = static_cast<float*>(workspace);
    char* workers = static_cast<char*>(workspace) + slices_ * sum_floats_ * int64_t(sizeof(float));
    context.parallel(slices, [&](int64_t slice, int worker) {
      float* own = sums + slice * sum_floats_;
      std::fill(own, own + sum_floats_, 0.0f);
      for (int64_t image = slice * images; image < std::min(n, (slice + 1) * images); ++image)
        add_image(own, x + image * s_.input_count(1), dy + image * s_.output_count(1), workers + worker * worker_bytes_);
    });
    onednn::add_partials(context, sums, sums, sum_floats_, slices, sum_floats_);
    context.parallel(blocks_ * s_.stride * tiles_.depth, [&](int64_t task, int) { finish(dw, sums, task, mode); });
  }

 private:
  static constexpr int64_t kTaps = Winograd4x4::kTaps, kOutputs = Winograd4x4::kOutputs, kLine = Winograd4x4::kPoints,
                           kPoints = kLine * kLine;
  int64_t point_floats() const { return s_.stride * tiles_.depth * kernel_.block; }
  int64_t row_zeros() const { return kTaps * s_.stride - s_.R; }
  int64_t column_zeros() const { return kTaps * s_.stride - s_.S; }

  void add_image(float* sums, const float* x, const float* dy, char* scratch) const {
    float *v = reinterpret_cast<float*>(scratch), *h = reinterpret_cast<float*>(scratch + v_bytes_),
          *m = reinterpret_cast<float*>(scratch + v_bytes_ + h_bytes_),
          *staged = reinterpret_cast<float*>(scratch + v_bytes_ + h_bytes_ + m_bytes_);
    const int64_t P = s_.P(), Q = s_.Q();
    for (int64_t begin = 0; begin < P; begin += kTaskRows) {
      const int64_t end = std::min(P, begin + kTaskRows), rows = tiles_.input_rows(end - begin);
      stage(staged, x, s_, begin * s_.stride - s_.pad - row_zeros(), rows, (s_.pad + column_zeros()) * s_.C,
            tiles_.x_pitch_floats);
      kernel_.transform(tiles_, h, staged, rows);
      for (int64_t p = begin; p < end; p += kOutputs)
        kernel_.run_weight(tiles_,
                           {h + (p - begin) * s_.stride * tiles_.row_floats(), v, m, sums, row_zeros(), column_zeros(),
                            dy + p * Q * s_.K, dy + std::min(P, p + kOutputs) * Q * s_.K, std::min(end - p, kOutputs), Q, s_.K});
    }
  }

  /// dw = G^T sums G, of a block of filters in one row phase, column phase and channel.
  void finish(float* dw, const float* sums, int64_t task, GradMode mode) const {
    constexpr int64_t kMostBlock = 32;
    const int64_t depth = tiles_.depth, phases = s_.stride * depth, j = task % depth, row_phase = task / depth % s_.stride;
    const int64_t width = kernel_.block, k0 = task / phases * width, filters = std::min(width, s_.K - k0);
    const int64_t offset = task / phases * kPoints * point_floats() + task % phases * width;
    double lines[kTaps][kLine][kMostBlock] = {};
    for (int64_t row_point = 0; row_point < kLine; ++row_point)
      for (int64_t point = 0; point < kLine; ++point) {
        const float* sum = sums + offset + (row_point * kLine + point) * point_floats();
        for (int64_t t = 0; t < kTaps; ++t)
          for (int64_t k = 0; k < width; ++k) lines[t][point][k] += kWinograd.G[row_point][t] * double(sum[k]);
      }
    for (int64_t t = 0; t < kTaps; ++t)
      for (int64_t i = 0; i < kTaps; ++i) {
        const int64_t r = t * s_.stride + row_phase - row_zeros(), column = i * depth + j - column_zeros() * s_.C;
        if (r < 0 || column < 0) continue;
        for (int64_t k = 0; k < filters; ++k) {
          double sum = 0;
          for (int64_t point = 0; point < kLine; ++point) sum += kWinograd.G[point][i] * lines[t][point][k];
          float* to = dw + ((k0 + k) * s_.R + r) * s_.S * s_.C + column;
          *to = mode == GradMode::kAccumulate ? *to + float(sum) : float(sum);
        }
      }
  }

  const Conv2dWinogradKernel& kernel_;
  Conv2dShape s_;
  Conv2dWinogradTiles tiles_;
  int thread_count_;
  int64_t blocks_, sum_floats_, v_bytes_, h_bytes_, m_bytes_, worker_bytes_, slices_;
};

}  // namespace

struct Conv2dPlan::Primitives {
  std::optional<WinogradConv> winograd;  // the forward pass, or
  std::optional<DirectConv> direct;      // or
  std::optional<SlicedConv> fwd;
  SlicedConv bwd_input;
  std::optional<WinogradWeight> winograd_weight;  // the gradient of the weights, or
  std::optional<DirectWeight> direct_weight;      // or
  std::optional<SlicedConv> bwd_weight;
};

Conv2dPlan conv2d_plan(Context& context, const Conv2dShape& shape) {
  shape.check("conv2d");
  const int threads = context.thread_count();
  auto primitives = std::make_shared<Conv2dPlan::Primitives>(
      Conv2dPlan::Primitives{{}, {}, {}, SlicedConv("conv2d_bwd_input", ConvPass::kBwdInput, shape, threads), {}, {}, {}});
  Conv2dPlan plan;
  plan.shape = shape;
  if (winograd_pays(shape)) {
    primitives->winograd.emplace(context.isa(), shape, threads);
    plan.kernel_name = primitives->winograd->kernel_name();
    plan.workspace_bytes = primitives->winograd->workspace_bytes();
  } else if (shape.C <= kMostDirectChannels) {
    primitives->direct.emplace(context.isa(), shape, threads);
    plan.kernel_name = primitives->direct->kernel_name();
    plan.workspace_bytes = primitives->direct->workspace_bytes();
  } else {
    primitives->fwd.emplace("conv2d_fwd", ConvPass::kFwd, shape, threads);
    plan.kernel_name = primitives->fwd->kernel_name().c_str();
    plan.workspace_bytes = primitives->fwd->workspace_bytes();
  }
  int64_t weight_bytes;
  if (winograd_pays(shape)) {
    primitives->winograd_weight.emplace(context.isa(), shape, threads);
    weight_bytes = primitives->winograd_weight->workspace_bytes();
  } else if (shape.C <= kMostDirectChannels) {
    primitives->direct_weight.emplace(context.isa(), shape, threads);
    weight_bytes = primitives->direct_weight->workspace_bytes();
  } else {
    primitives->bwd_weight.emplace("conv2d_bwd_weight", ConvPass::kBwdWeight, shape, threads);
    weight_bytes = primitives->bwd_weight->workspace_bytes();
  }
  plan.workspace_bytes = std::max({plan.workspace_bytes, primitives->bwd_input.workspace_bytes(), weight_bytes});
  plan.primitives = std::move(primitives);
  return plan;
}

void conv2d_fwd(Context& context, const Conv2dPlan& plan, float* y, const float* x, const float* w, int64_t n, void* workspace) {
  if (plan.primitives->winograd)
    plan.primitives->winograd->run(context, y, x, w, n, workspace);
  else if (plan.primitives->direct)
    plan.primitives->direct->run(context, y, x, w, n, workspace);
  else
    plan.primitives->fwd->run(context, y, x, w, n, workspace);
}

bool conv2d_fuses_max_pool(const Conv2dPlan& plan, int64_t R, int64_t S, int64_t stride, int64_t pad) {
  return plan.primitives->winograd && R == 3 && S == 3 && stride == 2 && pad == 1;
}

void conv2d_pool_norm_fwd(Context& context, const Conv2dPlan& plan, float* y, word_t* bits, const float* gamma,
                          const BatchNormApply& norm, const float* x, const float* w, int64_t n, void* workspace) {
  plan.primitives->winograd->run_pooled(context, y, bits, gamma, norm, x, w, n, workspace);
}

void conv2d_bwd_input(Context& context, const Conv2dPlan& plan, float* dx, const float* dy, const float* w, int64_t n,
                      void* workspace) {
  plan.primitives->bwd_input.run(context, dx, dy, w, n, workspace);
}

void conv2d_bwd_weight(Context& context, const Conv2dPlan& plan, float* dw, const float* x, const float* dy, int64_t n,
                       GradMode mode, void* workspace) {
  if (plan.primitives->winograd_weight) return plan.primitives->winograd_weight->run(context, dw, x, dy, n, mode, workspace);
  if (plan.primitives->direct_weight) return plan.primitives->direct_weight->run(context, dw, x, dy, n, mode, workspace);
  const int64_t image_count = plan.shape.input_count(1);
  plan.primitives->bwd_weight->run_weight(
      context, dw, [&](int, int64_t begin, int64_t) { return x + begin * image_count; }, dy, n, mode, workspace);
}

}  // namespace bireal::cpu
