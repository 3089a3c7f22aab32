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
  bool nibbles;     // 16 bits per 4 channels of a pair of pixels instead of a word per 32 of one; needs AVX2
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
/// A y of that size does not wait in the caches, nor does its shortcut. Measured at 0.8, 1.6 and 3.2 MB: only the last gains.
constexpr int64_t kFetchedBytes = 2 << 20;

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

int64_t size_of(DType v_type) { return v_type == DType::kI16 ? sizeof(int16_t) : sizeof(int32_t); }

/// Everything about the forward pass that follows from shape and kernel; recomputed at each call, it is a few divisions.
struct Geometry {
  const Kernel& kernel;
  bool fused_sums;
  int64_t Cw, unit_bytes, row_units, padded_K, classes, weight_bytes, constant_bytes;
  bool staged;                                 // false: the kernel reads x itself (no border, no other units)
  bool pairs_images;                           // nibbles: pairs of images, else of neighbours in a column
  int64_t column_units;                        // BinaryConvTask
  int64_t task_images, task_rows, row_blocks;  // a task: whole images, or some rows of one
  int64_t pitch_units, image_units;            // of the staged activations (of x if not staged)
  int64_t staged_bytes, odd_bytes, table_bytes, sums_bytes, value_bytes, worker_bytes;

  Geometry(const Kernel& chosen, const Conv2dShape& s) : kernel(chosen) {
    // The kernels add v^2 of two pixels in a signed 32-bit lane and of a tile in an unsigned one: fine up to |v| = 2^14.
    fused_sums = kernel.makes_sums && s.taps() * s.C <= 1 << 14;
    Cw = word_count(s.C);
    const int64_t units_per_word = kernel.nibbles ? kNibbles : 1;
    unit_bytes = kernel.nibbles ? sizeof(uint16_t) : sizeof(word_t);
    row_units = s.S * Cw * units_per_word;
    padded_K = (s.K + kernel.block - 1) / kernel.block * kernel.block;
    classes = (s.pad + 1) * (s.pad + 1) * (s.pad + 1) * (s.pad + 1);
    weight_bytes = padded_K * s.R * row_units * (kernel.nibbles ? 1 : int64_t(sizeof(word_t)));
    constant_bytes = classes * padded_K * size_of(kernel.v_type);

    // About 224 pixels: 28 tiles or more, so that weights fetched from L2 are used often, and 10 to 100 us of work.
    const int64_t P = s.P(), Q = s.Q();
    task_images = P * Q < 48 ? (48 + P * Q - 1) / (P * Q) : 1;
    int64_t rows = std::min(P, std::max<int64_t>(1, (224 + Q / 2) / Q));
    row_blocks = (P + rows - 1) / rows;
    task_rows = (P + row_blocks - 1) / row_blocks;
    // An odd number of rows leaves the second half of the last pairs idle.
    pairs_images = kernel.nibbles && P % 2 == 1 && row_blocks == 1 && s.N > 1;
    if (pairs_images) task_images += task_images % 2;
    if (kernel.nibbles && row_blocks > 1) task_rows += task_rows % 2;
    row_blocks = (P + task_rows - 1) / task_rows;
    column_units = kernel.nibbles && s.S == 3 && s.stride == 1 ? Cw * kNibbles : 0;

    staged = s.pad > 0 || kernel.nibbles;
    pitch_units = (staged ? s.W + 2 * s.pad : s.W) * Cw * units_per_word;
    const int64_t rows_in = staged_rows(s, task_rows);
    image_units = staged ? rows_in * pitch_units : s.H * pitch_units;
    staged_bytes = staged ? align64(task_images * image_units * unit_bytes) : 0;
    odd_bytes = kernel.nibbles ? align64((task_images * task_rows * Q + s.W + 2 * s.pad + Q) * int64_t(sizeof(int16_t))) : 0;
    table_bytes = align64((3 * task_images * task_rows * 2 * Q + Q) * int64_t(sizeof(int32_t)));
    sums_bytes = align64(2 * padded_K * int64_t(sizeof(int64_t)));
    value_bytes = align64(task_images * task_rows * Q * s.K * size_of(kernel.v_type));
    worker_bytes = staged_bytes + odd_bytes + table_bytes + sums_bytes + value_bytes;
  }

  /// Rows of units for so many output rows. Where pairs stand in a column, a row of units has the next in its second halves.
  int64_t staged_rows(const Conv2dShape& s, int64_t rows) const {
    return (kernel.nibbles && !pairs_images ? (rows - 1) / 2 * 2 : rows - 1) * s.stride + s.R;
  }
};

