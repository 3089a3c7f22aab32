// Shapes shared by the convolution-like ops. Letters: N batch, C in, H W, K out, R S filter, P Q output size.
#pragma once
#include <cstdint>
#include <string>

#include "core/error.h"

namespace bireal {

/// A 2-d convolution over NHWC; N is the largest batch of the plan, a run takes any n in 1..N.
struct Conv2dShape {
  int64_t N, H, W, C, K, R, S, stride, pad;

  int64_t P() const { return (H + 2 * pad - R) / stride + 1; }
  int64_t Q() const { return (W + 2 * pad - S) / stride + 1; }
  int64_t taps() const { return R * S; }
  int64_t input_count(int64_t n) const { return n * H * W * C; }
  int64_t output_count(int64_t n) const { return n * P() * Q() * K; }

  std::string text() const {
    auto s = [](int64_t v) { return std::to_string(v); };
    return "N" + s(N) + "_H" + s(H) + "_W" + s(W) + "_C" + s(C) + "_K" + s(K) + "_R" + s(R) + "_S" + s(S) + "_st" + s(stride) +
           "_pad" + s(pad);
  }

  /// Throws InvalidArgument naming `op`, the value and the rule if no such convolution exists.
  void check(const char* op) const {
    auto positive = [&](int64_t v, const char* letter) {
      require(v >= 1, [&] { return std::string(op) + ": " + letter + " must be >= 1, got " + std::to_string(v); });
    };
    positive(N, "N"), positive(H, "H"), positive(W, "W"), positive(C, "C"), positive(K, "K");
    positive(R, "R"), positive(S, "S"), positive(stride, "stride");
    require(pad >= 0, [&] { return std::string(op) + ": pad must be >= 0, got " + std::to_string(pad); });
    require(pad < R && pad < S, [&] {
      return std::string(op) + ": pad must be smaller than the filter, got pad " + std::to_string(pad) + " for " +
             std::to_string(R) + "x" + std::to_string(S);
    });
    require(H + 2 * pad >= R && W + 2 * pad >= S, [&] {
      return std::string(op) + ": filter " + std::to_string(R) + "x" + std::to_string(S) + " is larger than the padded " +
             std::to_string(H) + "x" + std::to_string(W) + " image";
    });
  }
};

/// Whether a gradient output replaces what is there or is added to it, once, after it is complete.
/// Wire codes of bireal.backend.GradMode.
enum class GradMode : int32_t { kOverwrite = 0, kAccumulate = 1 };

/// Element types. Wire codes of bireal.tensor.DType.
enum class DType : int32_t { kF32 = 0, kF64 = 1, kI16 = 2, kI32 = 3, kI64 = 4, kU8 = 5, kBits = 6, kF16 = 7, kBf16 = 8 };

}  // namespace bireal
