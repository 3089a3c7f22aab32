// Forward kernel for any x86-64. Unit: a word_t of 32 channels; four output channels in a 128-bit vector (SSE2, which every
// x86-64 has and the compiler uses for these types). Without a popcount instruction, bits are counted per byte and the bytes
// added up over as many words as a byte can hold.
#include "ops/binary_conv/binary_conv_kernels.h"

namespace bireal::cpu {

typedef uint32_t Word4 __attribute__((vector_size(16)));

// Sum of the four bytes of each lane.
BIREAL_INLINE Word4 add_bytes(Word4 v) {
  v = (v & 0x00FF00FFu) + (v >> 8 & 0x00FF00FFu);
  return (v & 0xFFFFu) + (v >> 16);
}

template <class V>
BIREAL_INLINE void run(const BinaryConvTask& task) {
  enum { kWordsInByte = 31 };  // 31 words of at most 8 bits a byte
  for (int64_t k0 = 0; k0 < task.padded_K; k0 += 32) {
    const word_t* block = (const word_t*)task.weights + k0 * task.R * task.row_units;
    for (int64_t i = 0; i < task.pixel_count; ++i)
      for (int64_t half = 0; half < 32; half += 16) {
        const word_t* weights = block + half;
        Word4 total[4] = {}, bytes[4] = {};
        int64_t left = kWordsInByte;
        for (int64_t r = 0; r < task.R; ++r) {
          const word_t* x = (const word_t*)task.x + task.pixel[i] + r * task.pitch_units;
          for (int64_t unit = 0; unit < task.row_units; ++unit, weights += 32) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
              Word4 bits = *(const Word4*)(weights + 4 * j) ^ x[unit];
              bits -= bits >> 1 & 0x55555555u;
              bits = (bits & 0x33333333u) + (bits >> 2 & 0x33333333u);
              bytes[j] += (bits + (bits >> 4)) & 0x0F0F0F0Fu;
            }
            if (--left == 0) {
              for (int j = 0; j < 4; ++j) total[j] += add_bytes(bytes[j]), bytes[j] = Word4{};
              left = kWordsInByte;
            }
          }
        }
        const V* constant = (const V*)task.constants + task.constant[i] + k0;
        V* v = (V*)task.v + i * task.K + k0;
        for (int j = 0; j < 4; ++j) {
          total[j] += add_bytes(bytes[j]);
          for (int lane = 0; lane < 4; ++lane) {
            int64_t channel = word_lane_channel(half + 4 * j + lane);
            if (k0 + channel < task.K) v[channel] = (V)(constant[channel] - 2 * (int32_t)total[j][lane]);
          }
        }
      }
  }
}

void binary_conv_run_i16(const BinaryConvTask& task) { run<int16_t>(task); }
void binary_conv_run_i32(const BinaryConvTask& task) { run<int32_t>(task); }

}  // namespace bireal::cpu
