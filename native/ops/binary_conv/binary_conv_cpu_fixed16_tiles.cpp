// Tasks of the AMX form of the fixed-point passes. See binary_conv_fixed16_tiles.h.
#include "ops/binary_conv/binary_conv_fixed16_tiles.h"

#include <cstring>

#include "cpu/context.h"
#include "ops/binary_conv/binary_conv_cpu_fixed16.h"

namespace bireal::cpu {
namespace {

/// Where a tap reads along one axis: input index = stride * (output index + offset) + phase.
struct Reach {
  int64_t offset, phase;
  Reach(int64_t tap, const Conv2dShape& s) {
    const int64_t at = tap - s.pad;
    offset = at >= 0 ? at / s.stride : -ceil_div(-at, s.stride);
    phase = at - offset * s.stride;
  }
};

int64_t phase_length(int64_t image, int64_t phase, int64_t stride) { return phase < image ? ceil_div(image - phase, stride) : 0; }

/// The least distance between two rows (or two images) in the line of positions at which no tap reaches into a neighbour:
/// for every tap both output index + offset and input index - offset stay inside.
int64_t safe_pitch(int64_t outputs, int64_t image, int64_t filter, const Conv2dShape& s) {
  int64_t pitch = outputs;
  for (int64_t phase = 0; phase < s.stride; ++phase) pitch = std::max(pitch, phase_length(image, phase, s.stride));
  for (int64_t tap = 0; tap < filter; ++tap) {
    const Reach reach(tap, s);
    pitch = std::max({pitch, outputs + reach.offset, phase_length(image, reach.phase, s.stride) - reach.offset});
  }
  return pitch;
}

struct TileRegisters {
  TileRegisters() { fixed16_tiles_begin(); }
  ~TileRegisters() { fixed16_tiles_end(); }
};

}  // namespace

Fixed16InputTiles::Fixed16InputTiles(const Conv2dShape& s, int threads, int64_t head_bytes) {
  row = safe_pitch(s.Q(), s.W, s.S, s);
  rows_before = std::max<int64_t>(0, Reach(s.R - 1, s).offset);
  int64_t last_row = s.P() - 1, before = 0, after = 0;
  for (int64_t r = 0; r < s.R; ++r) {
    const Reach reach(r, s);
    last_row = std::max(last_row, phase_length(s.H, reach.phase, s.stride) - 1 - reach.offset);
  }
  for (int64_t t = 0; t < s.S; ++t) {
    before = std::max(before, Reach(t, s).offset);
    after = std::max(after, -Reach(t, s).offset);
  }
  rows_all = rows_before + last_row + 1;
  lead = before;
  positions = lead + rows_all * row + after + kTilePositions;
  depth_chunks = ceil_div(s.K, kTileDepth);
  plane_pitch = (depth_chunks | 1) * kTileDepth;  // odd: rows of a tile spread over the sets of the cache
  blocks = ceil_div(s.C, kTileChannels);
  int64_t most_rows = 0;
  for (int64_t a = 0; a < s.stride; ++a)
    for (int64_t b = 0; b < s.stride; ++b) {
      Phase phase = {a, b, phase_length(s.H, a, s.stride), phase_length(s.W, b, s.stride), int64_t(tap_order.size()), {}};
      for (int64_t r = 0; r < s.R; ++r)
        for (int64_t t = 0; t < s.S; ++t) {
          const Reach vertical(r, s), horizontal(t, s);
          if (vertical.phase != a || horizontal.phase != b) continue;
          tap_order.push_back(r * s.S + t);
          phase.shifts.push_back(-vertical.offset * row - horizontal.offset);
        }
      most_rows = std::max(most_rows, phase.rows);
      phases.push_back(phase);
    }
  task_rows = std::min(most_rows, ceil_div(512, row));  // rounding up to whole tiles then costs 3% at most
  task_blocks = ceil_div(most_rows, task_rows);

  Parts parts;
  parts.bytes = head_bytes;
  plane_bytes = round_up(positions * plane_pitch, 64);
  planes = parts.add(2 * s.N, plane_bytes);
  weights = parts.add(blocks * s.taps() * depth_chunks, kTilePairBytes);
  worker_bytes = round_up(s.K * int64_t(sizeof(uint32_t)), 64);
  workers = parts.add(threads, worker_bytes);
  bytes = parts.bytes;
}

void Fixed16InputTiles::run(Context& context, const Conv2dShape& s, const Fixed16Kernel& kernel, uint32_t* magnitudes,
                            char* falls_back, float* dx, const float* dz, const float* alpha, const word_t* w, int64_t n,
                            void* workspace) const {
  const int64_t P = s.P(), Q = s.Q(), outputs = s.output_count(1), taps = s.taps();
  const bool needs_squares = outputs > kFixed16SpreadCount;
  auto high_plane = [&](int64_t image) { return part<int8_t>(workspace, planes + 2 * image * plane_bytes); };
  int8_t* all_weights = part<int8_t>(workspace, weights);
  const int64_t tap_bytes = depth_chunks * kTilePairBytes;

  context.parallel(n + blocks * taps, [&](int64_t task, int worker) {
    if (task >= n) {
      task -= n;
      fixed16_tiles_weights(all_weights + task * tap_bytes, w, task / taps, tap_order[size_t(task % taps)], s.K, s.C, taps);
      return;
    }
    const float* image = dz + task * outputs;
    const uint32_t m =
        fixed16_largest(kernel, image, alpha, P * Q, s.K, part<uint32_t>(workspace, workers + worker * worker_bytes));
    magnitudes[task] = m;
    falls_back[task] = !fixed16_fits(m);
    if (falls_back[task]) return;
    int8_t* high = high_plane(task);
    uint8_t* low = reinterpret_cast<uint8_t*>(high + plane_bytes);
    const int64_t head = (lead + rows_before * row) * plane_pitch, end = head + P * row * plane_pitch;
    std::memset(high, 0, size_t(head));
    std::memset(low, 0, size_t(head));
    double squares = 0;
    for (int64_t p = 0; p < P; ++p)
      squares +=
          double(fixed16_tiles_stage_row(high + head + p * row * plane_pitch, low + head + p * row * plane_pitch, plane_pitch,
                                         image + p * Q * s.K, alpha, fixed16_inverse(m), Q, row, s.K, needs_squares));
    std::memset(high + end, 0, size_t(plane_bytes - end));
    std::memset(low + end, 0, size_t(plane_bytes - end));
    if (needs_squares && m != 0) falls_back[task] = fixed16_too_spread(squares, outputs);
  });

  context.parallel(n * task_blocks, [&](int64_t index, int) {
    const int64_t image = index / task_blocks, first_row = index % task_blocks * task_rows;
    if (falls_back[image]) return;
    const TileRegisters registers;
    Fixed16TileInput task;
    task.high = high_plane(image) + (lead + rows_before * row) * plane_pitch;
    task.low = reinterpret_cast<const uint8_t*>(task.high + plane_bytes);
    task.plane_pitch = plane_pitch, task.depth_chunks = depth_chunks;
    task.weight_pitch = taps * tap_bytes;
    task.row = row, task.C = s.C;
    task.row_step = s.stride * s.W * s.C, task.column_step = s.stride * s.C;
    task.step = fixed16_step(magnitudes[image]);
    for (const Phase& phase : phases) {
      if (first_row >= phase.rows || phase.columns == 0) continue;
      task.weights = all_weights + phase.first_tap * tap_bytes;
      task.shifts = phase.shifts.data(), task.taps = int64_t(phase.shifts.size());
      task.first = first_row * row, task.last = std::min(phase.rows, first_row + task_rows) * row;
      task.width = phase.columns;
      task.dx = dx + image * s.input_count(1) + (phase.row * s.W + phase.column) * s.C;
      fixed16_tiles_input(task);
    }
  });
}

Fixed16WeightTiles::Fixed16WeightTiles(const Conv2dShape& s, int threads, int64_t head_bytes) {
  const int64_t P = s.P(), Q = s.Q();
  row = safe_pitch(Q, s.W, s.S, s);
  image_rows = safe_pitch(P, s.H, s.R, s);
  rows_up = std::max<int64_t>(0, -Reach(0, s).offset);
  rows_down = std::max<int64_t>(0, Reach(s.R - 1, s).offset);
  int64_t farthest = 0;
  for (int64_t r = 0; r < s.R; ++r)
    for (int64_t t = 0; t < s.S; ++t) {
      const Reach vertical(r, s), horizontal(t, s);
      size_t phase = 0;
      while (phase < phase_row.size() && (phase_row[phase] != vertical.phase || phase_column[phase] != horizontal.phase)) ++phase;
      if (phase == phase_row.size()) phase_row.push_back(vertical.phase), phase_column.push_back(horizontal.phase);
      tap_x.push_back(int64_t(phase));  // times x_phase_bytes, below
      tap_shift.push_back(vertical.offset * row + horizontal.offset);
      farthest = std::max(farthest, std::abs(tap_shift.back()));
    }
  const int64_t phases = int64_t(phase_row.size());
  padded_K = round_up(s.K, 16);
  padded_C = round_up(s.C, kTileChannels);
  k_blocks = ceil_div(padded_K, 64);

  // Both operands of a chunk stay in a second-level cache of 2 MB.
  const int64_t target = std::max<int64_t>(row, 1024 * 1024 / (padded_C * phases + 2 * 64));
  chunk_rows = std::clamp(std::min(target / row - rows_up - rows_down, kFixed16Terms / Q), int64_t(1), P);
  row_blocks = ceil_div(P, chunk_rows);
  chunk_rows = ceil_div(P, row_blocks);
  row_blocks = ceil_div(P, chunk_rows);
  chunk_images = row_blocks > 1 ? 1 : std::clamp(target / (image_rows * row), int64_t(1), s.N);
  const int64_t chunk_pixels = chunk_images * chunk_rows * Q;
  const int64_t rows = row_blocks > 1 ? chunk_rows + rows_up + rows_down : chunk_images * image_rows;
  chunk_positions = round_up(rows * row, kTileDepth);
  slack = round_up(farthest + row, kTileDepth);

  const int64_t chunks = ceil_div(s.N, chunk_images) * row_blocks;
  const int64_t wanted = std::min(ceil_div(16, k_blocks), s.N * P * Q / 2048);
  const int64_t least = ceil_div(chunks, std::max<int64_t>(1, kFixed16Terms / chunk_pixels));  // sums in 32 bits
  max_slices = std::min(std::max({int64_t(1), wanted, least}), chunks);

  Parts parts, worker;
  parts.bytes = head_bytes;
  slice_sums = padded_K * s.taps() * padded_C;
  sums = parts.add(max_slices * slice_sums, sizeof(int32_t));
  squares = parts.add(max_slices * padded_K, sizeof(int64_t));
  zeros = parts.add(s.K, sizeof(float));
  plane_pitch = chunk_positions + 2 * slack;
  if (plane_pitch / kTileDepth % 2 == 0) plane_pitch += kTileDepth;
  planes = worker.add(2 * 64, plane_pitch);
  x_phase_bytes = chunk_positions * padded_C;
  for (int64_t& offset : tap_x) offset *= x_phase_bytes;
  x = worker.add(phases, x_phase_bytes);
  tiles = worker.add(s.taps() * kTileSums, sizeof(int32_t));
  pixels = worker.add(chunk_positions + 2 * slack, sizeof(const float*));
  x_pixels = worker.add(chunk_positions, sizeof(const word_t*));
  worker_bytes = worker.bytes;
  workers = parts.add(threads, worker_bytes);
  bytes = parts.bytes;
}

void Fixed16WeightTiles::run(Context& context, const Conv2dShape& s, const float* inverses, bool needs_squares,
                             const word_t* words, const float* dz, int64_t n, void* workspace) const {
  const int64_t P = s.P(), Q = s.Q(), Cw = word_count(s.C), taps = s.taps();
  const int64_t chunks = ceil_div(n, chunk_images) * row_blocks, slice_count = slices(n);
  const float* zero_row = part<float>(workspace, zeros);
  std::memset(part<float>(workspace, zeros), 0, size_t(s.K) * sizeof(float));

  context.parallel(k_blocks * slice_count, [&](int64_t index, int worker) {
    const TileRegisters registers;
    const int64_t slice = index / k_blocks, k0 = index % k_blocks * 64, k1 = std::min(padded_K, k0 + 64);
    char* own = part<char>(workspace, workers + worker * worker_bytes);
    int8_t* high = part<int8_t>(own, planes);
    uint8_t* low = part<uint8_t>(own, planes + 64 * plane_pitch);
    int8_t* x_bytes = part<int8_t>(own, x);
    const float** pixel = part<const float*>(own, pixels);
    const word_t** x_pixel = part<const word_t*>(own, x_pixels);
    int64_t* slice_squares = part<int64_t>(workspace, squares) + slice * padded_K;
    std::fill(slice_squares + k0, slice_squares + k1, int64_t(0));
    const int64_t first_chunk = chunks * slice / slice_count, end_chunk = chunks * (slice + 1) / slice_count;
    for (int64_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
      const int64_t image = chunk / row_blocks * chunk_images, images = std::min(chunk_images, n - image);
      const int64_t p0 = chunk % row_blocks * chunk_rows, p1 = std::min(P, p0 + chunk_rows);
      // Position 0 is row y0 of every phase.
      const int64_t y0 = row_blocks > 1 ? std::max<int64_t>(0, p0 - rows_up) : 0;
      const int64_t y_count = row_blocks > 1 ? p1 + rows_down - y0 : image_rows;
      const int64_t positions = round_up(images * y_count * row, kTileDepth);

      std::fill(pixel, pixel + positions + 2 * slack, zero_row);
      for (int64_t i = 0; i < images; ++i)
        for (int64_t p = p0; p < p1; ++p) {
          const float* source = dz + ((image + i) * P + p) * Q * s.K;
          const int64_t at = slack + (i * y_count + p - y0) * row;
          for (int64_t q = 0; q < Q; ++q) pixel[at + q] = source + q * s.K;
        }
      for (int64_t k = k0; k < k1; k += 16)
        fixed16_tiles_stage_channels(high + (k - k0) * plane_pitch, low + (k - k0) * plane_pitch, plane_pitch, pixel,
                                     positions + 2 * slack, k, s.K, inverses, needs_squares ? slice_squares + k : nullptr);

      for (size_t phase = 0; phase < phase_row.size(); ++phase) {
        const int64_t height = phase_length(s.H, phase_row[phase], s.stride),
                      width = phase_length(s.W, phase_column[phase], s.stride);
        std::fill(x_pixel, x_pixel + positions, nullptr);
        for (int64_t i = 0; i < images; ++i)
          for (int64_t y = y0; y < std::min(height, y0 + y_count); ++y) {
            const int64_t at = (i * y_count + y - y0) * row;
            const word_t* source =
                words + (((image + i) * s.H + y * s.stride + phase_row[phase]) * s.W + phase_column[phase]) * Cw;
            for (int64_t j = 0; j < width; ++j) x_pixel[at + j] = source + j * s.stride * Cw;
          }
        fixed16_tiles_stage_x(x_bytes + int64_t(phase) * x_phase_bytes, x_pixel, positions, Cw);
      }

      Fixed16TileWeight task;
      task.high = high + slack, task.low = low + slack;
      task.plane_pitch = plane_pitch;
      task.x = x_bytes;
      task.tiles = part<int32_t>(own, tiles);
      task.tap_x = tap_x.data(), task.shifts = tap_shift.data(), task.taps = taps;
      task.positions = positions, task.channel_tiles = (k1 - k0) / 16, task.channels = padded_C;
      task.sums = part<int32_t>(workspace, sums) + slice * slice_sums + k0 * taps * padded_C;
      task.first = chunk == first_chunk;
      fixed16_tiles_weight(task);
    }
  });
}

}  // namespace bireal::cpu