// How many rows of the filter hang over the image before and after it at output index `p`.
int64_t border_class(int64_t p, const Conv2dShape& s, int64_t filter, int64_t image) {
  int64_t before = std::max<int64_t>(0, s.pad - p * s.stride);
  int64_t after = std::max<int64_t>(0, p * s.stride - s.pad + filter - image);
  return before * (s.pad + 1) + after;
}

// Rows [first_row, first_row + rows) of the padded image, border as zero words.
void stage_image(const Geometry& g, const Conv2dShape& s, word_t* target, const word_t* image, int64_t first_row, int64_t rows) {
  const int64_t pad_words = s.pad * g.Cw;
  for (int64_t row = 0; row < rows; ++row, target += g.pitch_units) {
    const int64_t h = first_row + row - s.pad;
    if (h < 0 || h >= s.H) {
      std::fill(target, target + g.pitch_units, word_t(0));
      continue;
    }
    std::fill(target, target + pad_words, word_t(0));
    std::copy_n(image + h * s.W * g.Cw, s.W * g.Cw, target + pad_words);
    std::fill(target + g.pitch_units - pad_words, target + g.pitch_units, word_t(0));
  }
}

// The same in pairs of nibbles, as the offset of their table: of an image and the one behind it (`second`, perhaps null: zeros),
// or, where !g.pairs_images, of a pixel and the one that the next output row sees in its place.
void stage_pairs(const Geometry& g, const Conv2dShape& s, uint16_t* target, const word_t* image, const word_t* second,
                 int64_t first_row, int64_t rows) {
  const int64_t row_words = s.W * g.Cw, pad_units = s.pad * g.Cw * kNibbles;
  const int shift = g.kernel.block == 64 ? 6 : 5;
  auto row_of = [&](const word_t* from, int64_t h) { return from && h >= 0 && h < s.H ? from + h * row_words : nullptr; };
  for (int64_t row = 0; row < rows; ++row, target += g.pitch_units) {
    const int64_t h = first_row + row - s.pad;
    const word_t *a = row_of(image, h), *b = g.pairs_images ? row_of(second, h) : row_of(image, h + s.stride);
    std::fill(target, target + pad_units, uint16_t(0));
    binary_conv_nibble_pairs_avx2(target + pad_units, a, b, row_words, shift);
    std::fill(target + g.pitch_units - pad_units, target + g.pitch_units, uint16_t(0));
  }
}

// odd [rows, Q]: twice the number of odd nibbles in the window of each output pixel from row p0 on. scratch [W + 2 pad + Q].
void count_odd_nibbles(const Geometry& g, const Conv2dShape& s, int16_t* odd, int16_t* scratch, const word_t* image, int64_t p0,
                       int64_t rows) {
  const int64_t Q = s.Q(), width = s.W + 2 * s.pad;
  int16_t* window = scratch + width;
  std::fill(odd, odd + rows * Q, int16_t(0));
  std::fill(scratch, scratch + width, int16_t(0));
  for (int64_t row = 0; row < (rows - 1) * s.stride + s.R; ++row) {
    const int64_t h = p0 * s.stride + row - s.pad;
    if (h < 0 || h >= s.H) continue;
    binary_conv_odd_nibbles_avx2(scratch + s.pad, image + h * s.W * g.Cw, s.W, g.Cw);
    std::fill(window, window + Q, int16_t(0));
    for (int64_t column = 0; column < s.S; ++column)
      if (s.stride == 1)  // a loop of its own: gcc computes 8 at a time
        for (int64_t q = 0; q < Q; ++q) window[q] = int16_t(window[q] + scratch[q + column]);
      else
        for (int64_t q = 0; q < Q; ++q) window[q] = int16_t(window[q] + scratch[q * s.stride + column]);
    const int64_t first = row < s.R ? 0 : (row - s.R) / s.stride + 1;  // output rows that see this one
    for (int64_t p = first; p < rows && p * s.stride <= row; ++p)
      for (int64_t q = 0; q < Q; ++q) odd[p * Q + q] = int16_t(odd[p * Q + q] + window[q]);
  }
}

