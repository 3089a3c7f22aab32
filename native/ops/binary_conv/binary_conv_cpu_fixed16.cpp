// Fixed-point backward passes of binary_conv: scales, staging, tasks. The rule and the kernels' interface are in
// binary_conv_fixed16.h.
#include <algorithm>
#include <cstring>
#include <memory>

#include "cpu/context.h"
#include "ops/binary_conv/binary_conv_cpu.h"
#include "ops/binary_conv/binary_conv_cpu_fixed16.h"
#include "ops/binary_conv/binary_conv_fixed16_lines.h"

namespace bireal::cpu {
namespace {

const Fixed16Kernel& select_kernel(const Context& context) {
  if (context.isa() >= Isa::kAvx512) return kFixed16Avx512;
  if (context.isa() >= Isa::kAvx2) return kFixed16Avx2;
  return kFixed16Portable;
}

// bwd_input: a task is some rows of an image, with the tables of the dz rows that they see.
struct InputGeometry {
  bool fits;
  int64_t quads, halo, columns, row_entries, rows, row_blocks, staged_rows, blocks;
  int64_t magnitudes, flags, head_bytes, weights, workers, tables, scratch, worker_bytes, bytes;

  InputGeometry(const Conv2dShape& s, const Fixed16Kernel& kernel, int threads, int64_t float32_bytes) {
    fits = s.taps() * s.K <= kFixed16Terms;
    Parts head, area, worker;
    magnitudes = head.add(s.N, sizeof(uint32_t));
    flags = head.add(s.N, 1);
    head_bytes = area.bytes = head.bytes;
    bytes = head_bytes + float32_bytes;
    if (!kernel.run_input) return;

    quads = ceil_div(s.K, 4);
    halo = ceil_div(s.S - 1 - s.pad, s.stride);
    columns = halo + std::max(s.Q(), (s.W - 1 + s.pad) / s.stride + 1);
    row_entries = quads * columns * kernel.entries;
    // 640 kB of tables stay in a second-level cache of 1 MB beside the weights of a block.
    const int64_t budget = std::max<int64_t>(1, 640 * 1024 / (row_entries * int64_t(sizeof(int32_t))));
    rows = budget >= s.P() ? s.H : std::clamp((budget - 1) * s.stride - (s.R - 2), int64_t(1), s.H);
    row_blocks = ceil_div(s.H, rows);
    rows = ceil_div(s.H, row_blocks);
    row_blocks = ceil_div(s.H, rows);
    staged_rows = std::min(s.P(), (rows + s.R - 2) / s.stride + 1);
    blocks = ceil_div(s.C, kernel.input_vectors * kernel.lanes);

    weights = area.add(blocks * s.taps() * quads * kernel.input_vectors * kernel.index_words, sizeof(int32_t));
    tables = worker.add(std::max(staged_rows * row_entries, s.K), sizeof(int32_t));  // first the magnitudes by channel
    scratch = worker.add(4 * quads, sizeof(int16_t));
    worker_bytes = worker.bytes;
    workers = area.add(threads, worker_bytes);
    bytes = std::max(area.bytes, bytes);
  }
};

// bwd_weight: a task is a block of output channels, a block of input channels and a slice of the batch. The slice is a run of
// chunks: whole images, or some rows of one.
struct WeightGeometry {
  bool fits;
  int64_t padded_K, padded_C, chunk_images, chunk_rows, row_blocks, chunk_quads;
  int64_t k_block, k_blocks, c_block, c_blocks, slices, classes, slice_sums, pitch;
  int64_t maxima, magnitudes, inverses, flags, head_bytes, class_sums, class_totals, squares, sums, workers;
  int64_t spread, pixels, pixel_classes, index, pairs, tables, worker_bytes, bytes;

