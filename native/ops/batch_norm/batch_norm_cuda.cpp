#include <algorithm>

#include "cuda/launch.h"
#include "cuda/row_slices.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_params.h"

namespace bireal::cuda {

void batch_norm_sums(const Device& device, void* sums, const void* v, DType v_type, int64_t rows, int64_t C, Stream stream) {
  const int64_t slices = row_slice_count(rows, C);
  BatchNormSumsParams p{sums, nullptr, v, rows, int32_t(C), int32_t(slices)};
  launch(device, std::string("batch_norm_sums_") + type_suffix(v_type) + "_kernel",
         LaunchShape(kRowBlockThreads, word_count(C) * slices), p, stream);
}

static BatchNormStatisticsParams params(const BatchNormStatistics& in, int64_t rows, int64_t C) {
  return {in.stats, in.affine,  in.running_sums,    in.sums,        in.alpha, in.gamma, in.beta, in.eps,
          rows,     int32_t(C), int32_t(in.slices), in.integer_sums};
}

void batch_norm_statistics(const Device& device, const BatchNormStatistics& in, int64_t rows, int64_t C, Stream stream) {
  launch(device, "batch_norm_statistics_kernel", LaunchShape(kSliceThreads, word_count(C)), params(in, rows, C), stream);
}

void batch_norm_commit(const Device& device, const RunningStatistics* norms, int64_t norm_count, const double* nonfinite,
                       int64_t count, double momentum, Stream stream) {
  for (int64_t begin = 0; begin < norm_count; begin += BatchNormCommitParams::kNorms) {
    BatchNormCommitParams p{};
    p.nonfinite = nonfinite, p.momentum = momentum, p.count = count;
    int64_t blocks = 0;
    for (int64_t i = begin; i < norm_count && p.norm_count < BatchNormCommitParams::kNorms; ++i) {
      p.norms[p.norm_count++] = {norms[i].running_mean, norms[i].running_var, norms[i].running_sums, int32_t(norms[i].C),
                                 int32_t(blocks)};
      blocks += ceil_div(norms[i].C, 128);
    }
    launch(device, "batch_norm_commit_kernel", LaunchShape(128, blocks), p, stream);
  }
}

void batch_norm_inference(const Device& device, float* affine, const float* running_mean, const float* running_var,
                          const float* alpha, const float* gamma, const float* beta, int64_t C, double eps, Stream stream) {
  BatchNormInferenceParams p{affine, running_mean, running_var, alpha, gamma, beta, eps, int32_t(C)};
  launch(device, "batch_norm_inference_kernel", LaunchShape(128, ceil_div(C, 128)), p, stream);
}

BatchNormApplyParams batch_norm_apply_params(void* y, word_t* bits, const BatchNormApplyCuda& in, int64_t rows, int64_t C) {
  const int64_t Cw = word_count(C), group_words = std::min<int64_t>(Cw, 8), slices = row_slice_count(rows, C);
  BatchNormApplyParams p{y,        bits,     in.v, in.shortcut, in.affine,   in.shortcut_affine,   in.threshold,    in.bias1,
                         in.slope, in.bias2, rows, int32_t(C),  int32_t(Cw), int32_t(group_words), int32_t(slices), {}};
  if (in.statistics) {
    require(in.statistics->integer_sums && in.statistics->slices == 1,
            "batch_norm_apply: only the integer sums of a binary convolution can be finished in the same pass");
    p.statistics = params(*in.statistics, rows, C);
  }
  return p;
}

void batch_norm_apply(const Device& device, void* y, DType y_type, word_t* bits, const BatchNormApplyCuda& in, int64_t rows,
                      int64_t C, Stream stream) {
  const BatchNormApplyParams p = batch_norm_apply_params(y, bits, in, rows, C);
  launch(device, storage_kernel("batch_norm_apply", y_type, in.v_type),
         LaunchShape(kRowBlockThreads, ceil_div(p.Cw, p.group_words) * p.slices), p, stream);
}

int64_t batch_norm_rprelu_bwd_workspace_bytes(int64_t rows, int64_t C) { return row_slice_sums_bytes(rows, C); }

void batch_norm_rprelu_bwd(const Device& device, void* dz, double* sums, float* dbias1, float* dslope, float* dbias2,
                           const void* dy, DType type, const BatchNormApplyCuda& in, int64_t rows, int64_t C, GradMode mode,
                           void* workspace, Stream stream) {
  const int64_t slices = row_slice_count(rows, C);
  double* own_sums = static_cast<double*>(workspace);
  BatchNormRpreluBwdParams p{dz,       sums,     own_sums, dy,         in.v,           in.shortcut, in.affine, in.shortcut_affine,
                             in.bias1, in.slope, rows,     int32_t(C), int32_t(slices)};
  launch(device, storage_kernel("batch_norm_rprelu_bwd", type, in.v_type), LaunchShape(kRowBlockThreads, word_count(C) * slices),
         p, stream);
  FinishRowSumsParams finish{{{sums, dbias1}, {own_sums, dbias2}, {own_sums + C, dslope}},
                             2 * C,
                             int32_t(C),
                             int32_t(slices),
                             mode == GradMode::kAccumulate};
  launch(device, "batch_norm_rprelu_bwd_sum_kernel", LaunchShape(kSliceThreads, word_count(C), 3), finish, stream);
}

void batch_norm_bwd_sums(const Device& device, double* sums, const void* dy, DType type, const void* v, DType v_type,
                         int64_t rows, int64_t C, Stream stream) {
  const int64_t slices = row_slice_count(rows, C);
  BatchNormSumsParams p{sums, dy, v, rows, int32_t(C), int32_t(slices)};
  launch(device, storage_kernel("batch_norm_bwd_sums", type, v_type), LaunchShape(kRowBlockThreads, word_count(C) * slices), p,
         stream);
}

static BatchNormBwdCoefficientsParams::Norm params(const BatchNormBackward& in) {
  return {in.coefficients, in.dgamma, in.dbeta, in.sums, in.stats, in.alpha, in.gamma};
}

void batch_norm_bwd_coefficients(const Device& device, const BatchNormBackward& norm, const BatchNormBackward* shortcut_norm,
                                 int64_t slices, int64_t rows, int64_t C, GradMode mode, Stream stream) {
  BatchNormBwdCoefficientsParams p{params(norm), {}, rows, int32_t(C), int32_t(slices), mode == GradMode::kAccumulate};
  if (shortcut_norm) p.shortcut = params(*shortcut_norm);
  launch(device, "batch_norm_bwd_coefficients_kernel", LaunchShape(kSliceThreads, word_count(C), shortcut_norm ? 2 : 1), p,
         stream);
}

void batch_norm_bwd_apply(const Device& device, void* dz, const void* dy, DType type, const void* v, DType v_type,
                          const float* coefficients, void* shortcut_dz, const void* shortcut_v,
                          const float* shortcut_coefficients, int64_t rows, int64_t C, Stream stream) {
  const int64_t slices = row_slice_count(rows, C);
  BatchNormBwdApplyParams p{dz,           shortcut_dz,           dy,   v,          shortcut_v,
                            coefficients, shortcut_coefficients, rows, int32_t(C), int32_t(slices)};
  launch(device, storage_kernel("batch_norm_bwd_apply", type, v_type), LaunchShape(kRowBlockThreads, word_count(C) * slices), p,
         stream);
}

}  // namespace bireal::cuda