// sums [2, padded_K] += over the task's pixels, for kernels that do not do it themselves.
template <class V>
void add_sums(const BinaryConvTask& task, int64_t pixels, int64_t* sums) {
  const V* v = static_cast<const V*>(task.v);
  for (int64_t i = 0; i < pixels; ++i, v += task.K)
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
      const int64_t columns = g.column_units ? 3 : 1, column_words = s.S * g.Cw / columns, step = columns * block;
      const word_t* from = w + k0 * words;
      uint8_t* row = reinterpret_cast<uint8_t*>(target);
      for (int64_t r = 0; r < s.R; ++r, row += g.row_units * block)
        for (int64_t column = 0; column < columns; ++column)
          for (int64_t word = 0; word < column_words; ++word, ++from)
            for (int64_t channel = 0; channel < present; ++channel) {
              uint8_t* unit = row + (word * kNibbles * columns + column) * block + byte_of_channel(channel, block);
              const word_t bits = from[channel * words];
              for (int nibble = 0; nibble < kNibbles; ++nibble, unit += step) *unit = uint8_t(bits >> (4 * nibble) & 15);
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
        int64_t ones = 0, odd = 0;
        for (int64_t word = 0; word < g.Cw; ++word) {
          const word_t bits = w[(k * s.taps() + tap) * g.Cw + word];
          ones += __builtin_popcount(bits);
          odd += odd_nibbles(bits);
        }
        const int64_t r = tap / s.S, t = tap % s.S, side = s.pad + 1;
        for (int64_t border = 0; border < g.classes; ++border) {
          const int64_t rows = border / (side * side), columns = border % (side * side);
          const bool inside = r >= rows / side && r < s.R - rows % side && t >= columns / side && t < s.S - columns % side;
          set_constant(border, k, get_constant(border, k) + (inside ? s.C : 2 * ones) - (g.kernel.nibbles ? 2 * odd : 0));
        }
      }
    }
  });
}