  WeightGeometry(const Conv2dShape& s, const Fixed16Kernel& kernel, int threads, int64_t float32_bytes) {
    const int64_t P = s.P(), Q = s.Q(), target = 256;  // pixels of a chunk: then storing a tile's sums is 1/60 of the work
    fits = Q <= kFixed16Terms;
    Parts head, area, worker;
    maxima = head.add(Context::kSlices * s.K, sizeof(uint32_t));
    magnitudes = head.add(s.K, sizeof(uint32_t));
    inverses = head.add(s.K, sizeof(float));
    flags = head.add(s.K, 1);
    head_bytes = area.bytes = head.bytes;
    bytes = head_bytes + dense_bytes(s) + float32_bytes;
    if (!kernel.run_weight) return;

    padded_K = ceil_div(s.K, 4) * 4;
    padded_C = round_up(s.C, kernel.lanes);
    chunk_images = std::clamp(target / (P * Q), int64_t(1), s.N);
    chunk_rows = std::clamp(target / Q, int64_t(1), P);
    row_blocks = ceil_div(P, chunk_rows);
    chunk_rows = ceil_div(P, row_blocks);
    row_blocks = ceil_div(P, chunk_rows);
    const int64_t chunk_pixels = chunk_images * chunk_rows * Q;
    chunk_quads = ceil_div(chunk_pixels, 4);

    c_block = std::min<int64_t>(padded_C, 128);
    c_blocks = ceil_div(padded_C, c_block);
    k_block = std::min<int64_t>(padded_K, 128);
    k_blocks = ceil_div(padded_K, k_block);
    // 16 tasks, but slices of 2048 pixels or more: below that, adding them up costs more than a few percent.
    const int64_t wanted = std::min(ceil_div(16, k_blocks * c_blocks), s.N * P * Q / 2048);
    const int64_t least = ceil_div(chunks(s.N), std::max<int64_t>(1, kFixed16Terms / chunk_pixels));  // sums in 32 bits
    slices = std::min(std::max({int64_t(1), wanted, least}), chunks(s.N));
    classes = (s.pad + 1) * (s.pad + 1) * (s.pad + 1) * (s.pad + 1);
    slice_sums = padded_K * s.taps() * padded_C;
    pitch = s.W + 2 * s.pad;

    class_sums = area.add(slices * classes * padded_K, sizeof(int32_t));
    class_totals = area.add(classes * padded_K, sizeof(double));
    squares = area.add(slices * padded_K, sizeof(int64_t));
    sums = area.add(slices * slice_sums, sizeof(int32_t));
    spread = worker.add(chunk_images * ((chunk_rows - 1) * s.stride + s.R) * pitch * c_block / 16, sizeof(uint64_t));
    pixels = worker.add(4 * chunk_quads, sizeof(int32_t));
    pixel_classes = worker.add(4 * chunk_quads, sizeof(int32_t));
    index = worker.add(s.taps() * c_block / kernel.lanes * kernel.index_words * chunk_quads, sizeof(int32_t));
    pairs = worker.add(2 * chunk_quads * padded_K, sizeof(uint32_t));
    tables = worker.add(chunk_quads * kernel.channel_block * kernel.entries, sizeof(int32_t));
    worker_bytes = worker.bytes;
    workers = area.add(threads, worker_bytes);
    bytes = std::max(area.bytes, bytes);
  }
  int64_t chunks(int64_t n) const { return ceil_div(n, chunk_images) * row_blocks; }
  static int64_t dense_bytes(const Conv2dShape& s) { return round_up(s.K * s.taps() * s.C * int64_t(sizeof(float)), 64); }
};

bool tap_outside(int64_t border, int64_t tap, int64_t filter, int64_t pad) {
  return tap < border / (pad + 1) || tap >= filter - border % (pad + 1);
}

/// A chunk's part of x: its rows with a border of zero bits (+1), one bit in 4, `groups` of 16 channels from c0 on.
void stage_spread(uint64_t* out, const word_t* x, const Conv2dShape& s, int64_t images, int64_t first_row, int64_t rows,
                  int64_t c0, int64_t groups) {
  const int64_t Cw = word_count(s.C), border = s.pad * groups, row_groups = s.W * groups + 2 * border;
  for (int64_t image = 0; image < images; ++image)
    for (int64_t row = 0; row < rows; ++row, out += row_groups) {
      const int64_t h = first_row + row - s.pad;
      if (h < 0 || h >= s.H) {
        std::fill(out, out + row_groups, uint64_t(0));
        continue;
      }
      std::fill(out, out + border, uint64_t(0));
      std::fill(out + row_groups - border, out + row_groups, uint64_t(0));
      const word_t* source = x + (image * s.H + h) * s.W * Cw + c0 / kWordBits;
      uint64_t* target = out + border;
      for (int64_t w = 0; w < s.W; ++w, source += Cw)
        for (int64_t group = 0; group < groups; ++group) *target++ = fixed16_spread(source[group / 2] >> (group % 2 * 16));
    }
}

void input_by_tables(Context& context, const InputGeometry& g, const Conv2dShape& s, const Fixed16Kernel& kernel,
                     uint32_t* magnitudes, char* falls_back, float* dx, const float* dz, const float* alpha, const word_t* w,
                     int64_t n, void* workspace) {
  const int64_t outputs = s.output_count(1), inputs = s.input_count(1), P = s.P(), Q = s.Q();
  int32_t* weights = part<int32_t>(workspace, g.weights);
  const int64_t weight_row = s.S * g.quads * kernel.input_vectors * kernel.index_words;
  auto worker_part = [&](int worker, int64_t at) { return g.workers + worker * g.worker_bytes + at; };

  context.parallel(n + g.blocks * s.R, [&](int64_t task, int worker) {
    if (task >= n) {
      task -= n;
      kernel.prepare_weights(weights + task * weight_row, w, task / s.R, task % s.R, s.K, s.C, s.R, s.S, s.stride);
      return;
    }
    judge_image(kernel, magnitudes + task, falls_back + task, dz + task * outputs, alpha, s,
                part<uint32_t>(workspace, worker_part(worker, g.tables)));
  });

  context.parallel(n * g.row_blocks, [&](int64_t index, int worker) {
    const int64_t image = index / g.row_blocks;
    if (falls_back[image]) return;
    Fixed16InputTask task;
    task.h_begin = index % g.row_blocks * g.rows;
    task.h_end = std::min(s.H, task.h_begin + g.rows);
    const int64_t top = task.h_begin + s.pad - (s.R - 1);
    task.first_p = top > 0 ? ceil_div(top, s.stride) : 0;
    const int64_t last_p = std::min(P - 1, (task.h_end - 1 + s.pad) / s.stride);
    int32_t* tables = part<int32_t>(workspace, worker_part(worker, g.tables));
    for (int64_t p = task.first_p; p <= last_p; ++p)
      kernel.stage_row(tables + (p - task.first_p) * g.row_entries, part<int16_t>(workspace, worker_part(worker, g.scratch)),
                       dz + image * outputs + p * Q * s.K, alpha, fixed16_inverse(magnitudes[image]), Q, s.K, g.columns, g.halo);
    task.tables = tables;
    task.weights = weights;
    task.dx = dx + image * inputs;
    task.step = fixed16_step(magnitudes[image]);
    task.W = s.W, task.C = s.C, task.R = s.R, task.S = s.S, task.stride = s.stride, task.pad = s.pad, task.P = P;
    task.quads = g.quads, task.columns = g.columns, task.halo = g.halo;
    kernel.run_input(task);
  });
}

// Sums of +-q of a batch: [slice][k][tap][channels], and their squares [slice][padded_K].
struct WeightSums {
  const int32_t* sums;
  int64_t slice_sums, channels, slices;
  const int64_t* squares;
  int64_t padded_K;
  const int32_t* class_sums;  // [slice][class][padded_K]
  double* class_totals;       // [k][class]
  int64_t classes;            // border classes whose sums are to be taken off again
};

WeightSums weight_by_tables(Context& context, const WeightGeometry& g, const Conv2dShape& s, const Fixed16Kernel& kernel,
                            const float* inverses, bool needs_squares, const word_t* x, const float* dz, int64_t n,
                            void* workspace) {
  const int64_t P = s.P(), Q = s.Q(), taps = s.taps(), side = (s.pad + 1) * (s.pad + 1);
  int32_t* class_sums = part<int32_t>(workspace, g.class_sums);
  int64_t* squares = part<int64_t>(workspace, g.squares);
  int32_t* sums = part<int32_t>(workspace, g.sums);
  const int64_t chunks = g.chunks(n), slices = std::min(g.slices, chunks);
  context.parallel(g.k_blocks * g.c_blocks * slices, [&](int64_t index, int worker) {
    const int64_t slice = index / (g.k_blocks * g.c_blocks), block = index % (g.k_blocks * g.c_blocks);
    const int64_t c0 = block % g.c_blocks * g.c_block, groups = std::min(g.c_block, g.padded_C - c0) / 16;
    const int64_t k0 = block / g.c_blocks * g.k_block, k1 = std::min(g.padded_K, k0 + g.k_block);
    char* own = part<char>(workspace, g.workers + worker * g.worker_bytes);
    uint64_t* spread = part<uint64_t>(own, g.spread);
    int32_t* pixel = part<int32_t>(own, g.pixels);
    int32_t* pixel_class = part<int32_t>(own, g.pixel_classes);
    uint32_t* pairs = part<uint32_t>(own, g.pairs);
    int32_t* slice_class_sums = class_sums + slice * g.classes * g.padded_K;
    int64_t* slice_squares = squares + slice * g.padded_K;
    if (c0 == 0) {
      for (int64_t border = 0; border < g.classes; ++border)
        std::fill(slice_class_sums + border * g.padded_K + k0, slice_class_sums + border * g.padded_K + k1, 0);
      std::fill(slice_squares + k0, slice_squares + k1, int64_t(0));
    }
    Fixed16WeightTask task;
    task.index = part<int32_t>(own, g.index);
    task.pairs = pairs;
    task.tables = part<int32_t>(own, g.tables);
    task.sums = sums + slice * g.slice_sums + c0;
    task.pitch = g.padded_K, task.k_begin = k0, task.k_end = k1;
    task.taps = taps, task.sum_channels = g.padded_C, task.vectors = groups * 16 / kernel.lanes;

    const int64_t first_chunk = chunks * slice / slices, end_chunk = chunks * (slice + 1) / slices;
    for (int64_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
      const int64_t image = chunk / g.row_blocks * g.chunk_images, images = std::min(g.chunk_images, n - image);
      const int64_t p0 = chunk % g.row_blocks * g.chunk_rows, rows = std::min(g.chunk_rows, P - p0);
      const int64_t rows_in = (rows - 1) * s.stride + s.R;
      stage_spread(spread, x + image * s.H * s.W * word_count(s.C), s, images, p0 * s.stride, rows_in, c0, groups);
      int64_t count = 0;
      for (int64_t i = 0; i < images; ++i)
        for (int64_t p = 0; p < rows; ++p) {
          const int64_t row_class = border_class(p0 + p, s, s.R, s.H) * side;
          for (int64_t q = 0; q < Q; ++q, ++count) {
            pixel[count] = int32_t(((i * rows_in + p * s.stride) * g.pitch + q * s.stride) * groups);
            pixel_class[count] = int32_t(row_class + border_class(q, s, s.S, s.W));
          }
        }
      task.quads = ceil_div(count, 4);
      std::fill(pixel + count, pixel + 4 * task.quads, 0);
      kernel.quantise_pairs(pairs, dz + (image * P + p0) * Q * s.K, inverses, count, task.quads, s.K, g.padded_K, k0, k1);
      kernel.expand_index(part<int32_t>(own, g.index), spread, pixel, task.quads, groups, g.pitch * groups, s.R, s.S);
      task.first = chunk == first_chunk;
      kernel.run_weight(task);
      if (c0 != 0) continue;
      // The border is staged as +1: what it has added there is taken off again, tap by tap, in the end.
      for (int64_t i = 0; i < count; ++i) {
        const uint32_t* q = pairs + i / 2 * g.padded_K;
        const int left = i % 2 ? 0 : 16;
        int32_t* target = slice_class_sums + pixel_class[i] * g.padded_K;
        if (pixel_class[i] != 0)
          for (int64_t k = k0; k < k1; ++k) target[k] += int32_t(q[k] << left) >> 16;
        if (needs_squares)
          for (int64_t k = k0; k < k1; ++k) {
            const int64_t value = int32_t(q[k] << left) >> 16;
            slice_squares[k] += value * value;
          }
      }
    }
  });
  return {sums,     g.slice_sums, g.padded_C, slices, squares, g.padded_K, class_sums, part<double>(workspace, g.class_totals),
          g.classes};
}

}  // namespace

struct BinaryConvPlan::Fixed16 {
  const Fixed16Kernel& kernel;
  InputGeometry input;
  WeightGeometry weight;
  std::unique_ptr<const Fixed16InputLines> input_lines;    // AVX2 alone
  std::unique_ptr<const Fixed16WeightLines> weight_lines;  // AVX2 alone
  std::unique_ptr<const Fixed16InputTiles> input_tiles;    // null without AMX
  std::unique_ptr<const Fixed16WeightTiles> weight_tiles;
  Fixed16(const Context& context, const Conv2dShape& s, int64_t float32_bytes)
      : kernel(select_kernel(context)),
        input(s, kernel, context.thread_count(), float32_bytes),
        weight(s, kernel, context.thread_count(), float32_bytes) {
    if (context.isa() == Isa::kAvx2) {
      input_lines = std::make_unique<const Fixed16InputLines>(s, context.thread_count(), input.head_bytes);
      weight_lines = std::make_unique<const Fixed16WeightLines>(s, context.thread_count(), weight.head_bytes);
      input.bytes = std::max(input_lines->bytes, input.bytes);
      weight.bytes = std::max(weight_lines->bytes, weight.bytes);
    }
    if (context.isa() < Isa::kAmx) return;
    input_tiles = std::make_unique<Fixed16InputTiles>(s, context.thread_count(), input.head_bytes);
    weight_tiles = std::make_unique<Fixed16WeightTiles>(s, context.thread_count(), weight.head_bytes);
    input.bytes = std::max(input_tiles->bytes, input.head_bytes + float32_bytes);
    weight.bytes = std::max(weight_tiles->bytes, weight.head_bytes + WeightGeometry::dense_bytes(s) + float32_bytes);
  }
};

std::shared_ptr<const BinaryConvPlan::Fixed16> binary_conv_plan_fixed16(Context& context, const Conv2dShape& shape,
                                                                        int64_t float32_bytes) {
  return std::make_shared<const BinaryConvPlan::Fixed16>(context, shape, float32_bytes);
}

int64_t binary_conv_fixed16_workspace_bytes(const BinaryConvPlan::Fixed16& fixed16) {
  return std::max(fixed16.input.fits ? fixed16.input.bytes : 0, fixed16.weight.fits ? fixed16.weight.bytes : 0);
}

bool binary_conv_bwd_input_fixed16(Context& context, const BinaryConvPlan& plan, float* dx, const float* dz, const float* alpha,
                                   const word_t* w, int64_t n, void* workspace) {
  const Conv2dShape& s = plan.shape;
  const InputGeometry& g = plan.fixed16->input;
  const Fixed16Kernel& kernel = plan.fixed16->kernel;
  if (!g.fits) return false;
  const int64_t outputs = s.output_count(1), inputs = s.input_count(1);
  uint32_t* magnitudes = part<uint32_t>(workspace, g.magnitudes);
  char* falls_back = part<char>(workspace, g.flags);

  if (plan.fixed16->input_lines) {
    plan.fixed16->input_lines->run(context, s, kernel, magnitudes, falls_back, dx, dz, alpha, w, n, workspace);
  } else if (plan.fixed16->input_tiles) {
    plan.fixed16->input_tiles->run(context, s, kernel, magnitudes, falls_back, dx, dz, alpha, w, n, workspace);
  } else {
    input_by_tables(context, g, s, kernel, magnitudes, falls_back, dx, dz, alpha, w, n, workspace);
  }

  for (int64_t image = 0; image < n; ++image)
    if (falls_back[image]) {
      plan.fallbacks->fetch_add(1, std::memory_order_relaxed);
      binary_conv_bwd_input_float32(context, plan, dx + image * inputs, dz + image * outputs, alpha, w, 1,
                                    part<char>(workspace, g.head_bytes));
    }
  return true;
}

bool binary_conv_bwd_weight_fixed16(Context& context, const BinaryConvPlan& plan, float* dw, const word_t* x, const float* dz,
                                    int64_t n, GradMode mode, void* workspace) {
  const Conv2dShape& s = plan.shape;
  const WeightGeometry& g = plan.fixed16->weight;
  const Fixed16Kernel& kernel = plan.fixed16->kernel;
  if (!g.fits) return false;
  const int64_t P = s.P(), Q = s.Q(), pixels = n * P * Q, taps = s.taps(), side = (s.pad + 1) * (s.pad + 1);
  uint32_t* maxima = part<uint32_t>(workspace, g.maxima);
  uint32_t* magnitudes = part<uint32_t>(workspace, g.magnitudes);
  float* inverses = part<float>(workspace, g.inverses);
  char* falls_back = part<char>(workspace, g.flags);

  context.parallel(Context::kSlices, [&](int64_t slice, int) {
    uint32_t* max = maxima + slice * s.K;
    std::fill(max, max + s.K, 0u);
    const int64_t begin = Context::slice_begin(pixels, slice);
    kernel.magnitudes(max, dz + begin * s.K, nullptr, Context::slice_begin(pixels, slice + 1) - begin, s.K);
  });
  for (int64_t k = 0; k < s.K; ++k) {
    uint32_t m = 0;
    for (int64_t slice = 0; slice < Context::kSlices; ++slice) m = std::max(m, maxima[slice * s.K + k]);
    magnitudes[k] = m;
    falls_back[k] = !fixed16_fits(m);
    inverses[k] = falls_back[k] ? 0.0f : fixed16_inverse(m);
  }

  const bool needs_squares = pixels > kFixed16SpreadCount;
  const Fixed16WeightLines* lines = plan.fixed16->weight_lines.get();
  WeightSums found;
  if (const Fixed16WeightTiles* tiles = plan.fixed16->weight_tiles.get()) {
    tiles->run(context, s, inverses, needs_squares, x, dz, n, workspace);
    found = {part<int32_t>(workspace, tiles->sums),
             tiles->slice_sums,
             tiles->padded_C,
             tiles->slices(n),
             part<int64_t>(workspace, tiles->squares),
             tiles->padded_K,
             nullptr,
             nullptr,
             0};
  } else if (lines) {
    lines->run(context, s, inverses, needs_squares, x, dz, n, workspace);
    found = {part<int32_t>(workspace, lines->sums),
             lines->slice_sums,
             lines->padded_C,
             lines->slices(n),
             part<int64_t>(workspace, lines->squares),
             lines->padded_K,
             part<int32_t>(workspace, lines->class_sums),
             part<double>(workspace, lines->class_totals),
             lines->classes};
  } else {
    found = weight_by_tables(context, g, s, kernel, inverses, needs_squares, x, dz, n, workspace);
  }

  auto outside = [&](int64_t border, int64_t tap) {
    return tap_outside(border / side, tap / s.S, s.R, s.pad) || tap_outside(border % side, tap % s.S, s.S, s.pad);
  };
  const bool accumulate = mode == GradMode::kAccumulate;
  context.parallel(s.K, [&](int64_t k, int) {
    if (needs_squares && magnitudes[k] != 0 && !falls_back[k]) {
      double total = 0;
      for (int64_t slice = 0; slice < found.slices; ++slice) total += double(found.squares[slice * found.padded_K + k]);
      falls_back[k] = fixed16_too_spread(total, pixels);
    }
    if (falls_back[k]) return;
    for (int64_t border = 0; border < found.classes; ++border) {
      double total = 0;
      for (int64_t slice = 0; slice < found.slices; ++slice)
        total += found.class_sums[(slice * found.classes + border) * found.padded_K + k];
      found.class_totals[k * found.classes + border] = total;
    }
    if (lines) return;
    for (int64_t tap = 0; tap < taps; ++tap) {
      double correction = 0;
      for (int64_t border = 1; border < found.classes; ++border)
        if (outside(border, tap)) correction += found.class_totals[k * found.classes + border];
      kernel.finish(dw + (k * taps + tap) * s.C, found.sums + (k * taps + tap) * found.channels, found.slice_sums, found.slices,
                    correction, fixed16_step(magnitudes[k]), s.C, accumulate);
    }
  });
  if (lines)
    context.parallel(ceil_div(s.K, kLineColumns) * taps, [&](int64_t index, int) {
      const int64_t k0 = index / taps * kLineColumns, tap = index % taps;
      float* out[kLineColumns] = {};
      double corrections[kLineColumns] = {}, steps[kLineColumns] = {};
      for (int64_t k = k0; k < std::min(s.K, k0 + kLineColumns); ++k) {
        if (falls_back[k]) continue;
        out[k - k0] = dw + (k * taps + tap) * s.C;
        steps[k - k0] = fixed16_step(magnitudes[k]);
        corrections[k - k0] = found.class_totals[k * found.classes];  // the sum of |q|
      }
      for (int64_t border = 1; border < found.classes; ++border)
        if (outside(border, tap))
          for (int64_t k = k0; k < std::min(s.K, k0 + kLineColumns); ++k)
            corrections[k - k0] += found.class_totals[k * found.classes + border];
      fixed16_lines_weight_finish(out, found.sums + index * found.channels * kLineColumns, found.slice_sums, found.slices,
                                  corrections, steps, s.C, accumulate);
    });

  const int64_t fallbacks = std::count(falls_back, falls_back + s.K, char(1));
  if (fallbacks == 0) return true;
  plan.fallbacks->fetch_add(fallbacks, std::memory_order_relaxed);
  const int64_t row = taps * s.C;
  float* dense = part<float>(workspace, g.head_bytes);
  binary_conv_bwd_weight_float32(context, plan, dense, x, dz, n, GradMode::kOverwrite,
                                 part<char>(workspace, g.head_bytes + g.dense_bytes(s)));
  for (int64_t k = 0; k < s.K; ++k)
    if (falls_back[k])
      for (int64_t i = k * row; i < (k + 1) * row; ++i) dw[i] = mode == GradMode::kAccumulate ? dw[i] + dense[i] : dense[i];
  return true;
}

}  // namespace bireal::cpu
