// Forward pass of binary_conv: choice of the kernel, layout of the weights, staging of the activations, tasks. The backward
// passes are in binary_conv_cpu_backward.cpp.
#include <algorithm>
#include <cstring>

#include "cpu/context.h"
#include "ops/binary_conv/binary_conv.h"
#include "ops/binary_conv/binary_conv_cpu.h"
#include "ops/binary_conv/binary_conv_kernels.h"

namespace bireal::cpu {
namespace {

/// How a kernel wants its operands. `block` output channels lie side by side in the weights.
struct Kernel {
  const char* name;
  BinaryConvRun* run;
  DType v_type;
  Isa isa;
  int64_t block;
  bool nibbles;     // a byte per 4 channels instead of a word per 32
  bool makes_sums;  // adds up v and v^2 itself
};

/// Best first.
constexpr Kernel kKernels[] = {
    {"avx512_vpopcntdq", binary_conv_run_i16_avx512_vpopcnt, DType::kI16, Isa::kAvx512Vpopcntdq, 32, false, true},
    {"avx512_nibble_table", binary_conv_run_i16_avx512, DType::kI16, Isa::kAvx512, 64, true, true},
    {"avx2_nibble_table", binary_conv_run_i16_avx2, DType::kI16, Isa::kAvx2, 32, true, true},
    {"portable", binary_conv_run_i16, DType::kI16, Isa::kScalar, 32, false, false},
    {"avx512_vpopcntdq_i32", binary_conv_run_i32_avx512_vpopcnt, DType::kI32, Isa::kAvx512Vpopcntdq, 32, false, false},
    {"portable_i32", binary_conv_run_i32, DType::kI32, Isa::kScalar, 32, false, false},
};
constexpr int64_t kNibbles = kWordBits / 4;

bool runs_on(const Kernel& kernel, const Context& context, const Conv2dShape& shape) {
  return kernel.v_type == binary_conv_v_type(shape) && kernel.isa <= context.isa();
}

const Kernel& select_kernel(const Context& context, const Conv2dShape& shape) {
  for (const Kernel& kernel : kKernels) {
    // A last block of 64 channels with 32 or fewer would leave half of the vector idle: there AVX2 is as fast.
    if (kernel.block == 64 && shape.K <= 256 && (shape.K - 1) % 64 < 32) continue;
    if (runs_on(kernel, context, shape)) return kernel;
  }
  throw InvalidArgument("binary_conv: no kernel for " + shape.text());  // not reached: the portable ones run everywhere
}

const Kernel& kernel_named(const char* name) {
  for (const Kernel& kernel : kKernels)
    if (std::strcmp(kernel.name, name) == 0) return kernel;
  throw InvalidArgument(std::string("binary_conv: no kernel is named ") + name);
}

int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/// Everything about the forward pass that follows from shape and kernel; recomputed at each call, it is a few divisions.
struct Geometry {
  const Kernel& kernel;
  bool fused_sums;
  int64_t Cw, unit_bytes, row_units, padded_K, classes, weight_bytes, constant_bytes;
  bool staged;                                 // false: the kernel reads x itself (no border, no other units)
  int64_t task_images, task_rows, row_blocks;  // a task: whole images, or some rows of one
  int64_t pitch_units, image_units;            // of the staged activations (of x if not staged)
  int64_t staged_bytes, table_bytes, sums_bytes, worker_bytes;

