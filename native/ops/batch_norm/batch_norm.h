// batch_norm: batch normalisation over rows = n*H*W of an NHWC tensor v (real, or the integers of binary_conv), in
// parts, so that the sums can come from a convolution's epilogue and the application can be fused with what follows.
// With alpha, the input of the normalisation is z = alpha[c] * v[c]; z itself is never formed.
//
//   sums         S1[c] = sum_i v,  S2[c] = sum_i v^2      int64 for integer v; double, in slices of rows, for float v
//   statistics   mean = S1/m, var = S2/m - mean^2 (of v, in double; integers: (m S2 - S1^2)/m^2 in 128 bits, then rounded once)
//                invstd = 1/sqrt(alpha^2 var + eps)
//                scale = gamma alpha invstd,  shift = beta - scale_double * mean      (double, each rounded once to float)
//                running_sums[0] += alpha mean, running_sums[1] += alpha^2 var m/(m-1)   (one addition a micro-batch)
//   commit       running <- running + momentum (running_sums/count - running) in double, rounded to float;
//                skipped while *nonfinite != 0. count = micro-batches of the step. Clears running_sums either way.
//   inference    scale = gamma alpha / sqrt(running_var + eps),  shift = beta - gamma running_mean / sqrt(running_var + eps)
//   apply        z[i,c] = fma(scale[c], v[i,c], shift[c]) + t,  t = shortcut[i,c], or
//                fma(shortcut_scale[c], shortcut[i,c], shortcut_shift[c]) where the shortcut has its own normalisation, or
//                nothing;  y = z, or RPReLU(z) = (w > 0 ? w : slope[c] w) + bias2[c] with w = z + bias1[c] where slope is given
//                (each product and sum rounded);  bits = sign_pack(y, threshold)                         (bits may be null)
//   rprelu_bwd   z and w as in apply;  dz[i,c] = w > 0 ? dy : slope[c] dy, the gradient of z;
//                sums: B1[c] = sum_i dz, B2[c] = sum_i dz * v, what bwd_sums would make of it;  dbias1 = B1,
//                dslope[c] = sum_i (w > 0 ? 0 : dy * w),  dbias2[c] = sum_i dy   (double, in slices of rows; the three per mode)
//   bwd_sums     B1[c] = sum_i dy,  B2[c] = sum_i dy * v            double, in slices of rows
//   bwd_coefficients   xhat = alpha invstd (v - mean);  G = sum dy xhat = alpha invstd (B2 - mean B1)
//                dgamma = G,  dbeta = B1  (per mode);   dz = a dy + b v + c, the gradient of z, with
//                a = gamma invstd,  b = -a alpha invstd G/m,  c = -a B1/m - b mean     (double, each rounded once to float)
//   bwd_apply    dz[i,c] = fma(a, dy[i,c], fma(b, v[i,c], c))
//
// Shapes    v [rows, C] (DType kF32, kI16 or kI32), y, dy, dz, shortcut [rows, C] float, sums [2, C] int64 (integer v) or
//           double (float v), stats [3, C] double = mean, var, invstd, affine [2, C] float = scale, shift,
//           running_sums [2, C] double, coefficients [3, C] float = a, b, c; gamma, beta, alpha, bias1, slope,
//           bias2 and their gradients [C] float; alpha may be null (1)
// Range     m >= 2: statistics over one value per channel are an error (require_rows); m * (R*S*C)^2 < 2^63
// Aliasing  y may be shortcut; dz may be dy, not shortcut.  Allocates nothing.  Workspace  batch_norm_workspace_bytes(C),
//           64-byte aligned
// Order     integer sums exact everywhere; float sums: per channel in row order within a slice, slices in order: the same bits
//           for any thread count and ISA; apply, rprelu_bwd's dz and bwd_apply: the same bits on every ISA, given the same input
// Throws    InvalidArgument from require_rows only
// Source    Ioffe and Szegedy 2015; RPReLU: Liu et al. 2020 (ReActNet), networks.md 2.1; PyTorch BatchNorm2d
//           (eps 1e-5, momentum 0.1); docs/decisions.md, rows 10 and 13
#pragma once
#include "core/bits.h"
#include "core/shapes.h"
#include "cuda/forward.h"

