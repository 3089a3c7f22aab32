// Tasks of bwd_input with tables in memory. See binary_conv_fixed16_lines.h.
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
  quad_block = std::max<int64_t>(1, kLineTerms / ring);
  quad_block = ceil_div(quads, ceil_div(quads, quad_block));
  const int64_t strip_bytes = quads * kLineTable * int64_t(sizeof(int32_t));
  auto strips = [&](int64_t count) { return ceil_div(count * Q, kLineColumns); };
  auto tables_fit = [&](int64_t count) { return ring * strips(count) * strip_bytes <= kLineBytes; };
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

  context.parallel(n + blocks, [&](int64_t task, int worker) {
    if (task >= n) {
      const int64_t block = task - n;
      fixed16_lines_weights(all_weights + block * s.taps() * quads * kLineChannels, w, block, s.K, s.C, s.R, s.S);
      return;
    }
    const float* image = dz + task * outputs;
    judge_image(kernel, magnitudes + task, falls_back + task, image, alpha, s,
                part<uint32_t>(workspace, workers + worker * worker_bytes + tables));
  });

  context.parallel(ceil_div(n, images) * row_blocks, [&](int64_t index, int worker) {
    const int64_t image = index / row_blocks * images, count = std::min(images, n - image);
    const int64_t used = round_up(count * Q, kLineColumns);
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
    Fixed16LineTask task;
    task.rows = part<const int32_t*>(own, row_tables);
    task.filter_rows = part<int64_t>(own, filter_rows);
    task.weights = all_weights, task.sums = line_sums;
    task.blocks = blocks, task.R = s.R, task.S = s.S, task.quads = quads, task.quad_block = quad_block, task.columns = used;
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

}  // namespace bireal::cpu
