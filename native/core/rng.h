// Counter-based random numbers for tests: element i of stream `state` (SplitMix64), the same as bireal.data.Rng.
#pragma once
#include <cstdint>

namespace bireal {

inline uint64_t splitmix64(uint64_t state, uint64_t index) {
  uint64_t z = state + (index + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// Uniform in [0, 1), 24 bits.
inline double uniform01(uint64_t state, uint64_t index) { return double(splitmix64(state, index) >> 40) * 0x1p-24; }

}  // namespace bireal
