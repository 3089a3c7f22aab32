// What the driver files of the fixed-point passes share: workspace layout, and the geometry of the AMX form.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/bits.h"
#include "core/shapes.h"
#include "ops/binary_conv/binary_conv_fixed16.h"

namespace bireal::cpu {

class Context;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Parts of a workspace, each aligned to 64 bytes.
struct Parts {
  int64_t bytes = 0;
  int64_t add(int64_t count, int64_t element_bytes) {
    const int64_t at = bytes;
    bytes += round_up(count * element_bytes, 64);
    return at;
  }
};

template <class T>
T* part(void* workspace, int64_t at) {
  return reinterpret_cast<T*>(static_cast<char*>(workspace) + at);
}

/// Magnitude of an image, and whether it is left to float32. by_channel: scratch of K values.
inline void judge_image(const Fixed16Kernel& kernel, uint32_t* magnitude, char* falls_back, const float* dz, const float* alpha,
                        const Conv2dShape& s, uint32_t* by_channel) {
  const int64_t pixels = s.P() * s.Q(), outputs = s.output_count(1);
  const uint32_t m = fixed16_largest(kernel, dz, alpha, pixels, s.K, by_channel);
  *magnitude = m;
  *falls_back = !fixed16_fits(m);
  if (m == 0 || *falls_back || outputs <= kFixed16SpreadCount) return;
  double squares = 0;  // exact, so the first pixels mostly tell
  for (int64_t pixel = 0; pixel < pixels && fixed16_too_spread(squares, outputs); pixel += 16)
    squares += kernel.squares(dz + pixel * s.K, alpha, fixed16_inverse(m), std::min<int64_t>(16, pixels - pixel), s.K);
  *falls_back = fixed16_too_spread(squares, outputs);
}

/// bwd_input with tiles: all of dz is staged as planes of bytes; a task is some rows of an image.
struct Fixed16InputTiles {
  struct Phase {
    int64_t row, column, rows, columns;  // first input pixel; how many there are, `stride` apart
    int64_t first_tap;                   // of the order in which the weights lie
    std::vector<int64_t> shifts;         // of its taps, in positions
  };
  std::vector<Phase> phases;
  std::vector<int64_t> tap_order;  // filter taps, phase by phase
  int64_t row, rows_before, rows_all, lead, positions, plane_pitch, depth_chunks, task_rows, task_blocks, blocks;
  int64_t planes, plane_bytes, weights, workers, worker_bytes, bytes;

  /// `head_bytes` of the workspace belong to the caller.
  Fixed16InputTiles(const Conv2dShape& shape, int threads, int64_t head_bytes);
  /// Magnitudes and flags of the images as in the table form, and dx of those that are not flagged.
  void run(Context& context, const Conv2dShape& shape, const Fixed16Kernel& kernel, uint32_t* magnitudes, char* falls_back,
           float* dx, const float* dz, const float* alpha, const word_t* w, int64_t n, void* workspace) const;
};

/// bwd_input with tables in memory: a task is some input channels and some rows of some images.
struct Fixed16InputLines {
  int64_t images, strips;                        // of a line
  int64_t rounds, round_channels, round_groups;  // output channels and groups whose tables there are at a time
  int64_t blocks, c_parts;                       // of 8 channels, of a task
  int64_t rows, row_parts, margin;
  int64_t weights, inside, tables, words, sums, strip_magnitudes, strip_states, line, sources, inverses, row_tasks, ahead,
      workers, worker_bytes, bytes;

  Fixed16InputLines(const Conv2dShape& shape, int threads, int64_t head_bytes);
  void run(Context& context, const Conv2dShape& shape, const Fixed16Kernel& kernel, uint32_t* magnitudes, char* falls_back,
           float* dx, const float* dz, const float* alpha, const word_t* w, int64_t n, void* workspace) const;
};

/// How many rows of the filter hang over the image before and after it at output index `p`, as one number; 0: none.
inline int64_t border_class(int64_t p, const Conv2dShape& s, int64_t filter, int64_t image) {
  const int64_t before = std::max<int64_t>(0, s.pad - p * s.stride);
  const int64_t after = std::max<int64_t>(0, p * s.stride - s.pad + filter - image);
  return before * (s.pad + 1) + after;
}

/// bwd_weight with tables in memory: a task is up to 72 output channels, up to 128 input channels and a slice of the batch, as a
/// run of chunks (images, or rows of one).
struct Fixed16WeightLines {
  int64_t images, rows, row_blocks, phases, phase_lines;  // of a chunk; phases of rows of x, and its lines of each
  int64_t padded_K, padded_C, k_block, k_blocks, c_words, c_blocks, classes, slice_sums, max_slices;
  int64_t class_sums, class_totals, squares, sums, workers;
  int64_t x, columns, pixels, pixel_classes, column_classes, entries, filter_rows, ahead, tables, strip_words, worker_bytes,
      bytes;

  Fixed16WeightLines(const Conv2dShape& shape, int threads, int64_t head_bytes);
  int64_t chunks(int64_t n) const { return ceil_div(n, images) * row_blocks; }
  int64_t slices(int64_t n) const { return std::min(max_slices, chunks(n)); }
  /// Sums of h (binary_conv_fixed16_lines.h) [slice][block of 24 k][tap][padded_C][24], border classes [slice][class][padded_K],
  /// of which class 0 has the sums of |q| of all pixels, and, if asked for, squares [slice][padded_K].
  void run(Context& context, const Conv2dShape& shape, const float* inverses, bool needs_squares, const word_t* words,
           const float* dz, int64_t n, void* workspace) const;
};

/// bwd_weight with tiles: a task is 64 output channels and a slice of the batch, as a run of chunks (images, or rows of one).
struct Fixed16WeightTiles {
  std::vector<int64_t> phase_row, phase_column;  // first input pixel of each phase that a tap reads
  std::vector<int64_t> tap_shift, tap_x;         // positions between dz and x; bytes to the tap's phase of x
  int64_t row, image_rows, rows_up, rows_down;   // positions of a row, rows of an image; offsets of the filter's rows
  int64_t chunk_images, chunk_rows, row_blocks, slack, chunk_positions;
  int64_t padded_K, padded_C, k_blocks, max_slices;
  int64_t slice_sums, sums, squares, workers, worker_bytes, planes, plane_pitch, x, x_phase_bytes, tiles, pixels, x_pixels, zeros,
      bytes;

  Fixed16WeightTiles(const Conv2dShape& shape, int threads, int64_t head_bytes);
  int64_t slices(int64_t n) const { return std::min(max_slices, ceil_div(n, chunk_images) * row_blocks); }
  /// Sums [slice][k][tap][padded_C] and, if asked for, squares [slice][padded_K].
  void run(Context& context, const Conv2dShape& shape, const float* inverses, bool needs_squares, const word_t* words,
           const float* dz, int64_t n, void* workspace) const;
};

}  // namespace bireal::cpu