namespace bireal {
/// Throws InvalidArgument naming `what` if rows < 2.
void batch_norm_require_rows(int64_t rows, const char* what);
int64_t batch_norm_workspace_bytes(int64_t C);

struct BatchNormApply {  // inputs of the fused pass; pointers may be null where the formula says "or nothing"
  const void* v;
  DType v_type;
  const float* affine;           // [2,C]
  const float* shortcut;         // or null
  const float* shortcut_affine;  // [2,C] or null
  const float* threshold;        // of the next sign, or null
  const float* bias1 = nullptr;  // of RPReLU: all three, or none
  const float* slope = nullptr;
  const float* bias2 = nullptr;
};
}  // namespace bireal
// Each function exists in both namespaces with the same meaning; cpu takes the context first.
namespace bireal::ref {
void batch_norm_sums(void* sums, const void* v, DType v_type, int64_t rows, int64_t C);
void batch_norm_statistics(double* stats, float* affine, double* running_sums, const void* sums, bool integer_sums,
                           const float* alpha, const float* gamma, const float* beta, int64_t rows, int64_t C, double eps);
void batch_norm_commit(float* running_mean, float* running_var, double* running_sums, const double* nonfinite, int64_t C,
                       int64_t count, double momentum);
void batch_norm_inference(float* affine, const float* running_mean, const float* running_var, const float* alpha,
                          const float* gamma, const float* beta, int64_t C, double eps);
void batch_norm_apply(float* y, word_t* bits, const BatchNormApply& in, int64_t rows, int64_t C);
/// `in` as apply had it; its threshold is not looked at.
void batch_norm_rprelu_bwd(float* dz, double* sums, float* dbias1, float* dslope, float* dbias2, const float* dy,
                           const BatchNormApply& in, int64_t rows, int64_t C, GradMode mode);
void batch_norm_bwd_sums(double* sums, const float* dy, const void* v, DType v_type, int64_t rows, int64_t C);
void batch_norm_bwd_coefficients(float* coefficients, float* dgamma, float* dbeta, const double* sums, const double* stats,
                                 const float* alpha, const float* gamma, int64_t rows, int64_t C, GradMode mode);
void batch_norm_bwd_apply(float* dz, const float* dy, const void* v, DType v_type, const float* coefficients, int64_t rows,
                          int64_t C);
}  // namespace bireal::ref
namespace bireal::cpu {
class Context;
void batch_norm_sums(Context& context, void* sums, const void* v, DType v_type, int64_t rows, int64_t C, void* workspace);
void batch_norm_apply(Context& context, float* y, word_t* bits, const BatchNormApply& in, int64_t rows, int64_t C);
/// Rows [begin, end) of batch_norm_apply, on the calling thread, for ops that end with it: in.v is that of row `begin`, while y,
/// bits and the shortcut are those of row 0.
void batch_norm_apply_rows(const Context& context, float* y, word_t* bits, const BatchNormApply& in, int64_t begin, int64_t end,
                           int64_t C);
void batch_norm_rprelu_bwd(Context& context, float* dz, double* sums, float* dbias1, float* dslope, float* dbias2,
                           const float* dy, const BatchNormApply& in, int64_t rows, int64_t C, GradMode mode, void* workspace);
void batch_norm_bwd_sums(Context& context, double* sums, const float* dy, const void* v, DType v_type, int64_t rows, int64_t C,
                         void* workspace);
/// For ops that make dy: adds rows [begin, end) to sums [2,C] on the calling thread; dy and v are those of row 0. Added up with
/// batch_norm_add_slices, slices [kSlices,2,C] whose rows came in order are the sums of batch_norm_bwd_sums.
void batch_norm_bwd_sums_rows(const Context& context, double* sums, const float* dy, const void* v, DType v_type, int64_t begin,
                              int64_t end, int64_t C);
void batch_norm_add_slices(double* sums, const double* slices, int64_t C);
void batch_norm_bwd_apply(Context& context, float* dz, const float* dy, const void* v, DType v_type, const float* coefficients,
                          int64_t rows, int64_t C);
// statistics, commit, inference and bwd_coefficients work on C values only: the reference is the implementation.
using ref::batch_norm_bwd_coefficients;
using ref::batch_norm_commit;
using ref::batch_norm_inference;
using ref::batch_norm_statistics;
}  // namespace bireal::cpu
namespace bireal {
struct BatchNormApplyParams;
}
namespace bireal::cuda {
// What differs from cpu: values (y, dy, dz, shortcut, real v) are stored as kF32, kF16 or kBf16; v is kI16, kI32 or that type.
// Sums are partial, [slices, 2, C], added in order by whoever needs them, with slices = row_slice_count(rows, C) (row_slices.h)
// or 1 for those of binary_conv_fwd; of 16-bit values four rows' products are added in float32, everything else in double:
//   |error of a sum| <= rows 2^-53 sum|terms|, plus 2^-21 sum|terms| for 16-bit values
// Elementwise results are computed in float32 as above and rounded once; bits are of the rounded y.

/// v_type integer: sums int64, exact; else double.
void batch_norm_sums(const Device& device, void* sums, const void* v, DType v_type, int64_t rows, int64_t C, Stream stream);

struct BatchNormStatistics {
  double* stats;
  float* affine;
  double* running_sums;
  const void* sums;
  int64_t slices;
  bool integer_sums;
  const float* alpha;
  const float* gamma;
  const float* beta;
  double eps;
};
void batch_norm_statistics(const Device& device, const BatchNormStatistics& in, int64_t rows, int64_t C, Stream stream);

/// BatchNormApply with other stored types, and the statistics of v in the same pass where its sums are ready.
struct BatchNormApplyCuda {
  const void* v;
  DType v_type;
  const float* affine;                    // [2,C]; not read where `statistics` is given
  const BatchNormStatistics* statistics;  // on the host, or null; integer sums in one slice only; its outputs are written too
  const void* shortcut;                   // of the type of y, or null
  const float* shortcut_affine;           // [2,C] or null
  const float* threshold;                 // or null
  const float* bias1 = nullptr;           // of RPReLU: all three, or none
  const float* slope = nullptr;
  const float* bias2 = nullptr;
};
void batch_norm_apply(const Device& device, void* y, DType y_type, word_t* bits, const BatchNormApplyCuda& in, int64_t rows,
                      int64_t C, Stream stream);

/// The kernel's parameters, for kernels that apply to what they have just computed.
BatchNormApplyParams batch_norm_apply_params(void* y, word_t* bits, const BatchNormApplyCuda& in, int64_t rows, int64_t C);

/// `in` as apply had it; of it, affine is read in any case, statistics, threshold and bias2 are not looked at. sums
/// [row_slice_count(rows, C), 2, C] and dbias1 are of the stored dz. Two launches.
void batch_norm_rprelu_bwd(const Device& device, void* dz, double* sums, float* dbias1, float* dslope, float* dbias2,
                           const void* dy, DType type, const BatchNormApplyCuda& in, int64_t rows, int64_t C, GradMode mode,
                           void* workspace, Stream stream);
int64_t batch_norm_rprelu_bwd_workspace_bytes(int64_t rows, int64_t C);

void batch_norm_bwd_sums(const Device& device, double* sums, const void* dy, DType type, const void* v, DType v_type,
                         int64_t rows, int64_t C, Stream stream);
/// sums [slices, 2, C]: of batch_norm_bwd_sums, approx_sign_bwd or batch_norm_rprelu_bwd, row_slice_count(rows, C) of their rows,
/// which behind a max-pool are fewer than those of the statistics.
struct BatchNormBackward {
  float* coefficients;
  float* dgamma;
  float* dbeta;
  const double* sums;
  const double* stats;
  const float* alpha;
  const float* gamma;
};
/// One launch: also for the norm of a shortcut that was added, which has the same dy and so the same slices, rows and C, or null.
void batch_norm_bwd_coefficients(const Device& device, const BatchNormBackward& norm, const BatchNormBackward* shortcut_norm,
                                 int64_t slices, int64_t rows, int64_t C, GradMode mode, Stream stream);
/// Where shortcut_dz is not null also that of the shortcut's own norm, which was added and has the same dy: shortcut_v and
/// shortcut_dz [rows, C] of `type`; shortcut_dz must not be dy.
void batch_norm_bwd_apply(const Device& device, void* dz, const void* dy, DType type, const void* v, DType v_type,
                          const float* coefficients, void* shortcut_dz, const void* shortcut_v,
                          const float* shortcut_coefficients, int64_t rows, int64_t C, Stream stream);

struct RunningStatistics {  // of one normalisation, on the device
  float* running_mean;
  float* running_var;
  double* running_sums;
  int64_t C;
};
/// All normalisations of a network in one launch; `norms` is on the host and not kept.
void batch_norm_commit(const Device& device, const RunningStatistics* norms, int64_t norm_count, const double* nonfinite,
                       int64_t count, double momentum, Stream stream);
void batch_norm_inference(const Device& device, float* affine, const float* running_mean, const float* running_var,
                          const float* alpha, const float* gamma, const float* beta, int64_t C, double eps, Stream stream);
}  // namespace bireal::cuda
