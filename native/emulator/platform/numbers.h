// numbers: the storage types of the stand-in cuBLAS and cuDNN, read as double and rounded once when stored.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace bireal::emulator {

enum class Storage { kFloat, kHalf, kBfloat16 };

inline uint64_t storage_bytes(Storage type) { return type == Storage::kFloat ? 4 : 2; }

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

/// Keeps `kept` of the 23 mantissa bits of a float, to nearest even: 7 = bfloat16, 10 = TF32.
inline float round_mantissa(float value, int kept) {
  if (!std::isfinite(value)) return value;
  uint32_t bits = bits_of_float(value), dropped = uint32_t(23 - kept), half = 1u << (dropped - 1);
  uint32_t odd = bits >> dropped & 1;
  return float_of_bits((bits + half - 1 + odd) & ~((1u << dropped) - 1));
}

inline float load(Storage type, const unsigned char* at) {
  if (type == Storage::kFloat) {
    float value;
    std::memcpy(&value, at, 4);
    return value;
  }
  if (type == Storage::kHalf) {
    _Float16 value;
    std::memcpy(&value, at, 2);
    return float(value);
  }
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  return float_of_bits(uint32_t(bits) << 16);
}

inline void store(Storage type, unsigned char* at, double value) {
  if (type == Storage::kFloat) {
    float rounded = float(value);
    std::memcpy(at, &rounded, 4);
  } else if (type == Storage::kHalf) {
    _Float16 rounded = _Float16(float(value));
    std::memcpy(at, &rounded, 2);
  } else {
    float rounded = round_mantissa(float(value), 7);
    uint16_t bits = std::isnan(rounded) ? uint16_t(0x7fff) : uint16_t(bits_of_float(rounded) >> 16);
    std::memcpy(at, &bits, 2);
  }
}

/// What tensor cores do to float32 operands where a library may use them.
enum class Operands { kExact, kTf32, kHalf, kBfloat16 };

inline float round_operand(Operands operands, float value) {
  switch (operands) {
    case Operands::kTf32: return round_mantissa(value, 10);
    case Operands::kHalf: return float(_Float16(value));
    case Operands::kBfloat16: return round_mantissa(value, 7);
    default: return value;
  }
}

}  // namespace bireal::emulator
