#include <algorithm>
#include <cstring>
#include <limits>

#include "cuda/launch.h"
#include "ops/binary_conv/binary_conv.h"
#include "ops/binary_conv/binary_conv_params.h"

namespace bireal::cuda {

namespace {

struct FwdKernel {
  const char* name;      // of the plan
  const char* function;  // of the device; for popc without "_i16_kernel"
  int channels, row;     // of a block, and words of a column in shared memory
  bool mma;
  int64_t shared_limit;  // dynamic bytes
};

// Best to worst.
const FwdKernel kFwdKernels[] = {
    {"mma_wide", "binary_conv_fwd_mma_wide_kernel", 128, 136, true, 64 * 1024},
    {"mma_narrow", "binary_conv_fwd_mma_narrow_kernel", 64, 72, true, kMoreSharedBytes},
    {"popc", "binary_conv_fwd_popc", 64, 66, false, kSharedBytes - 1024},  // less its static sums
};

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
      if (kernel.mma)
        shared_bytes += 16 * kernel.channels + 4 * (p.columns + halo_h * halo_w + 64 + (s.R + 1) * (s.S + 1) * kernel.channels);
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
  if (!device.has_kernel(kernel.function) || binary_conv_v_type(s) != DType::kI16) return false;
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

BinaryConvPlan binary_conv_plan(const Device& device, const Conv2dShape& shape, const char* kernel) {
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
    plan.kernel_name = names.size() == 1 ? names[0] : binary_conv_fastest(device, plan, names);
  }
  return plan;
}

const char* binary_conv_fastest(const Device& device, const BinaryConvPlan& plan, const std::vector<const char*>& names) {
  // As many images as fit 64 MB of output, at most the plan's; the values do not matter to the time.
  Conv2dShape s = plan.shape;
  const int64_t v_bytes = s.output_count(1) * (plan.v_type == DType::kI16 ? 2 : 4), x_bytes = s.H * s.W * word_count(s.C) * 4;
  const int64_t images = std::max<int64_t>(1, std::min<int64_t>(s.N, (int64_t(64) << 20) / (v_bytes + x_bytes)));
  const auto aligned = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
  const int64_t w_bytes = s.K * s.taps() * word_count(s.C) * 4, sums_bytes = 2 * s.K * 8;
  const int64_t offsets[] = {0, aligned(images * v_bytes), aligned(images * x_bytes), aligned(w_bytes), aligned(sums_bytes)};
  const Driver& driver = device.driver();
  Measurement m{driver};
  device.make_current();
  int64_t total = 0;
  for (int64_t bytes : offsets) total += bytes;
  driver.check(driver.cuMemAlloc(&m.memory, size_t(total)), "binary_conv_plan");
  driver.check(driver.cuStreamCreate(&m.stream, 1), "binary_conv_plan");
  driver.check(driver.cuMemsetD8Async(m.memory, 0x5A, size_t(total), m.stream), "binary_conv_plan");
  driver.check(driver.cuEventCreate(&m.begin, 0), "binary_conv_plan");
  driver.check(driver.cuEventCreate(&m.end, 0), "binary_conv_plan");
  char* base = reinterpret_cast<char*>(m.memory);
  void* v = base;
  const word_t* x = reinterpret_cast<const word_t*>(base + offsets[1]);
  const word_t* w = reinterpret_cast<const word_t*>(base + offsets[1] + offsets[2]);
  int64_t* sums = reinterpret_cast<int64_t*>(base + offsets[1] + offsets[2] + offsets[3]);
  const char* best = names[0];
  float best_ms = std::numeric_limits<float>::infinity();
  for (const char* name : names) {
    BinaryConvPlan trial = plan;
    trial.kernel_name = name;
    for (int run = 0; run < 4; ++run) {  // the first warms up
      float ms = 0;
      driver.check(driver.cuEventRecord(m.begin, m.stream), "binary_conv_plan");
      binary_conv_fwd(device, trial, v, sums, x, w, images, m.stream);
      driver.check(driver.cuEventRecord(m.end, m.stream), "binary_conv_plan");
      driver.check(driver.cuEventSynchronize(m.end), "binary_conv_plan");
      driver.check(driver.cuEventElapsedTime(&ms, m.begin, m.end), "binary_conv_plan");
      if (run > 0 && ms < best_ms) best_ms = ms, best = name;
    }
  }
  return best;
}

void binary_conv_fwd(const Device& device, const BinaryConvPlan& plan, void* v, int64_t* sums, const word_t* x, const word_t* w,
                     int64_t n, Stream stream) {
  const FwdKernel& kernel = kernel_of(plan.kernel_name);
  BinaryConvFwdParams p{};
  int64_t shared_bytes = 0;
  lay_out(p, shared_bytes, plan.shape, kernel);
  p.v = v, p.sums = reinterpret_cast<unsigned long long*>(sums), p.x = x, p.w = w;
  p.tiles = n * p.tiles_p * p.tiles_q;
  const int64_t groups = ceil_div(plan.shape.K, kernel.channels);
  // Two blocks fit a multiprocessor; each walks over its share of the tiles.
  const int64_t blocks = std::min<int64_t>(p.tiles, std::max<int64_t>(1, ceil_div(2 * device.multiprocessor_count(), groups)));
  const std::string function =
      kernel.mma ? kernel.function : std::string(kernel.function) + "_" + type_suffix(plan.v_type) + "_kernel";
  launch(device, function, LaunchShape(256, blocks, groups, 1, shared_bytes), p, stream);
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
