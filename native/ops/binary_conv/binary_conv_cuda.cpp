#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "cuda/launch.h"
#include "ops/binary_conv/binary_conv.h"
#include "ops/binary_conv/binary_conv_params.h"

namespace bireal::cuda {

namespace {

struct FwdKernel {
  const char* name;   // of the plan
  int channels, row;  // of a block, and words of a column in shared memory
  bool mma;
  int64_t shared_limit;  // dynamic bytes
};

// Best to worst.
const FwdKernel kFwdKernels[] = {
    {"mma_wide", 128, 136, true, 64 * 1024},
    {"mma_narrow", 64, 72, true, kMoreSharedBytes},
    {"popc", 64, 66, false, kSharedBytes - 1024},  // less its static sums
};

// "binary_conv_fwd_mma_wide_kernel", and so "sums"; "apply" has the stored type behind (storage_kernel).
std::string mma_function(const char* pass, const char* name) { return std::string("binary_conv_") + pass + "_" + name; }

// Tiles, chunks and their shared memory; false if the shape does not fit.
bool lay_out(BinaryConvFwdParams& p, int64_t& shared_bytes, const Conv2dShape& s, const FwdKernel& kernel) {
  p.H = int32_t(s.H), p.W = int32_t(s.W), p.C = int32_t(s.C), p.Cw = int32_t(word_count(s.C)), p.K = int32_t(s.K);
  p.R = int32_t(s.R), p.S = int32_t(s.S), p.stride = int32_t(s.stride), p.pad = int32_t(s.pad);
  p.P = int32_t(s.P()), p.Q = int32_t(s.Q());
  // About 8 by 8 pixels, or 64 of a narrower image, evenly: 14 is cut into 7 and 7.
  int64_t tile_q = std::min<int64_t>(p.Q, 64 / std::min<int64_t>(p.P, 8));
  tile_q = ceil_div(p.Q, ceil_div(p.Q, tile_q));
  int64_t tile_p = std::min<int64_t>(p.P, 64 / tile_q);
  tile_p = ceil_div(p.P, ceil_div(p.P, tile_p));
  for (;; (tile_p >= tile_q ? tile_p : tile_q) /= 2) {
    p.tile_p = int32_t(tile_p), p.tile_q = int32_t(tile_q);
    p.tiles_p = int32_t(ceil_div(p.P, tile_p)), p.tiles_q = int32_t(ceil_div(p.Q, tile_q));
    const int64_t halo_h = (tile_p - 1) * s.stride + s.R, halo_w = (tile_q - 1) * s.stride + s.S;
    p.halo_h = int32_t(halo_h), p.halo_w = int32_t(halo_w);
    for (int64_t chunks = 1; chunks <= p.Cw; ++chunks) {
      const int64_t words = ceil_div(p.Cw, chunks);
      if (chunks > 1 && words == p.chunk_words) continue;
      p.chunk_words = int32_t(words), p.chunks = int32_t(ceil_div(p.Cw, words));
      // 4 more than a multiple of 8: the 8 pixels of a fragment's rows then lie in different banks.
      p.pixel_stride = int32_t(words < 4 ? words : (words + 3) / 8 * 8 + 4);
      const int64_t columns = s.R * s.S * words;
      p.columns = int32_t(kernel.mma ? (columns + 7) / 8 * 8 : columns);
      shared_bytes = 4 * (p.columns * int64_t(kernel.row) + halo_h * halo_w * p.pixel_stride);
      if (kernel.mma) shared_bytes += kMmaOutputBytes * kernel.channels + 4 * (p.columns + (s.R + 1) * (s.S + 1) * kernel.row);
      if (shared_bytes <= kernel.shared_limit) break;
      if (kernel.mma && chunks > 4) break;  // weights loaded anew for each tile: popc does no worse
    }
    if (shared_bytes <= kernel.shared_limit) break;
    if (tile_p == 1 && tile_q == 1) return false;
  }
  const int64_t most = s.R * s.S * s.C;
  p.flush_tiles = int32_t(std::min<int64_t>(1 << 20, std::max<int64_t>(1, ((int64_t(1) << 32) - 1) / (2 * most * most))));
  return true;
}

bool can_run(const Device& device, const Conv2dShape& s, const FwdKernel& kernel) {
  BinaryConvFwdParams p{};
  int64_t shared_bytes = 0;
  if (!lay_out(p, shared_bytes, s, kernel)) return false;
  if (!kernel.mma) return true;
  if (!device.has_kernel(mma_function("fwd", kernel.name) + "_kernel") || binary_conv_v_type(s) != DType::kI16) return false;
  return kernel.channels == 64 || (s.K > 64 && p.chunks == 1);
}

const FwdKernel& kernel_of(const char* name) {
  for (const FwdKernel& kernel : kFwdKernels)
    if (std::strcmp(kernel.name, name) == 0) return kernel;
  throw InvalidArgument(std::string("binary_conv: no forward kernel \"") + name + "\"; there are mma_wide, mma_narrow, popc");
}

// Releases what the measurement takes, also where it throws.
struct Measurement {
  const Driver& driver;
  DevicePointer memory = 0;
  Stream stream = nullptr;
  EventHandle begin = nullptr, end = nullptr;
  ~Measurement() {
    if (begin) driver.cuEventDestroy(begin);
    if (end) driver.cuEventDestroy(end);
    if (stream) driver.cuStreamDestroy(stream);
    if (memory) driver.cuMemFree(memory);
  }
};

}  // namespace

std::vector<const char*> binary_conv_kernel_names(const Device& device, const Conv2dShape& shape) {
  std::vector<const char*> names;
  for (const FwdKernel& kernel : kFwdKernels)
    if (can_run(device, shape, kernel)) names.push_back(kernel.name);
  return names;
}

BinaryConvPlan binary_conv_plan(const Device& device, const Conv2dShape& shape, const char* kernel, DType type, bool training) {
  shape.check("binary_conv");
  require(shape.R * shape.S * shape.C < (int64_t(1) << 30), "binary_conv: R*S*C must be < 2^30, got " + shape.text());
  const std::vector<const char*> names = binary_conv_kernel_names(device, shape);
  require(!names.empty(), "binary_conv: no CUDA kernel for a filter or stride this large, got " + shape.text());
  BinaryConvPlan plan;
  plan.shape = shape;
  plan.v_type = binary_conv_v_type(shape);
  plan.workspace_bytes =
      binary_conv_bwd_weight_slices(shape, shape.N) * shape.K * shape.taps() * shape.C * int64_t(sizeof(float));
  if (kernel && *kernel == 0) kernel = names[0];
  if (kernel) {
    const bool known = std::any_of(names.begin(), names.end(), [&](const char* name) { return std::strcmp(name, kernel) == 0; });
    require(known,
            std::string("binary_conv: forward kernel \"") + kernel + "\" cannot run " + shape.text() + " on " + device.name());
    plan.kernel_name = kernel_of(kernel).name;
  } else {
    plan.kernel_name = names.size() == 1 ? names[0] : binary_conv_fastest(device, plan, names, type, training);
  }
  return plan;
}

const char* binary_conv_fastest(const Device& device, const BinaryConvPlan& plan, const std::vector<const char*>& names,
                                DType type, bool training) {
  // The convolution with its normalisation, a shortcut and the next signs, as networks run it, of as many images as fit 128 MB,
  // at most the plan's; the values do not matter to the time.
  Conv2dShape s = plan.shape;
  const int64_t v_bytes = s.output_count(1) * (plan.v_type == DType::kI16 ? 2 : 4), x_bytes = s.H * s.W * word_count(s.C) * 4;
  const int64_t y_bytes = s.output_count(1) * (type == DType::kF32 ? 4 : 2), bits_bytes = s.P() * s.Q() * word_count(s.K) * 4;
  const int64_t image_bytes = v_bytes + x_bytes + 2 * y_bytes + bits_bytes;  // y's shortcut is as large
  const int64_t images = std::max<int64_t>(1, std::min<int64_t>(s.N, (int64_t(128) << 20) / image_bytes));
  const auto aligned = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
  int64_t total = 0;
  const auto reserve = [&](int64_t bytes) { return std::exchange(total, total + aligned(bytes)); };
  const int64_t v_at = reserve(images * v_bytes), x_at = reserve(images * x_bytes),
                w_at = reserve(s.K * s.taps() * word_count(s.C) * 4), y_at = reserve(images * y_bytes),
                shortcut_at = reserve(images * y_bytes), bits_at = reserve(images * bits_bytes), sums_at = reserve(2 * s.K * 8),
                stats_at = reserve(3 * s.K * 8), running_at = reserve(2 * s.K * 8), affine_at = reserve(2 * s.K * 4),
                gamma_at = reserve(s.K * 4);
  const Driver& driver = device.driver();
  Measurement m{driver};
  device.make_current();
  driver.check(driver.cuMemAlloc(&m.memory, size_t(total)), "binary_conv_plan");
  driver.check(driver.cuStreamCreate(&m.stream, 1), "binary_conv_plan");
  driver.check(driver.cuMemsetD8Async(m.memory, 0x5A, size_t(total), m.stream), "binary_conv_plan");
  driver.check(driver.cuEventCreate(&m.begin, 0), "binary_conv_plan");
  driver.check(driver.cuEventCreate(&m.end, 0), "binary_conv_plan");
  char* base = reinterpret_cast<char*>(m.memory);
  float *affine = reinterpret_cast<float*>(base + affine_at), *gamma = reinterpret_cast<float*>(base + gamma_at);
  const BatchNormStatistics statistics{reinterpret_cast<double*>(base + stats_at),
                                       affine,
                                       reinterpret_cast<double*>(base + running_at),
                                       base + sums_at,
                                       1,
                                       true,
                                       nullptr,
                                       gamma,
                                       gamma,
                                       1e-5};
  const BatchNormApplyCuda norm{nullptr, plan.v_type, affine, training ? &statistics : nullptr, base + shortcut_at,
                                nullptr, nullptr};
  const char* best = names[0];
  float best_ms = std::numeric_limits<float>::infinity();
  for (const char* name : names) {
    BinaryConvPlan trial = plan;
    trial.kernel_name = name;
    for (int run = 0; run < 4; ++run) {  // the first warms up
      float ms = 0;
      driver.check(driver.cuEventRecord(m.begin, m.stream), "binary_conv_plan");
      binary_conv_norm_fwd(device, trial, training || !binary_conv_fuses_norm(trial) ? base + v_at : nullptr, base + y_at, type,
                           reinterpret_cast<word_t*>(base + bits_at), norm, reinterpret_cast<const word_t*>(base + x_at),
                           reinterpret_cast<const word_t*>(base + w_at), images, m.stream);
      driver.check(driver.cuEventRecord(m.end, m.stream), "binary_conv_plan");
      driver.check(driver.cuEventSynchronize(m.end), "binary_conv_plan");
      driver.check(driver.cuEventElapsedTime(&ms, m.begin, m.end), "binary_conv_plan");
      if (run > 0 && ms < best_ms) best_ms = ms, best = name;
    }
  }
  return best;
}

namespace {

struct FwdLaunch {
  BinaryConvFwdParams params{};
  LaunchShape shape{256, 0};
};

FwdLaunch fwd_launch(const Device& device, const BinaryConvPlan& plan, void* v, int64_t* sums, const word_t* x, const word_t* w,
                     int64_t n) {
  const FwdKernel& kernel = kernel_of(plan.kernel_name);
  FwdLaunch launch;
  BinaryConvFwdParams& p = launch.params;
  int64_t shared_bytes = 0;
  lay_out(p, shared_bytes, plan.shape, kernel);
  p.v = v, p.sums = reinterpret_cast<unsigned long long*>(sums), p.x = x, p.w = w;
  p.tiles = n * p.tiles_p * p.tiles_q;
  const int64_t groups = ceil_div(plan.shape.K, kernel.channels);
  // Two blocks fit a multiprocessor; each walks over its share of the tiles.
  const int64_t blocks = std::min<int64_t>(p.tiles, std::max<int64_t>(1, ceil_div(2 * device.multiprocessor_count(), groups)));
  launch.shape = LaunchShape(256, blocks, groups, 1, shared_bytes);
  return launch;
}

}  // namespace

void binary_conv_fwd(const Device& device, const BinaryConvPlan& plan, void* v, int64_t* sums, const word_t* x, const word_t* w,
                     int64_t n, Stream stream) {
  const FwdLaunch l = fwd_launch(device, plan, v, sums, x, w, n);
  const std::string function = kernel_of(plan.kernel_name).mma
                                   ? mma_function("fwd", plan.kernel_name) + "_kernel"
                                   : std::string("binary_conv_fwd_popc_") + type_suffix(plan.v_type) + "_kernel";
  launch(device, function, l.shape, l.params, stream);
}

bool binary_conv_fuses_norm(const BinaryConvPlan& plan) { return kernel_of(plan.kernel_name).mma; }

void binary_conv_norm_fwd(const Device& device, const BinaryConvPlan& plan, void* v, void* y, DType y_type, word_t* bits,
                          const BatchNormApplyCuda& norm, const word_t* x, const word_t* w, int64_t n, Stream stream) {
  const int64_t rows = n * plan.shape.P() * plan.shape.Q();
  int64_t* sums = norm.statistics ? static_cast<int64_t*>(const_cast<void*>(norm.statistics->sums)) : nullptr;
  BatchNormApplyCuda in = norm;
  in.v = v, in.v_type = plan.v_type;
  if (!binary_conv_fuses_norm(plan)) {
    require(v != nullptr, std::string("binary_conv: kernel ") + plan.kernel_name + " normalises from v, which is null");
    binary_conv_fwd(device, plan, v, sums, x, w, n, stream);
    batch_norm_apply(device, y, y_type, bits, in, rows, plan.shape.K, stream);
    return;
  }
  const FwdLaunch l = fwd_launch(device, plan, v, sums, x, w, n);
  if (sums) launch(device, mma_function("sums", plan.kernel_name) + "_kernel", l.shape, l.params, stream);
  const BinaryConvApplyParams p{l.params, batch_norm_apply_params(y, bits, in, rows, plan.shape.K)};
  launch(device, storage_kernel(mma_function("apply", plan.kernel_name), y_type), l.shape, p, stream);
}

static BinaryConvBwdParams bwd_params(const Conv2dShape& s) {
  BinaryConvBwdParams p{};
  p.H = int32_t(s.H), p.W = int32_t(s.W), p.C = int32_t(s.C), p.Cw = int32_t(word_count(s.C)), p.K = int32_t(s.K);
  p.R = int32_t(s.R), p.S = int32_t(s.S), p.stride = int32_t(s.stride), p.pad = int32_t(s.pad);
  p.P = int32_t(s.P()), p.Q = int32_t(s.Q());
  return p;
}

void binary_conv_bwd_input(const Device& device, const BinaryConvPlan& plan, void* dx, const void* dz, DType type,
                           const float* alpha, const word_t* w, int64_t n, Stream stream) {
  BinaryConvBwdParams p = bwd_params(plan.shape);
  p.dx = dx, p.dz = dz, p.alpha = alpha, p.w = w;
  p.pixels = n * plan.shape.H * plan.shape.W;
  launch(device, storage_kernel("binary_conv_bwd_input", type),
         LaunchShape(256, ceil_div(p.pixels, 64), ceil_div(plan.shape.C, 64)), p, stream);
}

int64_t binary_conv_bwd_weight_slices(const Conv2dShape& s, int64_t n) {
  const int64_t tiles = s.taps() * ceil_div(s.C, 64) * ceil_div(s.K, 64);
  return std::max<int64_t>(1, std::min({int64_t(64), n * s.P() * s.Q() / 256, ceil_div(1024, tiles)}));
}

void binary_conv_bwd_weight(const Device& device, const BinaryConvPlan& plan, float* dw, const word_t* x, const void* dz,
                            DType type, int64_t n, GradMode mode, void* workspace, Stream stream) {
  const Conv2dShape& s = plan.shape;
  BinaryConvBwdParams p = bwd_params(s);
  p.partial = static_cast<float*>(workspace), p.dz = dz, p.x = x;
  p.pixels = n * s.P() * s.Q();
  p.slices = int32_t(binary_conv_bwd_weight_slices(s, n));
  launch(device, storage_kernel("binary_conv_bwd_weight", type),
         LaunchShape(256, s.taps() * ceil_div(s.C, 64), ceil_div(s.K, 64), p.slices), p, stream);
  BinaryConvBwdWeightSumParams sum{dw, p.partial, s.K * s.taps() * s.C, p.slices, mode == GradMode::kAccumulate};
  launch(device, "binary_conv_bwd_weight_sum_kernel", LaunchShape(256, ceil_div(sum.count, 256)), sum, stream);
}

}  // namespace bireal::cuda
