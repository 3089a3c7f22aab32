// Tasks with tables in memory. See binary_conv_fixed16_lines.h.
#include "ops/binary_conv/binary_conv_fixed16_lines.h"

#include <cstring>

#include "cpu/context.h"
#include "ops/binary_conv/binary_conv_cpu_fixed16.h"

namespace bireal::cpu {

Fixed16InputLines::Fixed16InputLines(const Conv2dShape& s, int threads, int64_t head_bytes) {
  const int64_t Q = s.Q();
  quads = ceil_div(s.K, 4);
  blocks = ceil_div(s.C, kLineChannels);
  ring = ceil_div(s.R, s.stride);
  const int64_t strip_bytes = quads * kLineTable * int64_t(sizeof(int32_t));
  auto strips = [&](int64_t count) { return ceil_div(count * Q, kLineColumns); };
  const int64_t most_bytes = s.K <= 64 ? kNarrowLineBytes : kLineBytes;
  auto tables_fit = [&](int64_t count) { return ring * strips(count) * strip_bytes <= most_bytes; };
  pays = tables_fit(1);
  images = 1;  // fewest idle columns
  for (int64_t count = 2; count <= std::min<int64_t>(s.N, kLineColumns); ++count)
    if (strips(count) * images < strips(images) * count && tables_fit(count)) images = count;
  columns = strips(images) * kLineColumns;
  row_entries = columns / kLineColumns * quads * kLineTable + kLineColumns;  // not a power of two: sets of the caches
  // 16 tasks, but no fewer than 8 rows: the first R - 1 rows of tables are those of the task before.
  row_blocks = std::clamp(ceil_div(16, ceil_div(s.N, images)), int64_t(1), ceil_div(s.H, 8));
  rows = ceil_div(s.H, row_blocks);
  row_blocks = ceil_div(s.H, rows);
  margin = round_up(s.S + kLineColumns, kLineColumns);

  Parts parts, worker;
  parts.bytes = head_bytes;
  weights = parts.add(blocks * s.taps() * quads * kLineChannels, 1);
  inside = parts.add(round_up(Q, kLineColumns) + 2 * margin, sizeof(int32_t));
  tables = worker.add(std::max(ring * row_entries, s.K), sizeof(int32_t));  // first the magnitudes by channel
  sums = worker.add(blocks * s.S * kLineChannels * columns + 2 * margin, sizeof(int32_t));
  sources = worker.add(columns, sizeof(const float*));
  inverses = worker.add(columns, sizeof(float));
  row_tables = worker.add(s.R, sizeof(const int32_t*));
  filter_rows = worker.add(s.R, sizeof(int64_t));
  ahead = worker.add(2 * images, sizeof(Fixed16LineAhead));
  worker_bytes = worker.bytes;
  workers = parts.add(threads, worker_bytes);
  bytes = parts.bytes;
}

void Fixed16InputLines::run(Context& context, const Conv2dShape& s, const Fixed16Kernel& kernel, uint32_t* magnitudes,
                            char* falls_back, float* dx, const float* dz, const float* alpha, const word_t* w, int64_t n,
                            void* workspace) const {
  const int64_t P = s.P(), Q = s.Q(), outputs = s.output_count(1), inputs = s.input_count(1);
  uint8_t* all_weights = part<uint8_t>(workspace, weights);
  int32_t* is_inside = part<int32_t>(workspace, inside) + margin;
  std::fill(is_inside - margin, is_inside, 0);
  std::fill(is_inside, is_inside + Q, -1);
  std::fill(is_inside + Q, is_inside + round_up(Q, kLineColumns) + margin, 0);

  auto judge = [&](int64_t image, int worker) {
    judge_image(kernel, magnitudes + image, falls_back + image, dz + image * outputs, alpha, s,
                part<uint32_t>(workspace, workers + worker * worker_bytes + tables));
  };
  const bool judged_by_task = row_blocks == 1;  // then dz is still in the caches
  context.parallel(blocks + (judged_by_task ? 0 : n), [&](int64_t task, int worker) {
    if (task < blocks)
      fixed16_lines_weights(all_weights + task * s.taps() * quads * kLineChannels, w, task, s.K, s.C, s.R, s.S);
    else
      judge(task - blocks, worker);
  });

  context.parallel(ceil_div(n, images) * row_blocks, [&](int64_t index, int worker) {
    const int64_t image = index / row_blocks * images, count = std::min(images, n - image);
    const int64_t used = round_up(count * Q, kLineColumns);
    for (int64_t i = 0; judged_by_task && i < count; ++i) judge(image + i, worker);
    char* own = part<char>(workspace, workers + worker * worker_bytes);
    int32_t* line_tables = part<int32_t>(own, tables);
    int32_t* line_sums = part<int32_t>(own, sums) + margin;
    const float** source = part<const float*>(own, sources);
    float* inverse = part<float>(own, inverses);
    for (int64_t column = 0; column < used; ++column) {  // behind the last image: its last column, for nobody
      const int64_t at = std::min(column, count * Q - 1), i = image + at / Q;
      source[column] = dz + i * outputs + at % Q * s.K;
      inverse[column] = falls_back[i] ? 0.0f : fixed16_inverse(magnitudes[i]);
    }
    Fixed16LineAhead* pieces = part<Fixed16LineAhead>(own, ahead);
    Fixed16LineTask task;
    task.ahead = pieces;
    task.rows = part<const int32_t*>(own, row_tables);
    task.filter_rows = part<int64_t>(own, filter_rows);
    task.weights = all_weights, task.sums = line_sums;
    task.blocks = blocks, task.R = s.R, task.S = s.S, task.quads = quads, task.columns = used;
    Fixed16LineImage out;
    out.inside = is_inside;
    out.W = s.W, out.Q = Q, out.C = s.C, out.S = s.S, out.stride = s.stride, out.pad = s.pad, out.columns = used;

    const int64_t h_begin = index % row_blocks * rows, h_end = std::min(s.H, h_begin + rows);
    int64_t staged = std::max<int64_t>(0, ceil_div(std::max<int64_t>(0, h_begin + s.pad - (s.R - 1)), s.stride));
    for (int64_t h = h_begin; h < h_end; ++h) {
      for (; staged < P && staged * s.stride <= h + s.pad; ++staged)
        fixed16_lines_stage(line_tables + staged % ring * row_entries, source, staged * Q * s.K, inverse, alpha, used, s.K);
      task.row_count = 0;
      for (int64_t r = (h + s.pad) % s.stride; r < s.R && r <= h + s.pad; r += s.stride) {
        const int64_t p = (h + s.pad - r) / s.stride;
        if (p >= P) continue;
        part<const int32_t*>(own, row_tables)[task.row_count] = line_tables + p % ring * row_entries;
        part<int64_t>(own, filter_rows)[task.row_count++] = r;
      }
      task.ahead_count = 0;
      for (int64_t i = 0; i < count; ++i) {
        pieces[task.ahead_count++] = {dx + (image + i) * inputs + h * s.W * s.C, s.W * s.C};
        if (staged < P) pieces[task.ahead_count++] = {dz + (image + i) * outputs + staged * Q * s.K, Q * s.K};
      }
      fixed16_lines_add(task);
      for (int64_t i = 0; i < count; ++i) {
        if (falls_back[image + i]) continue;
        out.sums = line_sums + i * Q;
        out.dx = dx + (image + i) * inputs + h * s.W * s.C;
        out.step = fixed16_step(magnitudes[image + i]);
        fixed16_lines_finish(out);
      }
    }
  });
}

Fixed16WeightLines::Fixed16WeightLines(const Conv2dShape& s, int threads, int64_t head_bytes) {
  const int64_t P = s.P(), Q = s.Q(), side = (s.pad + 1) * (s.pad + 1), Cw = word_count(s.C);
  padded_K = round_up(s.K, kLineColumns);
  padded_C = round_up(s.C, kLineChannels);
  k_block = std::min<int64_t>(padded_K, 64);
  k_blocks = ceil_div(padded_K, k_block);
  c_words = std::min<int64_t>(Cw, 4);
  c_blocks = ceil_div(Cw, c_words);
  classes = side * side;
  phases = std::min(s.stride, s.R);
  const int64_t halo = (s.R - 1) / s.stride;  // lines of x that a phase has more than lines of dz

  // Entries of a chunk lie in a second-level cache beside the sums of 16 output channels.
  auto line_quads = [&](int64_t count) { return ceil_div(count * Q, 4); };
  auto most_rows = [&](int64_t count) {
    return std::min(96 * 1024 / (s.S * c_words * kWordBits * line_quads(count) * phases) - halo, kFixed16Terms / (count * Q));
  };
  rows = std::clamp(most_rows(1), int64_t(1), P);
  row_blocks = ceil_div(P, rows);
  rows = ceil_div(P, row_blocks);
  row_blocks = ceil_div(P, rows);
  images = 1;
  // Loading and storing the sums of a block of quads takes as long as 10 pixels.
  auto cost = [&](int64_t count) {
    const int64_t quads = rows * line_quads(count);
    return double(4 * quads + 10 * ceil_div(quads, kLineTerms)) / double(count);
  };
  for (int64_t count = 2; row_blocks == 1 && count <= std::min<int64_t>(s.N, 16) && most_rows(count) >= P; ++count)
    if (cost(count) < cost(images)) images = count;
  phase_lines = rows + halo;

  // 16 tasks, but slices of 1024 pixels or more: below that, adding them up costs more than a few percent.
  const int64_t wanted = std::min(ceil_div(16, k_blocks * c_blocks), s.N * P * Q / 1024);
  const int64_t least = ceil_div(chunks(s.N), std::max<int64_t>(1, kFixed16Terms / (images * rows * Q)));  // sums in 32 bits
  max_slices = std::min(std::max({int64_t(1), wanted, least}), chunks(s.N));

  Parts parts, worker;
  parts.bytes = head_bytes;
  slice_sums = padded_K * s.taps() * padded_C;
  class_sums = parts.add(max_slices * classes * padded_K, sizeof(int32_t));
  class_totals = parts.add(classes * padded_K, sizeof(double));
  squares = parts.add(max_slices * padded_K, sizeof(int64_t));
  sums = parts.add(max_slices * slice_sums, sizeof(int32_t));
  x = worker.add(((rows - 1) * s.stride + s.R) * images * (s.W + 2 * s.pad) * c_words, sizeof(word_t));
  columns = worker.add(4 * line_quads(images), sizeof(int32_t));
  pixels = worker.add(4 * line_quads(images) * rows, sizeof(const float*));
  pixel_classes = worker.add(4 * line_quads(images) * rows, sizeof(int32_t));
  column_classes = worker.add(Q, sizeof(int32_t));
  entries = worker.add(s.S * c_words * kWordBits * phases * phase_lines * line_quads(images), 1);
  filter_rows = worker.add(s.R, sizeof(int64_t));
  tables = worker.add(kLineTerms * kLineTable, sizeof(int32_t));
  worker_bytes = worker.bytes;
  workers = parts.add(threads, worker_bytes);
  bytes = parts.bytes;
}

void Fixed16WeightLines::run(Context& context, const Conv2dShape& s, const float* inverses, bool needs_squares,
                             const word_t* words, const float* dz, int64_t n, void* workspace) const {
  const int64_t P = s.P(), Q = s.Q(), Cw = word_count(s.C), taps = s.taps(), side = (s.pad + 1) * (s.pad + 1);
  const int64_t chunk_count = chunks(n), slice_count = slices(n), pitch = s.W + 2 * s.pad;
  context.parallel(k_blocks * c_blocks * slice_count, [&](int64_t index, int worker) {
    const int64_t slice = index / (k_blocks * c_blocks), block = index % (k_blocks * c_blocks);
    const int64_t word = block % c_blocks * c_words, here = std::min(c_words, Cw - word);
    const int64_t k0 = block / c_blocks * k_block, k1 = std::min(padded_K, k0 + k_block), present = std::min(s.K, k1) - k0;
    char* own = part<char>(workspace, workers + worker * worker_bytes);
    word_t* lines = part<word_t>(own, x);
    int32_t* column = part<int32_t>(own, columns);
    const float** pixel = part<const float*>(own, pixels);
    int32_t* pixel_class = part<int32_t>(own, pixel_classes);
    int32_t* column_class = part<int32_t>(own, column_classes);
    for (int64_t q = 0; q < Q; ++q) column_class[q] = int32_t(border_class(q, s, s.S, s.W));
    uint8_t* all_entries = part<uint8_t>(own, entries);
    int64_t* row_bytes = part<int64_t>(own, filter_rows);
    int32_t* block_tables = part<int32_t>(own, tables);
    int32_t* own_classes = part<int32_t>(workspace, class_sums) + slice * classes * padded_K;
    int64_t* own_squares = part<int64_t>(workspace, squares) + slice * padded_K;
    if (word == 0) {
      for (int64_t border = 0; border < classes; ++border)
        std::fill(own_classes + border * padded_K + k0, own_classes + border * padded_K + k1, 0);
      std::fill(own_squares + k0, own_squares + k1, int64_t(0));
    }
    Fixed16LineWeight task;
    task.tables = block_tables, task.rows = row_bytes;
    task.R = s.R, task.S = s.S, task.row_channels = padded_C;
    task.blocks = ceil_div(std::min(s.C - word * kWordBits, here * kWordBits), kLineChannels);
    task.entry_blocks = here * kWordBits / kLineChannels;

    const int64_t first_chunk = chunk_count * slice / slice_count, end_chunk = chunk_count * (slice + 1) / slice_count;
    for (int64_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
      const int64_t image = chunk / row_blocks * images, count = std::min(images, n - image);
      const int64_t p0 = chunk % row_blocks * rows, row_count = std::min(rows, P - p0);
      const int64_t row_quads = ceil_div(count * Q, 4), quads = row_count * row_quads, line = count * pitch * here;
      for (int64_t j = 0; j < 4 * row_quads; ++j) {
        const int64_t at = std::min(j, count * Q - 1);  // behind the last image: its last column, for tables of 0
        column[j] = int32_t((at / Q * pitch + at % Q * s.stride) * here);
      }
      for (int64_t p = 0; p < row_count; ++p) {
        const float** target = pixel + 4 * p * row_quads;
        int32_t* target_class = pixel_class + 4 * p * row_quads;
        const int64_t row_class = border_class(p0 + p, s, s.R, s.H) * side;
        for (int64_t i = 0; i < count; ++i, target += Q, target_class += Q) {
          const float* source = dz + ((image + i) * P + p0 + p) * Q * s.K;
          for (int64_t q = 0; q < Q; ++q) {
            target[q] = source + q * s.K;
            target_class[q] = int32_t(row_class + column_class[q]);
          }
        }
        std::fill(target, pixel + 4 * (p + 1) * row_quads, nullptr);
      }
      task.block_bytes = phases * phase_lines * row_quads * kLineChannels;
      for (int64_t r = 0; r < s.R; ++r) row_bytes[r] = (r % s.stride * phase_lines + r / s.stride) * row_quads * kLineChannels;
      for (int64_t y = 0; y < (row_count - 1) * s.stride + s.R; ++y) {
        if (y % s.stride >= s.R) continue;
        // A row of x of all images, with a border of zero bits (+1).
        word_t* target = lines + y * line;
        const int64_t h = p0 * s.stride + y - s.pad;
        std::fill(target, target + line, word_t(0));
        for (int64_t i = 0; i < count && h >= 0 && h < s.H; ++i) {
          const word_t* source = words + ((image + i) * s.H + h) * s.W * Cw + word;
          word_t* inner = target + (i * pitch + s.pad) * here;
          if (here == Cw)
            std::copy_n(source, s.W * Cw, inner);
          else
            for (int64_t w = 0; w < s.W; ++w)
              for (int64_t j = 0; j < here; ++j) inner[w * here + j] = source[w * Cw + j];
        }
        for (int64_t t = 0; t < s.S; ++t)
          fixed16_lines_entries(all_entries + t * task.entry_blocks * task.block_bytes +
                                    (y % s.stride * phase_lines + y / s.stride) * row_quads * kLineChannels,
                                task.block_bytes, target + t * here, column, row_quads, here);
      }

      const int64_t quad_block = ceil_div(quads, ceil_div(quads, kLineTerms));
      for (int64_t k = k0; k < k1; k += kLineColumns) {
        task.sums = part<int32_t>(workspace, sums) + slice * slice_sums +
                    (k / kLineColumns * taps * padded_C + word * kWordBits) * kLineColumns;
        for (int64_t first = 0; first < quads; first += quad_block) {
          task.quads = std::min(quad_block, quads - first);
          task.entries = all_entries + first * kLineChannels;
          task.first = chunk == first_chunk && first == 0;
          task.next = pixel, task.next_k = k + kLineColumns, task.next_count = 0;
          if (first + quad_block < quads) {
            task.next += 4 * (first + quad_block), task.next_k = k;
            task.next_count = 4 * std::min(quad_block, quads - first - quad_block);
          } else if (k + kLineColumns < k1) {
            task.next_count = 4 * quad_block;
          }
          fixed16_lines_weight_stage(block_tables, pixel + 4 * first, inverses, task.quads, k, s.K);
          fixed16_lines_weight_add(task);
        }
      }
      if (word != 0) continue;
      // The border is staged as +1: what it has added there is taken off again, tap by tap, in the end.
      for (int64_t i = 0; i < 4 * quads; ++i)
        if (pixel[i] && (needs_squares || pixel_class[i] != 0))
          fixed16_lines_pixel(pixel_class[i] == 0 ? nullptr : own_classes + pixel_class[i] * padded_K + k0,
                              needs_squares ? own_squares + k0 : nullptr, pixel[i] + k0, inverses + k0, present);
    }
  });
}

}  // namespace bireal::cpu
