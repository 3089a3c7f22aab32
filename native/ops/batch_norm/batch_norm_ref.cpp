#include <cmath>
#include <string>
#include <vector>

#include "cpu/context.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/sign_pack/sign_pack.h"

namespace bireal {

void batch_norm_require_rows(int64_t rows, const char* what) {
  require(rows >= 2, "batch_norm: " + std::string(what) + " needs at least 2 values per channel for its statistics, got " +
                         std::to_string(rows));
}

int64_t batch_norm_workspace_bytes(int64_t C) { return cpu::Context::kSlices * 4 * C * int64_t(sizeof(double)); }

}  // namespace bireal

namespace bireal::ref {

static double value(const void* v, DType v_type, int64_t i) {
  if (v_type == DType::kI16) return double(static_cast<const int16_t*>(v)[i]);
  if (v_type == DType::kI32) return double(static_cast<const int32_t*>(v)[i]);
  return double(static_cast<const float*>(v)[i]);
}

// sums[0][c] = sum_i a[i,c], sums[1][c] = sum_i a[i,c] b[i,c], in slices of rows; a and b give doubles.
template <class A, class B>
static void sum_in_slices(double* sums, int64_t rows, int64_t C, const A& a, const B& b) {
  for (int64_t c = 0; c < C; ++c) {
    double total1 = 0, total2 = 0;
    for (int64_t slice = 0; slice < cpu::Context::kSlices; ++slice) {
      double sum1 = 0, sum2 = 0;
      for (int64_t i = cpu::Context::slice_begin(rows, slice); i < cpu::Context::slice_begin(rows, slice + 1); ++i) {
        sum1 += a(i * C + c);
        sum2 += a(i * C + c) * b(i * C + c);
      }
      total1 += sum1;
      total2 += sum2;
    }
    sums[c] = total1;
    sums[C + c] = total2;
  }
}

void batch_norm_sums(void* sums, const void* v, DType v_type, int64_t rows, int64_t C) {
  auto at = [&](int64_t j) { return value(v, v_type, j); };
  if (v_type == DType::kF32) return sum_in_slices(static_cast<double*>(sums), rows, C, at, at);
  int64_t* exact = static_cast<int64_t*>(sums);
  for (int64_t c = 0; c < C; ++c) {
    exact[c] = exact[C + c] = 0;
    for (int64_t i = 0; i < rows; ++i) {
      int64_t x = int64_t(at(i * C + c));
      exact[c] += x;
      exact[C + c] += x * x;
    }
  }
}

__extension__ typedef __int128 int128;
__extension__ typedef unsigned __int128 uint128;

// (m S2 - S1^2) / m^2, rounded once; m < 2^32. The quotient is taken to at least 55 bits with every bit below them or-ed into the
// last one, which is all that the conversion to double needs to round as if it saw the whole. A variance that is not 0 is at
// least (m-1)/m^2 > 2^-33 (one value off by one), so 128 bits behind the point are enough.
static double integer_variance(int64_t S1, int64_t S2, int64_t m) {
  uint128 numerator = uint128(int128(m) * S2 - int128(S1) * S1), denominator = uint128(m) * uint128(m);
  uint128 whole = numerator / denominator, rest = numerator % denominator;
  if (whole >> 54) return double(uint64_t(whole) | uint64_t(rest != 0));
  uint128 fraction = (rest << 64) / denominator;
  rest = (rest << 64) % denominator;
  if (whole) return std::ldexp(double(whole << 64 | fraction | uint128(rest != 0)), -64);
  uint128 more = (rest << 64) / denominator;
  rest = (rest << 64) % denominator;
  return std::ldexp(double(fraction << 64 | more | uint128(rest != 0)), -128);
}

void batch_norm_statistics(double* stats, float* affine, double* running_sums, const void* sums, bool integer_sums,
                           const float* alpha, const float* gamma, const float* beta, int64_t rows, int64_t C, double eps) {
  double m = double(rows);
  for (int64_t c = 0; c < C; ++c) {
    double mean, var, a = alpha ? double(alpha[c]) : 1;
    if (integer_sums) {
      const int64_t* exact = static_cast<const int64_t*>(sums);
      mean = double(exact[c]) / m;
      var = integer_variance(exact[c], exact[C + c], rows);
    } else {
      const double* real = static_cast<const double*>(sums);
      mean = real[c] / m;
      var = real[C + c] / m - mean * mean;
      if (var < 0) var = 0;  // rounding; a NaN stays a NaN
    }
    double invstd = 1 / std::sqrt(a * a * var + eps);
    double scale = double(gamma[c]) * a * invstd;
    stats[c] = mean;
    stats[C + c] = var;
    stats[2 * C + c] = invstd;
    affine[c] = float(scale);
    affine[C + c] = float(double(beta[c]) - scale * mean);
    running_sums[c] += a * mean;
    running_sums[C + c] += a * a * var * (m / (m - 1));
  }
}

void batch_norm_commit(float* running_mean, float* running_var, double* running_sums, const double* nonfinite, int64_t C,
                       int64_t count, double momentum) {
  for (int64_t c = 0; c < C; ++c) {
    if (*nonfinite == 0) {
      double mean = double(running_mean[c]), var = double(running_var[c]);
      running_mean[c] = float(mean + momentum * (running_sums[c] / double(count) - mean));
      running_var[c] = float(var + momentum * (running_sums[C + c] / double(count) - var));
    }
    running_sums[c] = running_sums[C + c] = 0;
  }
}

void batch_norm_inference(float* affine, const float* running_mean, const float* running_var, const float* alpha,
                          const float* gamma, const float* beta, int64_t C, double eps) {
  for (int64_t c = 0; c < C; ++c) {
    double a = alpha ? double(alpha[c]) : 1, g = double(gamma[c]), deviation = std::sqrt(double(running_var[c]) + eps);
    affine[c] = float(g * a / deviation);
    affine[C + c] = float(double(beta[c]) - g * double(running_mean[c]) / deviation);
  }
}

// z of element j = i * C + c.
static float normalised(const BatchNormApply& in, int64_t j, int64_t c, int64_t C) {
  float z = std::fma(in.affine[c], float(value(in.v, in.v_type, j)), in.affine[C + c]);
  if (in.shortcut_affine) {
    z += std::fma(in.shortcut_affine[c], in.shortcut[j], in.shortcut_affine[C + c]);
  } else if (in.shortcut) {
    z += in.shortcut[j];
  }
  return z;
}

void batch_norm_apply(float* y, word_t* bits, const BatchNormApply& in, int64_t rows, int64_t C) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < C; ++c) {
      float z = normalised(in, i * C + c, c, C);
      if (in.slope) {
        float w = z + in.bias1[c];
        z = (w > 0 ? w : in.slope[c] * w) + in.bias2[c];
      }
      y[i * C + c] = z;
    }
  if (bits) sign_pack_fwd(bits, y, in.threshold, rows, C);
}

