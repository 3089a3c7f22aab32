#include <algorithm>
#include <cstring>
#include <optional>

#include "cpu/context.h"
#include "cpu/onednn.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/conv2d_direct.h"
#include "ops/conv2d/conv2d_direct_impl.h"

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
  static V multiply_add(V a, V b, V c) { return a * b + c; }
  static void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
};

constexpr Conv2dDirectKernel kPortable = {"direct:portable", Portable::kVectors* Portable::kLanes, conv2d_direct_row<Portable>};

const Conv2dDirectKernel& select_direct(Isa isa) {
  if (isa >= Isa::kAvx512) return conv2d_direct_avx512;
  if (isa >= Isa::kAvx2) return conv2d_direct_avx2;
  return kPortable;
}

/// Up to so many the forward pass is our own: images.
constexpr int64_t kMostDirectChannels = 4;

/// Forward pass of a convolution of few channels. A task is some rows of an image, which are copied with their border of zeros.
class DirectConv {
 public:
  DirectConv(Isa isa, const Conv2dShape& shape, int thread_count)
      : kernel_(select_direct(isa)), s_(shape), thread_count_(thread_count) {
    pitch_ = (s_.W + 2 * s_.pad) * s_.C;
    const int64_t padded_K = (s_.K + kernel_.block - 1) / kernel_.block * kernel_.block;
    weight_bytes_ = aligned64(padded_K * s_.taps() * s_.C * int64_t(sizeof(float)));
    staged_bytes_ = aligned64(((kTaskRows - 1) * s_.stride + s_.R) * pitch_ * int64_t(sizeof(float)));
  }

  const char* kernel_name() const { return kernel_.name; }
  int64_t workspace_bytes() const { return weight_bytes_ + thread_count_ * staged_bytes_; }

  void run(Context& context, float* y, const float* x, const float* w, int64_t n, void* workspace) const {
    float* own_w = static_cast<float*>(workspace);
    lay_out_weights(own_w, w);
    const int64_t P = s_.P(), Q = s_.Q(), blocks = (P + kTaskRows - 1) / kTaskRows;
    context.parallel(n * blocks, [&](int64_t task, int worker) {
      float* staged = reinterpret_cast<float*>(static_cast<char*>(workspace) + weight_bytes_ + worker * staged_bytes_);
      const int64_t image = task / blocks, begin = task % blocks * kTaskRows, end = std::min(P, begin + kTaskRows);
      const int64_t first = begin * s_.stride - s_.pad;
      stage(staged, x + image * s_.input_count(1), first, (end - 1 - begin) * s_.stride + s_.R);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t h = p * s_.stride - s_.pad;
        kernel_.run({staged + (h - first) * pitch_, pitch_, s_.stride * s_.C, s_.R, s_.S * s_.C, std::max<int64_t>(0, -h),
                     std::min(s_.R, s_.H - h), own_w, y + (image * P + p) * Q * s_.K, Q, s_.K});
      }
    });
  }

 private:
  static constexpr int64_t kTaskRows = 8;

  /// [K,R,S,C] to [padded K / block][R*S*C][block].
  void lay_out_weights(float* out, const float* w) const {
    const int64_t terms = s_.taps() * s_.C, block = kernel_.block;
    std::memset(out, 0, size_t(weight_bytes_));
    for (int64_t k = 0; k < s_.K; ++k)
      for (int64_t term = 0; term < terms; ++term) out[(k / block * terms + term) * block + k % block] = w[k * terms + term];
  }

  /// `rows` rows of an image from `first` on, with zeros at their sides; those outside the image are not looked at.
  void stage(float* out, const float* image, int64_t first, int64_t rows) const {
    const int64_t side = s_.pad * s_.C, row_floats = s_.W * s_.C;
    for (int64_t h = first; h < first + rows; ++h, out += pitch_) {
      if (h < 0 || h >= s_.H) continue;
      std::fill(out, out + side, 0.0f);
      std::memcpy(out + side, image + h * row_floats, size_t(row_floats) * sizeof(float));
      std::fill(out + side + row_floats, out + pitch_, 0.0f);
    }
  }

  const Conv2dDirectKernel& kernel_;
  Conv2dShape s_;
  int thread_count_;
  int64_t pitch_, weight_bytes_, staged_bytes_;
};

}  // namespace

struct Conv2dPlan::Primitives {
  std::optional<DirectConv> direct;  // the forward pass, or
  std::optional<SlicedConv> fwd;
  SlicedConv bwd_input, bwd_weight;
};

Conv2dPlan conv2d_plan(Context& context, const Conv2dShape& shape) {
  shape.check("conv2d");
  const int threads = context.thread_count();
  auto primitives = std::make_shared<Conv2dPlan::Primitives>(
      Conv2dPlan::Primitives{{},
                             {},
                             SlicedConv("conv2d_bwd_input", ConvPass::kBwdInput, shape, threads),
                             SlicedConv("conv2d_bwd_weight", ConvPass::kBwdWeight, shape, threads)});
  Conv2dPlan plan;
  plan.shape = shape;
  if (shape.C <= kMostDirectChannels) {
    primitives->direct.emplace(context.isa(), shape, threads);
    plan.kernel_name = primitives->direct->kernel_name();
    plan.workspace_bytes = primitives->direct->workspace_bytes();
  } else {
    primitives->fwd.emplace("conv2d_fwd", ConvPass::kFwd, shape, threads);
    plan.kernel_name = primitives->fwd->kernel_name().c_str();
    plan.workspace_bytes = primitives->fwd->workspace_bytes();
  }
  plan.workspace_bytes =
      std::max({plan.workspace_bytes, primitives->bwd_input.workspace_bytes(), primitives->bwd_weight.workspace_bytes()});
  plan.primitives = std::move(primitives);
  return plan;
}

void conv2d_fwd(Context& context, const Conv2dPlan& plan, float* y, const float* x, const float* w, int64_t n, void* workspace) {
  if (plan.primitives->direct)
    plan.primitives->direct->run(context, y, x, w, n, workspace);
  else
    plan.primitives->fwd->run(context, y, x, w, n, workspace);
}

void conv2d_bwd_input(Context& context, const Conv2dPlan& plan, float* dx, const float* dy, const float* w, int64_t n,
                      void* workspace) {
  plan.primitives->bwd_input.run(context, dx, dy, w, n, workspace);
}

void conv2d_bwd_weight(Context& context, const Conv2dPlan& plan, float* dw, const float* x, const float* dy, int64_t n,
                       GradMode mode, void* workspace) {
  const int64_t image_count = plan.shape.input_count(1);
  plan.primitives->bwd_weight.run_weight(
      context, dw, [&](int, int64_t begin, int64_t) { return x + begin * image_count; }, dy, n, mode, workspace);
}

}  // namespace bireal::cpu
