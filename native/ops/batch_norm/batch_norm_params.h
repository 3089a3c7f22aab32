// Parameters of the kernels in batch_norm.cu. Pointers to stored values (void) are of the kernel's types.
#pragma once
#include <stdint.h>

namespace bireal {

struct BatchNormSumsParams {  // batch_norm_sums, batch_norm_bwd_sums
  void* sums;                 // [slices, 2, C] int64 (integer v) or double
  const void* dy;             // [rows, C], bwd only
  const void* v;              // [rows, C]
  int64_t rows;
  int32_t C, slices;
};

struct BatchNormStatisticsParams {
  double* stats;         // [3, C]
  float* affine;         // [2, C]
  double* running_sums;  // [2, C]
  const void* sums;      // [slices, 2, C] int64 or double; null in batch_norm_apply: affine is ready
  const float *alpha, *gamma, *beta;
  double eps;
  int64_t rows;
  int32_t C, slices, integer_sums;
};

struct BatchNormApplyParams {
  void* y;         // [rows, C]
  uint32_t* bits;  // [rows, Cw] or null
  const void *v, *shortcut;
  const float *affine, *shortcut_affine, *threshold;
  const float *bias1, *slope, *bias2;  // of RPReLU, or null
  int64_t rows;
  int32_t C, Cw;
  int32_t group_words;                   // words of a block's channels, at most 8
  int32_t slices;                        // of rows
  BatchNormStatisticsParams statistics;  // of v, where its sums are given
};

struct BatchNormRpreluBwdParams {
  void* dz;                  // [rows, C], as dy and shortcut
  double *norm_sums, *sums;  // [slices, 2, C] each: of dz and dz * v; of dy and dy * min(w, 0)
  const void *dy, *v;
  const void* shortcut;  // or null
  const float *affine, *shortcut_affine, *bias1, *slope;
  int64_t rows;
  int32_t C, slices;
};

struct BatchNormBwdCoefficientsParams {  // blocks are [words, norms]
  struct Norm {
    float *coefficients, *dgamma, *dbeta;
    const double *sums, *stats;  // sums [slices, 2, C]
    const float *alpha, *gamma;
  } norm, shortcut;
  int64_t rows;
  int32_t C, slices, accumulate;
};

struct BatchNormBwdApplyParams {
  void *dz, *shortcut_dz;  // the second of a norm that was added, or null
  const void *dy, *v, *shortcut_v;
  const float *coefficients, *shortcut_coefficients;  // [3, C]
  int64_t rows;
  int32_t C, slices;
};

struct BatchNormCommitParams {
  enum { kNorms = 80 };
  struct Norm {
    float *running_mean, *running_var;
    double* running_sums;  // [2, C]
    int32_t C, first_block;
  } norms[kNorms];
  const double* nonfinite;
  double momentum;
  int64_t count;
  int32_t norm_count;
};

struct BatchNormInferenceParams {
  float* affine;
  const float *running_mean, *running_var, *alpha, *gamma, *beta;
  double eps;
  int32_t C;
};

}  // namespace bireal
