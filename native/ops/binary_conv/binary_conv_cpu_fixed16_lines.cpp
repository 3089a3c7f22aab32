// Tasks with tables in memory. See binary_conv_fixed16_lines.h.
#include "ops/binary_conv/binary_conv_fixed16_lines.h"

#include <algorithm>

#include "cpu/context.h"
#include "ops/binary_conv/binary_conv_cpu_fixed16.h"

namespace bireal::cpu {

// bwd_weight: groups of a round, all of five terms.
enum { kWeightGroups = kLineTerms / kLineValues };

// H of a strip: how far its fields may be filled, and whether fields were flushed into its sums.
struct StripState {
  int64_t filled = 0;  // 0: H is all zeros, or not there yet
  bool flushed = false;

  /// Makes room for a round whose largest sum of |q| is `largest`, with flush(whether it is the first). Returns whether the
  /// round overwrites H.
  template <class Flush>
  bool takes(int64_t largest, const Flush& flush) {
    if (filled + largest > kLineField) {
      flush(!flushed);
      flushed = true;
      filled = 0;
    }
    const bool first = filled == 0;
    filled += largest;
    return first;
  }
};

// Whether the last strip of a line is.
static bool is_narrow(int64_t columns) {
  const int64_t last = columns % kLineColumns;
  return last != 0 && last <= kLineNarrow;
}

Fixed16LineFetcher::Fixed16LineFetcher(const Fixed16LineAhead* pieces, int64_t count, int64_t tiles)
    : piece(pieces), end(pieces + count), share(0) {
  for (const Fixed16LineAhead* p = piece; p < end; ++p) share += (p->count + kLineFetch - 1) / kLineFetch;
  share = (share + tiles - 1) / tiles;
}

Fixed16InputLines::Fixed16InputLines(const Conv2dShape& s, int threads, int64_t head_bytes) {
  const int64_t Q = s.Q(), all_blocks = ceil_div(s.C, kLineChannels);
  rounds = ceil_div(s.K, kLineTerms);
  round_channels = std::min<int64_t>(kLineTerms, round_up(ceil_div(s.K, rounds), kLineValues));
  round_groups = ceil_div(round_channels, kLineValues);

  // H of the rows of dx that a row of dz reaches stays in a second-level cache of 512 kB, beside entries and dz. Costs in
  // cycles: the tables of a group, and its share of a tile; a narrow strip takes half.
  const int64_t block_bytes = s.taps() * kLineChannels * kLineWords * int64_t(sizeof(int64_t));
  auto strips_of = [&](int64_t count) { return ceil_div(count * Q, kLineColumns); };
  double least = 0;
  for (int64_t count = 1; count <= std::min<int64_t>(s.N, kLineColumns); ++count) {
    const int64_t most_blocks = std::max<int64_t>(1, kLineSumBytes / (strips_of(count) * block_bytes));
    const int64_t parts_of_C = ceil_div(all_blocks, most_blocks);
    const double work = double(strips_of(count)) - (is_narrow(count * Q) ? 0.5 : 0.0);
    const double cost = work / double(count) * double(95 * parts_of_C + 12 * s.taps() * all_blocks);
    if (count > 1 && (cost >= least || strips_of(count) * block_bytes > kLineSumBytes)) continue;
    least = cost, images = count, c_parts = parts_of_C;
  }
  blocks = ceil_div(all_blocks, c_parts);
  c_parts = ceil_div(all_blocks, blocks);
  strips = strips_of(images);
  // 16 tasks, but no fewer than 8 rows: tables are built for R - 1 rows more.
  row_parts = std::clamp(ceil_div(16, ceil_div(s.N, images) * c_parts), int64_t(1), ceil_div(s.H, 8));
  rows = ceil_div(s.H, row_parts);
  row_parts = ceil_div(s.H, rows);
  margin = round_up(s.S + kLineColumns, kLineColumns);

  Parts parts, worker;
  parts.bytes = head_bytes;
  weights = parts.add(all_blocks * s.taps() * rounds * round_groups * kLineChannels, 1);
  inside = parts.add(round_up(Q, kLineColumns) + 2 * margin, sizeof(int32_t));
  tables = worker.add(std::max<int64_t>(kLineGroups * kLineTable, s.K), sizeof(int64_t));  // first the magnitudes by channel
  words = worker.add(s.R * strips * s.S * blocks * kLineChannels * kLineWords, sizeof(int64_t));
  sums = worker.add(s.R * strips * s.S * blocks * kLineChannels * kLineColumns, sizeof(int32_t));
  strip_magnitudes = worker.add(s.R * strips * kLineColumns, sizeof(int32_t));
  strip_states = worker.add(s.R * strips, sizeof(StripState));
  line = worker.add((s.S * kLineChannels + 1) * strips * kLineColumns + 2 * margin, sizeof(int32_t));
  sources = worker.add(strips * kLineColumns, sizeof(const float*));
  inverses = worker.add(strips * kLineColumns, sizeof(float));
  row_tasks = worker.add(s.R, sizeof(Fixed16LineRow));
  ahead = worker.add(images * (1 + s.R), sizeof(Fixed16LineAhead));
  worker_bytes = worker.bytes;
  workers = parts.add(threads, worker_bytes);
  bytes = parts.bytes;
}

void Fixed16InputLines::run(Context& context, const Conv2dShape& s, const Fixed16Kernel& kernel, uint32_t* magnitudes,
                            char* falls_back, float* dx, const float* dz, const float* alpha, const word_t* w, int64_t n,
                            void* workspace) const {
  const int64_t P = s.P(), Q = s.Q(), outputs = s.output_count(1), inputs = s.input_count(1), taps = s.taps();
  const int64_t all_blocks = ceil_div(s.C, kLineChannels), round_bytes = taps * all_blocks * round_groups * kLineChannels;
  uint8_t* all_weights = part<uint8_t>(workspace, weights);
  int32_t* is_inside = part<int32_t>(workspace, inside) + margin;
  std::fill(is_inside - margin, is_inside, 0);
  std::fill(is_inside, is_inside + Q, -1);
  std::fill(is_inside + Q, is_inside + round_up(Q, kLineColumns) + margin, 0);

  auto judge = [&](int64_t image, int worker) {
    judge_image(kernel, magnitudes + image, falls_back + image, dz + image * outputs, alpha, s,
                part<uint32_t>(workspace, workers + worker * worker_bytes + tables));
  };
  const bool judged_by_task = row_parts == 1 && c_parts == 1;  // then dz is still in the caches
  context.parallel(all_blocks + (judged_by_task ? 0 : n), [&](int64_t task, int worker) {
    if (task >= all_blocks) return judge(task - all_blocks, worker);
    for (int64_t round = 0; round < rounds; ++round)
      fixed16_lines_weights(all_weights + round * round_bytes, w, task, all_blocks, round_groups, round * round_channels,
                            std::min(s.K, (round + 1) * round_channels), s.C, s.R, s.S);
  });

  // First and last row of dz that reaches row h of dx.
  auto first_row = [&](int64_t h) {
    return std::max<int64_t>(0, ceil_div(std::max<int64_t>(0, h + s.pad - (s.R - 1)), s.stride));
  };
  auto last_row = [&](int64_t h) { return std::min(P - 1, (h + s.pad) / s.stride); };

  context.parallel(ceil_div(n, images) * row_parts * c_parts, [&](int64_t index, int worker) {
    const int64_t image = index / (row_parts * c_parts) * images, count = std::min(images, n - image);
    const int64_t first_block = index % c_parts * blocks, task_blocks = std::min(blocks, all_blocks - first_block);
    const int64_t h_begin = index / c_parts % row_parts * rows, h_end = std::min(s.H, h_begin + rows);
    const int64_t used = ceil_div(count * Q, kLineColumns), columns = used * kLineColumns;
    const int64_t strip_rows = s.S * task_blocks * kLineChannels;  // of words, or of sums
    const int64_t tap_words = task_blocks * kLineChannels * kLineWords, tap_sums = task_blocks * kLineChannels * kLineColumns;
    const int64_t c0 = first_block * kLineChannels, channels = std::min(s.C - c0, task_blocks * kLineChannels);
    for (int64_t i = 0; judged_by_task && i < count; ++i) judge(image + i, worker);
    char* own = part<char>(workspace, workers + worker * worker_bytes);
    int64_t* round_tables = part<int64_t>(own, tables);
    int64_t* all_words = part<int64_t>(own, words);
    int32_t* all_sums = part<int32_t>(own, sums);
    int32_t* all_magnitudes = part<int32_t>(own, strip_magnitudes);
    StripState* states = part<StripState>(own, strip_states);  // these four [h % R][strip]
    int32_t* line_sums = part<int32_t>(own, line) + margin;
    const float** source = part<const float*>(own, sources);
    float* inverse = part<float>(own, inverses);
    Fixed16LineRow* reached = part<Fixed16LineRow>(own, row_tasks);
    Fixed16LineAhead* pieces = part<Fixed16LineAhead>(own, ahead);
    for (int64_t column = 0; column < columns; ++column) {  // behind the last image: its last column, for nobody
      const int64_t at = std::min(column, count * Q - 1), i = image + at / Q;
      source[column] = dz + i * outputs + at % Q * s.K;
      inverse[column] = falls_back[i] ? 0.0f : fixed16_inverse(magnitudes[i]);
    }

    int32_t* line_magnitudes = line_sums + s.S * kLineChannels * columns;
    auto finish_row = [&](int64_t h) {
      const int64_t first_strip = h % s.R * used;
      std::copy_n(all_magnitudes + first_strip * kLineColumns, columns, line_magnitudes);
      for (int64_t block = 0; block < task_blocks; ++block) {
        for (int64_t strip = 0; strip < used; ++strip) {
          const int64_t row = (first_strip + strip) * strip_rows + block * kLineChannels;
          fixed16_lines_gather(line_sums + strip * kLineColumns, columns, all_words + row * kLineWords, tap_words,
                               states[first_strip + strip].flushed ? all_sums + row * kLineColumns : nullptr, tap_sums, s.S);
        }
        Fixed16LineImage out;
        out.inside = is_inside;
        out.channels = std::min<int64_t>(kLineChannels, channels - block * kLineChannels);
        out.W = s.W, out.Q = Q, out.C = s.C, out.S = s.S, out.stride = s.stride, out.pad = s.pad, out.columns = columns;
        for (int64_t i = 0; i < count; ++i) {
          if (falls_back[image + i]) continue;
          out.sums = line_sums + i * Q;
          out.magnitudes = line_magnitudes + i * Q;
          out.dx = dx + (image + i) * inputs + h * s.W * s.C + c0 + block * kLineChannels;
          out.step = fixed16_step(magnitudes[image + i]);
          fixed16_lines_finish(out);
        }
      }
    };
    for (int64_t h = h_begin; h < h_end; ++h)
      if (first_row(h) > last_row(h)) {
        std::fill_n(all_words + h % s.R * used * strip_rows * kLineWords, used * strip_rows * kLineWords, int64_t(0));
        std::fill_n(all_magnitudes + h % s.R * columns, columns, 0);
        std::fill_n(states + h % s.R * used, used, StripState());
        finish_row(h);
      }

    Fixed16LineTask task;
    task.tables = round_tables, task.rows = reached;
    task.S = s.S, task.blocks = task_blocks, task.tap_words = tap_words;
    task.groups = round_groups, task.block_entries = round_groups * kLineChannels;
    task.tap_entries = all_blocks * task.block_entries;
    for (int64_t p = first_row(h_begin); p <= last_row(h_end - 1); ++p) {
      const int64_t top = p * s.stride - s.pad;  // row of dx that the filter's first row reaches
      const int64_t h0 = std::max(h_begin, top), h1 = std::min(h_end, top + s.R);
      if (h0 >= h1) continue;
      int64_t piece_count = 0;
      for (int64_t i = 0; i < count; ++i) {
        if (p + 1 < P) pieces[piece_count++] = {dz + (image + i) * outputs + (p + 1) * Q * s.K, Q * s.K};
        for (int64_t h = h0; h < h1 && c_parts == 1; ++h)
          if (last_row(h) == p) pieces[piece_count++] = {dx + (image + i) * inputs + h * s.W * s.C, s.W * s.C};
      }
      Fixed16LineFetcher fetcher(pieces, piece_count, used * rounds * (h1 - h0) * s.S * task_blocks);
      task.row_count = h1 - h0;
      for (int64_t strip = 0; strip < used; ++strip) {
        task.narrow = strip == used - 1 && is_narrow(count * Q);
        for (int64_t round = 0; round < rounds; ++round) {
          const uint8_t* entries = all_weights + round * round_bytes + first_block * task.block_entries;
          alignas(32) int32_t round_magnitudes[kLineColumns] = {};
          const int32_t largest = fixed16_lines_stage(round_tables, round_magnitudes, source + strip * kLineColumns, p * Q * s.K,
                                                      inverse + strip * kLineColumns, alpha, round_groups, round * round_channels,
                                                      std::min(s.K, (round + 1) * round_channels), task.narrow);
          for (int64_t h = h0; h < h1; ++h) {
            const int64_t at = h % s.R * used + strip;
            int64_t* strip_words = all_words + at * strip_rows * kLineWords;
            int32_t* magnitudes_of_row = all_magnitudes + at * kLineColumns;
            if (round == 0 && first_row(h) == p) {
              states[at] = StripState();
              std::fill_n(magnitudes_of_row, kLineColumns, 0);
            }
            const bool first = states[at].takes(largest, [&](bool first_flush) {
              fixed16_lines_flush(all_sums + at * strip_rows * kLineColumns, strip_words, strip_rows, first_flush, task.narrow);
            });
            reached[h - h0] = {strip_words, entries + (h - top) * s.S * task.tap_entries, first};
            for (int i = 0; i < kLineColumns; ++i) magnitudes_of_row[i] += round_magnitudes[i];
          }
          fixed16_lines_add(task, &fetcher);
        }
      }
      for (int64_t h = h0; h < h1; ++h)
        if (last_row(h) == p) finish_row(h);
    }
  });
}

Fixed16WeightLines::Fixed16WeightLines(const Conv2dShape& s, int threads, int64_t head_bytes) {
  const int64_t P = s.P(), Q = s.Q(), side = (s.pad + 1) * (s.pad + 1), Cw = word_count(s.C);
  padded_K = round_up(s.K, kLineColumns);
  padded_C = round_up(s.C, kLineChannels);
  k_block = std::min<int64_t>(padded_K, 72);
  k_blocks = ceil_div(padded_K, k_block);
  c_words = std::min<int64_t>(Cw, 4);
  c_blocks = ceil_div(Cw, c_words);
  classes = side * side;
  phases = std::min(s.stride, s.R);
  const int64_t halo = (s.R - 1) / s.stride;  // lines of x that a phase has more than lines of dz

  // Entries of a chunk lie in a second-level cache beside H of 24 output channels.
  auto line_groups = [&](int64_t count) { return ceil_div(count * Q, kLineValues); };
  auto most_rows = [&](int64_t count) {
    return std::min(96 * 1024 / (s.S * c_words * kWordBits * line_groups(count) * phases) - halo, kFixed16Terms / (count * Q));
  };
  // In groups: loading and storing H takes as long as 1.7 of a round's 12, the entries of a line 0.05 of its own.
  double least_cost = 0;
  for (int64_t count = 1; count <= std::min<int64_t>(s.N, 16); ++count) {
    int64_t count_rows = std::clamp(most_rows(count), int64_t(1), P);
    const int64_t count_blocks = ceil_div(P, count_rows), tasks = ceil_div(s.N, count) * count_blocks * k_blocks * c_blocks;
    count_rows = ceil_div(P, count_blocks);
    const int64_t groups = count_rows * line_groups(count), entry_groups = phases * (count_rows + halo) * line_groups(count);
    const double cost = double(count_blocks) / double(count) *
                        (double(groups) + 1.7 * double(ceil_div(groups, kWeightGroups)) + 0.05 * double(entry_groups));
    if (count > 1 && (most_rows(count) < 1 || cost >= least_cost || tasks < 16)) continue;
    least_cost = cost, images = count, rows = count_rows;
  }
  row_blocks = ceil_div(P, rows);
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
  columns = worker.add(kLineValues * line_groups(images), sizeof(int32_t));
  pixels = worker.add(kLineValues * line_groups(images) * rows, sizeof(const float*));
  pixel_classes = worker.add(kLineValues * line_groups(images) * rows, sizeof(int32_t));
  column_classes = worker.add(Q, sizeof(int32_t));
  entries = worker.add(s.S * c_words * kWordBits * phases * phase_lines * line_groups(images), 1);
  filter_rows = worker.add(s.R, sizeof(Fixed16LineRow));
  ahead = worker.add(kWeightGroups * kLineValues, sizeof(Fixed16LineAhead));
  tables = worker.add(kWeightGroups * kLineTable, sizeof(int64_t));
  strip_words = worker.add(s.taps() * c_words * kWordBits * kLineWords, sizeof(int64_t));
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
    Fixed16LineRow* filter_row = part<Fixed16LineRow>(own, filter_rows);
    Fixed16LineAhead* pieces = part<Fixed16LineAhead>(own, ahead);
    int64_t* round_tables = part<int64_t>(own, tables);
    int32_t* own_classes = part<int32_t>(workspace, class_sums) + slice * classes * padded_K;
    int64_t* own_squares = part<int64_t>(workspace, squares) + slice * padded_K;
    if (word == 0) {
      for (int64_t border = 0; border < classes; ++border)
        std::fill(own_classes + border * padded_K + k0, own_classes + border * padded_K + k1, 0);
      std::fill(own_squares + k0, own_squares + k1, int64_t(0));
    }
    int64_t* h_words = part<int64_t>(own, strip_words);
    alignas(32) int32_t nobody[kLineColumns] = {};  // the sums of |q| of a task that has other input channels
    Fixed16LineTask task;
    task.tables = round_tables, task.rows = filter_row, task.row_count = s.R;
    task.S = s.S;
    task.blocks = ceil_div(std::min(s.C - word * kWordBits, here * kWordBits), kLineChannels);
    task.tap_words = task.blocks * kLineChannels * kLineWords;

    const int64_t first_chunk = chunk_count * slice / slice_count, end_chunk = chunk_count * (slice + 1) / slice_count;
    for (int64_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
      const int64_t image = chunk / row_blocks * images, count = std::min(images, n - image);
      const int64_t p0 = chunk % row_blocks * rows, row_count = std::min(rows, P - p0);
      const int64_t row_groups = ceil_div(count * Q, kLineValues), groups = row_count * row_groups, line = count * pitch * here;
      for (int64_t j = 0; j < kLineValues * row_groups; ++j) {
        const int64_t at = std::min(j, count * Q - 1);  // behind the last image: its last column, for tables of 0
        column[j] = int32_t((at / Q * pitch + at % Q * s.stride) * here);
      }
      for (int64_t p = 0; p < row_count; ++p) {
        const float** target = pixel + kLineValues * p * row_groups;
        int32_t* target_class = pixel_class + kLineValues * p * row_groups;
        const int64_t row_class = border_class(p0 + p, s, s.R, s.H) * side;
        for (int64_t i = 0; i < count; ++i, target += Q, target_class += Q) {
          const float* source = dz + ((image + i) * P + p0 + p) * Q * s.K;
          for (int64_t q = 0; q < Q; ++q) {
            target[q] = source + q * s.K;
            target_class[q] = int32_t(row_class + column_class[q]);
          }
        }
        std::fill(target, pixel + kLineValues * (p + 1) * row_groups, nullptr);
      }
      task.block_entries = phases * phase_lines * row_groups * kLineChannels;
      task.tap_entries = here * kWordBits / kLineChannels * task.block_entries;
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
          fixed16_lines_entries(
              all_entries + t * task.tap_entries + (y % s.stride * phase_lines + y / s.stride) * row_groups * kLineChannels,
              task.block_entries, target + t * here, column, row_groups, here);
      }

      const int64_t round_groups = ceil_div(groups, ceil_div(groups, kWeightGroups));
      for (int64_t k = k0; k < k1; k += kLineColumns) {
        int32_t* k_sums = part<int32_t>(workspace, sums) + slice * slice_sums +
                          (k / kLineColumns * taps * padded_C + word * kWordBits) * kLineColumns;
        task.narrow = s.K - k <= kLineNarrow;
        StripState state;
        const auto flush = [&](bool first_flush) {
          for (int64_t t = 0; t < taps; ++t)
            fixed16_lines_flush(k_sums + t * padded_C * kLineColumns, h_words + t * task.tap_words, task.blocks * kLineChannels,
                                first_flush && chunk == first_chunk, task.narrow);
        };
        for (int64_t first = 0; first < groups; first += round_groups) {
          task.groups = std::min(round_groups, groups - first);
          // What the next round reads.
          const bool more = first + round_groups < groups;
          const int64_t next = more ? first + round_groups : 0, next_k = more ? k : k + kLineColumns;
          int64_t piece_count = 0;
          for (int64_t i = kLineValues * next; next_k < k1 && i < kLineValues * std::min(groups, next + round_groups); ++i)
            if (pixel[i]) pieces[piece_count++] = {pixel[i] + next_k, kLineColumns};
          Fixed16LineFetcher fetcher(pieces, piece_count, taps * task.blocks);
          const int32_t largest = fixed16_lines_weight_stage(round_tables, word == 0 ? own_classes + k : nobody,
                                                             pixel + kLineValues * first, inverses, task.groups, k, s.K);
          const bool overwrite = state.takes(largest, flush);
          for (int64_t r = 0; r < s.R; ++r)
            filter_row[r] = {h_words + r * s.S * task.tap_words,
                             all_entries + ((r % s.stride * phase_lines + r / s.stride) * row_groups + first) * kLineChannels,
                             overwrite};
          fixed16_lines_add(task, &fetcher);
        }
        flush(!state.flushed);
      }
      if (word != 0) continue;
      // The border is staged as +1: what it has added there is taken off again, tap by tap, in the end.
      for (int64_t i = 0; i < kLineValues * groups; ++i)
        if (pixel[i] && (needs_squares || pixel_class[i] != 0))
          fixed16_lines_pixel(pixel_class[i] == 0 ? nullptr : own_classes + pixel_class[i] * padded_K + k0,
                              needs_squares ? own_squares + k0 : nullptr, pixel[i] + k0, inverses + k0, present);
    }
  });
}

}  // namespace bireal::cpu