  Geometry(const Kernel& chosen, const Conv2dShape& s) : kernel(chosen) {
    // The kernels add v^2 of two pixels in a signed 32-bit lane and of a tile in an unsigned one: fine up to |v| = 2^14.
    fused_sums = kernel.makes_sums && s.taps() * s.C <= 1 << 14;
    Cw = word_count(s.C);
    const int64_t units_per_word = kernel.nibbles ? kNibbles : 1;
    unit_bytes = kernel.nibbles ? 1 : int64_t(sizeof(word_t));
    row_units = s.S * Cw * units_per_word;
    padded_K = (s.K + kernel.block - 1) / kernel.block * kernel.block;
    classes = (s.pad + 1) * (s.pad + 1) * (s.pad + 1) * (s.pad + 1);
    weight_bytes = padded_K * s.R * row_units * unit_bytes;
    constant_bytes = classes * padded_K * int64_t(kernel.v_type == DType::kI16 ? sizeof(int16_t) : sizeof(int32_t));

    // About 224 pixels: 28 tiles, so that weights fetched from L2 are used often, and 10 to 100 us of work.
    const int64_t P = s.P(), Q = s.Q();
    task_images = P * Q < 48 ? (48 + P * Q - 1) / (P * Q) : 1;
    int64_t rows = std::min(P, std::max<int64_t>(1, (224 + Q / 2) / Q));
    row_blocks = (P + rows - 1) / rows;
    task_rows = (P + row_blocks - 1) / row_blocks;
    row_blocks = (P + task_rows - 1) / task_rows;

    staged = s.pad > 0 || kernel.nibbles;
    pitch_units = (staged ? s.W + 2 * s.pad : s.W) * Cw * units_per_word;
    const int64_t rows_in = (task_rows - 1) * s.stride + s.R;
    image_units = staged ? rows_in * pitch_units : s.H * pitch_units;
    staged_bytes = staged ? align64(task_images * image_units * unit_bytes) : 0;
    table_bytes = align64((2 * task_images * task_rows * Q + Q) * int64_t(sizeof(int32_t)));
    sums_bytes = align64(2 * padded_K * int64_t(sizeof(int64_t)));
    worker_bytes = staged_bytes + table_bytes + sums_bytes;
  }
};

// How many rows of the filter hang over the image before and after it at output index `p`.
int64_t border_class(int64_t p, const Conv2dShape& s, int64_t filter, int64_t image) {
  int64_t before = std::max<int64_t>(0, s.pad - p * s.stride);
  int64_t after = std::max<int64_t>(0, p * s.stride - s.pad + filter - image);
  return before * (s.pad + 1) + after;
}

void stage_words(const Kernel& kernel, void* target, int64_t at_word, const word_t* source, int64_t words) {
  if (!kernel.nibbles) {
    std::memcpy(static_cast<word_t*>(target) + at_word, source, size_t(words) * sizeof(word_t));
    return;
  }
  // 16 times the nibble: the offset of its table. All 8 nibbles of a word at once, each to its byte (little-endian, as every
  // machine with these kernels is).
  uint8_t* out = static_cast<uint8_t*>(target) + at_word * kNibbles;
  for (int64_t i = 0; i < words; ++i) {
    uint64_t spread = source[i];
    spread = (spread | spread << 16) & 0x0000FFFF0000FFFF;
    spread = (spread | spread << 8) & 0x00FF00FF00FF00FF;
    spread = (spread | spread << 4) & 0x0F0F0F0F0F0F0F0F;
    spread <<= 4;
    std::memcpy(out + i * kNibbles, &spread, sizeof spread);
  }
}

// Rows [first_row, first_row + rows) of the padded image, border as zero units.
void stage_image(const Geometry& g, const Conv2dShape& s, char* target, const word_t* image, int64_t first_row, int64_t rows) {
  const int64_t pitch_bytes = g.pitch_units * g.unit_bytes, pad_words = s.pad * g.Cw;
  const int64_t pad_bytes = pad_words * (g.kernel.nibbles ? kNibbles : int64_t(sizeof(word_t)));
  for (int64_t row = 0; row < rows; ++row, target += pitch_bytes) {
    const int64_t h = first_row + row - s.pad;
    if (h < 0 || h >= s.H) {
      std::memset(target, 0, size_t(pitch_bytes));
      continue;
    }
    std::memset(target, 0, size_t(pad_bytes));
    stage_words(g.kernel, target, pad_words, image + h * s.W * g.Cw, s.W * g.Cw);
    std::memset(target + pitch_bytes - pad_bytes, 0, size_t(pad_bytes));
  }
}

// sums [2, padded_K] += over the task's pixels, for kernels that do not do it themselves.
template <class V>
void add_sums(const BinaryConvTask& task, int64_t* sums) {
  const V* v = static_cast<const V*>(task.v);
  for (int64_t i = 0; i < task.pixel_count; ++i, v += task.K)
    for (int64_t k = 0; k < task.K; ++k) {
      sums[k] += v[k];
      sums[task.padded_K + k] += int64_t(v[k]) * v[k];
    }
}

BinaryConvPlan make_plan(Context& context, const Conv2dShape& shape, const char* kernel_name, BinaryConvGradient gradient) {
  shape.check("binary_conv");
  const int64_t limit = 1 << 30;
  require(shape.R < limit && shape.S < limit && shape.C < limit && shape.R * shape.S < limit && shape.taps() * shape.C < limit,
          "binary_conv: R*S*C must be < 2^30, got " + shape.text());
  require(shape.H < limit && shape.W < limit && shape.H * shape.W < limit &&
              (shape.H + 2 * shape.pad) * (shape.W + 2 * shape.pad) * word_count(shape.C) < limit / kNibbles,
          "binary_conv: a padded image must have fewer than 2^27 words of 32 channels, got " + shape.text());
  const Kernel& kernel = kernel_name ? kernel_named(kernel_name) : select_kernel(context, shape);
  require(runs_on(kernel, context, shape),
          std::string("binary_conv: kernel ") + kernel.name + " does not run " + shape.text() + " on this processor");
  const Geometry g(kernel, shape);
  BinaryConvPlan plan;
  plan.shape = shape;
  plan.v_type = kernel.v_type;
  plan.kernel_name = kernel.name;
  plan.prepared_bytes = align64(g.weight_bytes) + align64(g.constant_bytes);
  plan.workspace_bytes = context.thread_count() * g.worker_bytes;
  plan.gradient = gradient;
  plan.fallbacks = std::make_shared<std::atomic<int64_t>>(0);
  require(gradient >= BinaryConvGradient::kFloat32 && gradient <= BinaryConvGradient::kNone,
          "binary_conv: unknown gradient code " + std::to_string(int(gradient)));
  if (gradient == BinaryConvGradient::kNone) return plan;
  plan.backward = binary_conv_plan_backward(context, shape);
  const int64_t float32_bytes = binary_conv_backward_workspace_bytes(*plan.backward);
  plan.workspace_bytes = std::max(plan.workspace_bytes, float32_bytes);
  if (gradient == BinaryConvGradient::kFixed16) {
    plan.fixed16 = binary_conv_plan_fixed16(context, shape, float32_bytes);
    plan.workspace_bytes = std::max(plan.workspace_bytes, binary_conv_fixed16_workspace_bytes(*plan.fixed16));
  }
  return plan;
}

}  // namespace

BinaryConvPlan binary_conv_plan(Context& context, const Conv2dShape& shape, BinaryConvGradient gradient) {
  return make_plan(context, shape, nullptr, gradient);
}

BinaryConvPlan binary_conv_plan_kernel(Context& context, const Conv2dShape& shape, const char* kernel_name) {
  return make_plan(context, shape, kernel_name, BinaryConvGradient::kFloat32);
}

std::vector<const char*> binary_conv_kernel_names(const Context& context, const Conv2dShape& shape) {
  std::vector<const char*> names;
  for (const Kernel& kernel : kKernels)
    if (runs_on(kernel, context, shape)) names.push_back(kernel.name);
  return names;
}

void binary_conv_prepare(Context& context, const BinaryConvPlan& plan, void* prepared, const word_t* w) {
  const Conv2dShape& s = plan.shape;
  const Geometry g(kernel_named(plan.kernel_name), s);
  const int64_t words = s.taps() * g.Cw, block = g.kernel.block;
  char* constants = static_cast<char*>(prepared) + align64(g.weight_bytes);
  const bool narrow = plan.v_type == DType::kI16;
  auto get_constant = [&](int64_t border, int64_t k) -> int64_t {
    const int64_t i = border * g.padded_K + k;
    return narrow ? reinterpret_cast<uint16_t*>(constants)[i] : reinterpret_cast<uint32_t*>(constants)[i];
  };
  auto set_constant = [&](int64_t border, int64_t k, int64_t value) {
    const int64_t i = border * g.padded_K + k;
    if (narrow)
      reinterpret_cast<uint16_t*>(constants)[i] = uint16_t(value);
    else
      reinterpret_cast<uint32_t*>(constants)[i] = uint32_t(value);
  };
  context.parallel(g.padded_K / block, [&](int64_t task, int) {
    const int64_t k0 = task * block;
    const int64_t present = std::min(block, s.K - k0);
    char* target = static_cast<char*>(prepared) + task * (g.weight_bytes / (g.padded_K / block));
    std::memset(target, 0, size_t(g.weight_bytes / (g.padded_K / block)));
    if (g.kernel.nibbles) {
      for (int64_t channel = 0; channel < present; ++channel) {
        uint8_t* bytes = reinterpret_cast<uint8_t*>(target) + byte_of_channel(channel, block);
        for (int64_t word = 0; word < words; ++word)
          for (int64_t nibble = 0; nibble < kNibbles; ++nibble, bytes += block)
            *bytes = uint8_t(w[(k0 + channel) * words + word] >> (4 * nibble) & 15);
      }
    } else {
      word_t* lanes = reinterpret_cast<word_t*>(target);
      for (int64_t lane = 0; lane < block; ++lane) {
        const int64_t channel = word_lane_channel(lane);
        if (channel < present)
          for (int64_t word = 0; word < words; ++word) lanes[word * block + lane] = w[(k0 + channel) * words + word];
      }
    }
    // The staged border is +1, so an absent tap has counted popcount(w) where it should have counted nothing.
    for (int64_t k = k0; k < k0 + block; ++k) {
      for (int64_t border = 0; border < g.classes; ++border) set_constant(border, k, 0);
      for (int64_t tap = 0; tap < s.taps() && k < s.K; ++tap) {
        int64_t ones = 0;
        for (int64_t word = 0; word < g.Cw; ++word) ones += __builtin_popcount(w[(k * s.taps() + tap) * g.Cw + word]);
        const int64_t r = tap / s.S, t = tap % s.S, side = s.pad + 1;
        for (int64_t border = 0; border < g.classes; ++border) {
          const int64_t rows = border / (side * side), columns = border % (side * side);
          const bool inside = r >= rows / side && r < s.R - rows % side && t >= columns / side && t < s.S - columns % side;
          set_constant(border, k, get_constant(border, k) + (inside ? s.C : 2 * ones));
        }
      }
    }
  });
}

void binary_conv_fwd(Context& context, const BinaryConvPlan& plan, void* v, int64_t* sums, const word_t* x, const void* prepared,
                     int64_t n, void* workspace) {
  const Conv2dShape& s = plan.shape;
  const Geometry g(kernel_named(plan.kernel_name), s);
  const int64_t P = s.P(), Q = s.Q(), classes_in_row = (s.pad + 1) * (s.pad + 1);
  const int64_t v_bytes = plan.v_type == DType::kI16 ? sizeof(int16_t) : sizeof(int32_t);
  const int64_t largest = s.taps() * s.C;
  auto worker_sums = [&](int worker) {
    return reinterpret_cast<int64_t*>(static_cast<char*>(workspace) + worker * g.worker_bytes + g.staged_bytes + g.table_bytes);
  };
  if (sums)
    for (int worker = 0; worker < context.thread_count(); ++worker) std::memset(worker_sums(worker), 0, size_t(g.sums_bytes));

  const int64_t image_groups = (n + g.task_images - 1) / g.task_images;
  context.parallel(image_groups * g.row_blocks, [&](int64_t index, int worker) {
    const int64_t image = index / g.row_blocks * g.task_images, images = std::min(g.task_images, n - image);
    const int64_t p0 = index % g.row_blocks * g.task_rows, rows = std::min(g.task_rows, P - p0);
    char* staged = static_cast<char*>(workspace) + worker * g.worker_bytes;
    int32_t* pixel = reinterpret_cast<int32_t*>(staged + g.staged_bytes);
    int32_t* constant = pixel + g.task_images * g.task_rows * Q;
    int32_t* column_class = constant + g.task_images * g.task_rows * Q;

    BinaryConvTask task;
    if (g.staged) {
      for (int64_t i = 0; i < images; ++i)
        stage_image(g, s, staged + i * g.image_units * g.unit_bytes, x + (image + i) * s.H * s.W * g.Cw, p0 * s.stride,
                    (rows - 1) * s.stride + s.R);
      task.x = staged;
    } else {
      task.x = x + image * s.H * s.W * g.Cw + p0 * s.stride * g.pitch_units;
    }
    const int64_t step = s.stride * g.row_units / s.S;
    for (int64_t q = 0; q < Q; ++q) column_class[q] = int32_t(border_class(q, s, s.S, s.W) * g.padded_K);
    int64_t count = 0;
    for (int64_t i = 0; i < images; ++i)
      for (int64_t p = 0; p < rows; ++p) {
        const int32_t begin = int32_t(i * g.image_units + p * s.stride * g.pitch_units);
        const int32_t row_class = int32_t(border_class(p0 + p, s, s.R, s.H) * classes_in_row * g.padded_K);
        for (int64_t q = 0; q < Q; ++q, ++count) {
          pixel[count] = begin + int32_t(q * step);
          constant[count] = row_class + column_class[q];
        }
      }
    task.pixel = pixel;
    task.constant = constant;
    task.pixel_count = count;
    task.R = s.R;
    task.row_units = g.row_units;
    task.pitch_units = g.pitch_units;
    task.weights = prepared;
    task.constants = static_cast<const char*>(prepared) + align64(g.weight_bytes);
    task.K = s.K;
    task.padded_K = g.padded_K;
    task.v = static_cast<char*>(v) + ((image * P + p0) * Q) * s.K * v_bytes;
    task.sums = sums && g.fused_sums ? worker_sums(worker) : nullptr;
    task.tiles_per_flush = std::max<int64_t>(1, (int64_t(1) << 32) / (kTilePixels * largest * largest + 1));
    g.kernel.run(task);
    if (sums && !g.fused_sums) {
      if (plan.v_type == DType::kI16)
        add_sums<int16_t>(task, worker_sums(worker));
      else
        add_sums<int32_t>(task, worker_sums(worker));
    }
  });

  if (!sums) return;
  for (int64_t row = 0; row < 2; ++row)
    for (int64_t k = 0; k < s.K; ++k) {
      int64_t sum = 0;
      for (int worker = 0; worker < context.thread_count(); ++worker) sum += worker_sums(worker)[row * g.padded_K + k];
      sums[row * s.K + k] = sum;
    }
}

}  // namespace bireal::cpu