namespace {

/// What becomes of v: it is written, with its sums where they are not null; or each task's is normalised at once and forgotten.
struct Output {
  void* v = nullptr;
  int64_t* sums = nullptr;
  const BatchNormApply* norm = nullptr;
  float* y = nullptr;
  word_t* bits = nullptr;
};

void convolve(Context& context, const BinaryConvPlan& plan, const Output& out, const word_t* x, const void* prepared, int64_t n,
              void* workspace) {
  const Conv2dShape& s = plan.shape;
  const Geometry g(kernel_named(plan.kernel_name), s);
  const int64_t P = s.P(), Q = s.Q(), classes_in_row = (s.pad + 1) * (s.pad + 1);
  int64_t* const sums = out.sums;
  const bool fetches = out.norm && n * P * Q * s.K * int64_t(sizeof(float)) >= kFetchedBytes;
  const int64_t largest = s.taps() * s.C;
  auto worker_sums = [&](int worker) {
    return reinterpret_cast<int64_t*>(static_cast<char*>(workspace) + worker * g.worker_bytes + g.staged_bytes + g.odd_bytes +
                                      g.table_bytes);
  };
  if (sums)
    for (int worker = 0; worker < context.thread_count(); ++worker) std::memset(worker_sums(worker), 0, size_t(g.sums_bytes));

  const int64_t image_groups = (n + g.task_images - 1) / g.task_images;
  context.parallel(image_groups * g.row_blocks, [&](int64_t index, int worker) {
    const int64_t image = index / g.row_blocks * g.task_images, images = std::min(g.task_images, n - image);
    const int64_t p0 = index % g.row_blocks * g.task_rows, rows = std::min(g.task_rows, P - p0);
    char* staged = static_cast<char*>(workspace) + worker * g.worker_bytes;
    int16_t *odd = reinterpret_cast<int16_t*>(staged + g.staged_bytes), *odd_scratch = odd + g.task_images * g.task_rows * Q;
    int32_t* pixel = reinterpret_cast<int32_t*>(staged + g.staged_bytes + g.odd_bytes);
    const int64_t most = g.task_images * g.task_rows * 2 * Q;
    int32_t *constant = pixel + most, *output = constant + most, *column_class = output + most;

    BinaryConvTask task;
    task.x = g.staged ? staged : static_cast<const void*>(x + image * s.H * s.W * g.Cw + p0 * s.stride * g.pitch_units);
    const int64_t image_words = s.H * s.W * g.Cw, rows_in = g.staged_rows(s, rows);
    const int64_t image_step = g.pairs_images ? 2 : 1, row_step = g.kernel.nibbles && !g.pairs_images ? 2 : 1;
    const int64_t step = s.stride * g.row_units / s.S;
    for (int64_t q = 0; q < Q; ++q) column_class[q] = int32_t(border_class(q, s, s.S, s.W) * g.padded_K);
    int64_t count = 0;
    for (int64_t i = 0; i < images; i += image_step) {
      const word_t* source = x + (image + i) * image_words;
      void* target = staged + i / image_step * g.image_units * g.unit_bytes;
      if (g.kernel.nibbles)
        stage_pairs(g, s, static_cast<uint16_t*>(target), source,
                    g.pairs_images && i + 1 < images ? source + image_words : nullptr, p0 * s.stride, rows_in);
      else if (g.staged)
        stage_image(g, s, static_cast<word_t*>(target), source, p0 * s.stride, rows_in);
      if (g.kernel.nibbles)
        for (int64_t j = i; j < i + image_step && j < images; ++j)
          count_odd_nibbles(g, s, odd + j * rows * Q, odd_scratch, x + (image + j) * image_words, p0, rows);
      for (int64_t p = 0; p < rows; p += row_step) {
        const int32_t begin = int32_t(i / image_step * g.image_units + p * s.stride * g.pitch_units);
        const bool both = g.pairs_images ? i + 1 < images : p + 1 < rows;
        const int32_t row_class = int32_t(border_class(p0 + p, s, s.R, s.H) * classes_in_row * g.padded_K),
                      second_class = both && !g.pairs_images
                                         ? int32_t(border_class(p0 + p + 1, s, s.R, s.H) * classes_in_row * g.padded_K)
                                         : row_class;
        for (int64_t q = 0; q < Q; ++q, ++count) {
          pixel[count] = begin + int32_t(q * step);
          if (!g.kernel.nibbles) {
            constant[count] = row_class + column_class[q];
            continue;
          }
          const int32_t at = int32_t((i * rows + p) * Q + q);
          constant[2 * count] = row_class + column_class[q];
          constant[2 * count + 1] = second_class + column_class[q];
          output[2 * count] = at;
          output[2 * count + 1] = both ? at + int32_t(g.pairs_images ? rows * Q : Q) : -1;
        }
      }
    }
    task.pixel = pixel;
    task.constant = constant;
    task.output = output;
    task.pixel_count = count;
    task.odd = odd;
    task.column_units = g.column_units;
    task.R = s.R;
    task.row_units = g.row_units;
    task.pitch_units = g.pitch_units;
    task.weights = prepared;
    task.constants = static_cast<const char*>(prepared) + align64(g.weight_bytes);
    task.K = s.K;
    task.padded_K = g.padded_K;
    const int64_t first = (image * P + p0) * Q, pixels = images * rows * Q;
    task.v = out.norm ? reinterpret_cast<char*>(worker_sums(worker)) + g.sums_bytes
                      : static_cast<char*>(out.v) + first * s.K * size_of(plan.v_type);
    task.y = fetches ? out.y + first * s.K : nullptr;
    task.shortcut = fetches && out.norm->shortcut ? out.norm->shortcut + first * s.K : nullptr;
    task.sums = sums && g.fused_sums ? worker_sums(worker) : nullptr;
    task.tiles_per_flush = std::max<int64_t>(1, (int64_t(1) << 32) / (kTilePixels * largest * largest + 1));
    g.kernel.run(task);
    if (sums && !g.fused_sums) {
      if (plan.v_type == DType::kI16)
        add_sums<int16_t>(task, pixels, worker_sums(worker));
      else
        add_sums<int32_t>(task, pixels, worker_sums(worker));
    }
    if (out.norm) {
      BatchNormApply norm = *out.norm;
      norm.v = task.v;
      norm.v_type = plan.v_type;
      batch_norm_apply_rows(context, out.y, out.bits, norm, first, first + pixels, s.K);
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

}  // namespace

void binary_conv_fwd(Context& context, const BinaryConvPlan& plan, void* v, int64_t* sums, const word_t* x, const void* prepared,
                     int64_t n, void* workspace) {
  Output out;
  out.v = v;
  out.sums = sums;
  convolve(context, plan, out, x, prepared, n, workspace);
}

void binary_conv_norm_fwd(Context& context, const BinaryConvPlan& plan, float* y, word_t* bits, const BatchNormApply& norm,
                          const word_t* x, const void* prepared, int64_t n, void* workspace) {
  Output out;
  out.norm = &norm;
  out.y = y;
  out.bits = bits;
  convolve(context, plan, out, x, prepared, n, workspace);
}

}  // namespace bireal::cpu