static void store(float& gradient, double value, GradMode mode) {
  gradient = mode == GradMode::kAccumulate ? gradient + float(value) : float(value);
}

void batch_norm_rprelu_bwd(float* dz, double* sums, float* dbias1, float* dslope, float* dbias2, const float* dy,
                           const BatchNormApply& in, int64_t rows, int64_t C, GradMode mode) {
  auto w = [&](int64_t j) { return normalised(in, j, j % C, C) + in.bias1[j % C]; };
  auto gradient = [&](int64_t j) { return w(j) > 0 ? dy[j] : in.slope[j % C] * dy[j]; };
  std::vector<double> terms(size_t(2 * C));
  sum_in_slices(
      terms.data(), rows, C, [&](int64_t j) { return double(dy[j]); }, [&](int64_t j) { return w(j) > 0 ? 0.0 : double(w(j)); });
  sum_in_slices(
      sums, rows, C, [&](int64_t j) { return double(gradient(j)); }, [&](int64_t j) { return value(in.v, in.v_type, j); });
  for (int64_t c = 0; c < C; ++c) {
    store(dbias1[c], sums[c], mode);
    store(dslope[c], terms[size_t(C + c)], mode);
    store(dbias2[c], terms[size_t(c)], mode);
  }
  for (int64_t j = 0; j < rows * C; ++j) dz[j] = gradient(j);
}

void batch_norm_bwd_sums(double* sums, const float* dy, const void* v, DType v_type, int64_t rows, int64_t C) {
  sum_in_slices(
      sums, rows, C, [&](int64_t j) { return double(dy[j]); }, [&](int64_t j) { return value(v, v_type, j); });
}

void batch_norm_bwd_coefficients(float* coefficients, float* dgamma, float* dbeta, const double* sums, const double* stats,
                                 const float* alpha, const float* gamma, int64_t rows, int64_t C, GradMode mode) {
  double m = double(rows);
  for (int64_t c = 0; c < C; ++c) {
    double B1 = sums[c], B2 = sums[C + c], mean = stats[c], invstd = stats[2 * C + c], al = alpha ? double(alpha[c]) : 1;
    double G = al * invstd * (B2 - mean * B1);
    double a = double(gamma[c]) * invstd;
    double b = -a * al * invstd * G / m;
    coefficients[c] = float(a);
    coefficients[C + c] = float(b);
    coefficients[2 * C + c] = float(-a * B1 / m - b * mean);
    store(dgamma[c], G, mode);
    store(dbeta[c], B1, mode);
  }
}

void batch_norm_bwd_apply(float* dz, const float* dy, const void* v, DType v_type, const float* coefficients, int64_t rows,
                          int64_t C) {
  const float *a = coefficients, *b = a + C, *shift = b + C;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < C; ++c) {
      float x = float(value(v, v_type, i * C + c));
      dz[i * C + c] = std::fma(a[c], dy[i * C + c], std::fma(b[c], x, shift[c]));
    }
}

}  // namespace bireal::ref
