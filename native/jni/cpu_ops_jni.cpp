// Shims between bireal.backend.cpu.CpuOps and native/ops: no arithmetic, no checks (the Java caller has made them).
#include <algorithm>
#include <cstring>

#include "bireal_backend_cpu_CpuOps.h"

#include "cpu/context.h"
#include "jni/jni_guard.h"
#include "ops/activation/activation.h"
#include "ops/adam/adam.h"
#include "ops/approx_sign/approx_sign.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/binary_conv/binary_conv.h"
#include "ops/conv2d/conv2d.h"
#include "ops/finite_norm/finite_norm.h"
#include "ops/image/image.h"
#include "ops/linear/linear.h"
#include "ops/pool2d/pool2d.h"
#include "ops/sgd/sgd.h"
#include "ops/sign_pack/sign_pack.h"
#include "ops/softmax_xent/softmax_xent.h"
#include "ops/weight_binarize/weight_binarize.h"

using namespace bireal;
using namespace bireal::jni;

namespace {

/// What bireal.backend.cpu.CpuBackend holds: `reference` runs the slow law of every op instead of the fast path.
struct Host {
  Host(int threads, cpu::Isa isa, bool reference) : context(threads, isa), reference(reference) {}
  cpu::Context context;
  const bool reference;
};

template <class Plan>
struct Planned {
  Host& host;
  Plan plan;
};
using BinaryConv = Planned<cpu::BinaryConvPlan>;
using Conv2d = Planned<cpu::Conv2dPlan>;
using Linear = Planned<cpu::LinearPlan>;

Host& host(jlong context) { return *pointer<Host>(context); }

const float* floats(jlong address) { return pointer<const float>(address); }

void batch_norm_bwd_sums(Host& owner, jlong sums, jlong dy, jlong v, jint v_type, jlong rows, jlong c, jlong workspace) {
  if (owner.reference)
    ref::batch_norm_bwd_sums(pointer<double>(sums), floats(dy), pointer<const void>(v), DType(v_type), rows, c);
  else
    cpu::batch_norm_bwd_sums(owner.context, pointer<double>(sums), floats(dy), pointer<const void>(v), DType(v_type), rows, c,
                             pointer<void>(workspace));
}

void batch_norm_bwd_apply(Host& owner, jlong dz, jlong dy, jlong v, jint v_type, jlong coefficients, jlong rows, jlong c) {
  if (owner.reference)
    ref::batch_norm_bwd_apply(pointer<float>(dz), floats(dy), pointer<const void>(v), DType(v_type), floats(coefficients), rows,
                              c);
  else
    cpu::batch_norm_bwd_apply(owner.context, pointer<float>(dz), floats(dy), pointer<const void>(v), DType(v_type),
                              floats(coefficients), rows, c);
}

}  // namespace

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_createContext(JNIEnv* env, jclass, jint threads, jint isa,
                                                                     jboolean reference) {
  return jni_guard(env, [&]() -> jlong {
    cpu::Isa chosen = isa < 0 ? cpu::default_isa() : cpu::Isa(isa);
    return reinterpret_cast<jlong>(new Host(threads, chosen, reference));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_destroyContext(JNIEnv* env, jclass, jlong context) {
  jni_guard(env, [&] { delete pointer<Host>(context); });
}

JNIEXPORT jint JNICALL Java_bireal_backend_cpu_CpuOps_contextIsa(JNIEnv* env, jclass, jlong context) {
  return jni_guard(env, [&]() -> jint { return jint(host(context).context.isa()); });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_planBinaryConv(JNIEnv* env, jclass, jlong context, jlong n, jlong h,
                                                                      jlong w, jlong c, jlong k, jlong r, jlong s, jlong stride,
                                                                      jlong pad, jint gradient) {
  return jni_guard(env, [&]() -> jlong {
    Conv2dShape shape{n, h, w, c, k, r, s, stride, pad};
    Host& owner = host(context);
    return reinterpret_cast<jlong>(
        new BinaryConv{owner, cpu::binary_conv_plan(owner.context, shape, BinaryConvGradient(gradient))});
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvFallbacks(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jlong { return pointer<BinaryConv>(plan)->plan.fallbacks->load(); });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvPreparedBytes(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jlong {
    const BinaryConv& p = *pointer<BinaryConv>(plan);
    // The reference reads the bits as weight_binarize wrote them.
    return p.host.reference ? jlong(p.plan.shape.K * p.plan.shape.taps() * word_count(p.plan.shape.C) * int64_t(sizeof(word_t)))
                            : p.plan.prepared_bytes;
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvWorkspaceBytes(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jlong { return pointer<BinaryConv>(plan)->plan.workspace_bytes; });
}

JNIEXPORT jint JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvValueType(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jint { return jint(pointer<BinaryConv>(plan)->plan.v_type); });
}

JNIEXPORT jstring JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvKernelName(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jstring {
    const BinaryConv& p = *pointer<BinaryConv>(plan);
    return env->NewStringUTF(p.host.reference ? "reference" : p.plan.kernel_name);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_destroyBinaryConv(JNIEnv* env, jclass, jlong plan) {
  jni_guard(env, [&] { delete pointer<BinaryConv>(plan); });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_planConv2d(JNIEnv* env, jclass, jlong context, jlong n, jlong h, jlong w,
                                                                  jlong c, jlong k, jlong r, jlong s, jlong stride, jlong pad) {
  return jni_guard(env, [&]() -> jlong {
    Conv2dShape shape{n, h, w, c, k, r, s, stride, pad};
    Host& owner = host(context);
    return reinterpret_cast<jlong>(new Conv2d{owner, cpu::conv2d_plan(owner.context, shape)});
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_conv2dWorkspaceBytes(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jlong { return pointer<Conv2d>(plan)->plan.workspace_bytes; });
}

JNIEXPORT jstring JNICALL Java_bireal_backend_cpu_CpuOps_conv2dKernelName(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jstring {
    const Conv2d& p = *pointer<Conv2d>(plan);
    return env->NewStringUTF(p.host.reference ? "reference" : p.plan.kernel_name);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_destroyConv2d(JNIEnv* env, jclass, jlong plan) {
  jni_guard(env, [&] { delete pointer<Conv2d>(plan); });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_planLinear(JNIEnv* env, jclass, jlong context, jlong n, jlong c, jlong k) {
  return jni_guard(env, [&]() -> jlong {
    Host& owner = host(context);
    return reinterpret_cast<jlong>(new Linear{owner, cpu::linear_plan(owner.context, n, c, k)});
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_linearWorkspaceBytes(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jlong { return pointer<Linear>(plan)->plan.workspace_bytes; });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_destroyLinear(JNIEnv* env, jclass, jlong plan) {
  jni_guard(env, [&] { delete pointer<Linear>(plan); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_signPackFwd(JNIEnv* env, jobject, jlong context, jlong bits, jlong x, jint,
                                                                  jlong threshold, jlong rows, jlong c) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::sign_pack_fwd(pointer<word_t>(bits), floats(x), floats(threshold), rows, c);
    else
      cpu::sign_pack_fwd(owner.context, pointer<word_t>(bits), floats(x), floats(threshold), rows, c);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_weightBinarizeFwd(JNIEnv* env, jobject, jlong context, jlong bits,
                                                                        jlong alpha, jlong w, jlong k, jlong taps, jlong c) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    weight_binarize_check(k, taps, c);
    if (owner.reference)
      ref::weight_binarize_fwd(pointer<word_t>(bits), pointer<float>(alpha), floats(w), k, taps, c);
    else
      cpu::weight_binarize_fwd(owner.context, pointer<word_t>(bits), pointer<float>(alpha), floats(w), k, taps, c);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_weightGradient(JNIEnv* env, jobject, jlong context, jlong g, jlong w,
                                                                     jlong alpha, jlong k, jlong taps, jlong c, jint rule) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::weight_gradient(pointer<float>(g), floats(w), floats(alpha), k, taps, c, WeightGradient(rule));
    else
      cpu::weight_gradient(owner.context, pointer<float>(g), floats(w), floats(alpha), k, taps, c, WeightGradient(rule));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_signUnpackFwd(JNIEnv* env, jobject, jlong context, jlong x, jint,
                                                                    jlong bits, jlong rows, jlong c) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::sign_unpack_fwd(pointer<float>(x), pointer<const word_t>(bits), rows, c);
    else
      cpu::sign_unpack_fwd(owner.context, pointer<float>(x), pointer<const word_t>(bits), rows, c);
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_approxSignWorkspaceBytes(JNIEnv* env, jobject, jlong, jlong c) {
  return jni_guard(env, [&]() -> jlong { return approx_sign_workspace_bytes(c); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_approxSignBwd(JNIEnv* env, jobject, jlong context, jlong dx,
                                                                    jlong dthreshold, jlong sums, jlong db, jlong x, jint type,
                                                                    jlong threshold, jlong shortcut, jlong pooled_w, jlong v,
                                                                    jint v_type, jlong second_sums, jlong second_v, jlong rows,
                                                                    jlong c, jint kind, jint mode, jlong workspace) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    const cpu::ApproxSignNorms norms = {{{pointer<double>(sums), pointer<const void>(v), DType(v_type)},
                                         {pointer<double>(second_sums), pointer<const void>(second_v), DType(type)}}};
    if (!owner.reference)
      return cpu::approx_sign_bwd(owner.context, pointer<float>(dx), pointer<float>(dthreshold), floats(db), floats(x),
                                  floats(threshold), floats(shortcut), pooled_w, rows, c, ActivationGradient(kind),
                                  GradMode(mode), pointer<void>(workspace), norms);
    ref::approx_sign_bwd(pointer<float>(dx), pointer<float>(dthreshold), floats(db), floats(x), floats(threshold),
                         floats(shortcut), pooled_w, rows, c, ActivationGradient(kind), GradMode(mode));
    for (const auto& norm : norms)
      if (norm.sums) ref::batch_norm_bwd_sums(norm.sums, floats(dx), norm.v, norm.v_type, rows, c);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvPrepare(JNIEnv* env, jclass, jlong plan, jlong prepared,
                                                                        jlong w) {
  jni_guard(env, [&] {
    const BinaryConv& p = *pointer<BinaryConv>(plan);
    if (p.host.reference)
      std::memcpy(pointer<void>(prepared), pointer<void>(w),
                  size_t(p.plan.shape.K * p.plan.shape.taps() * word_count(p.plan.shape.C)) * sizeof(word_t));
    else
      cpu::binary_conv_prepare(p.host.context, p.plan, pointer<void>(prepared), pointer<const word_t>(w));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvFwd(JNIEnv* env, jclass, jlong plan, jlong v, jlong sums, jlong x,
                                                                    jlong prepared, jlong n, jlong workspace) {
  jni_guard(env, [&] {
    const BinaryConv& p = *pointer<BinaryConv>(plan);
    if (p.host.reference)
      ref::binary_conv_fwd(pointer<void>(v), p.plan.v_type, pointer<int64_t>(sums), pointer<const word_t>(x),
                           pointer<const word_t>(prepared), p.plan.shape, n);
    else
      cpu::binary_conv_fwd(p.host.context, p.plan, pointer<void>(v), pointer<int64_t>(sums), pointer<const word_t>(x),
                           pointer<const void>(prepared), n, pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvBatchNormFwd(JNIEnv* env, jclass, jlong plan, jlong y, jlong bits,
                                                                             jlong x, jlong prepared, jlong affine,
                                                                             jlong shortcut, jlong shortcut_affine, jlong bias1,
                                                                             jlong slope, jlong bias2, jlong threshold, jlong n,
                                                                             jlong workspace) {
  jni_guard(env, [&] {
    const BinaryConv& p = *pointer<BinaryConv>(plan);
    BatchNormApply norm{nullptr,           p.plan.v_type, floats(affine), floats(shortcut), floats(shortcut_affine),
                        floats(threshold), floats(bias1), floats(slope),  floats(bias2)};
    cpu::binary_conv_norm_fwd(p.host.context, p.plan, pointer<float>(y), pointer<word_t>(bits), norm, pointer<const word_t>(x),
                              pointer<const void>(prepared), n, pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvBwdInput(JNIEnv* env, jclass, jlong plan, jlong dx, jlong dz,
                                                                         jlong alpha, jlong w, jlong n, jlong workspace) {
  jni_guard(env, [&] {
    const BinaryConv& p = *pointer<BinaryConv>(plan);
    if (p.host.reference && p.plan.gradient == BinaryConvGradient::kFixed16)
      *p.plan.fallbacks += ref::binary_conv_bwd_input_fixed16(pointer<float>(dx), floats(dz), floats(alpha),
                                                              pointer<const word_t>(w), p.plan.shape, n);
    else if (p.host.reference)
      ref::binary_conv_bwd_input(pointer<float>(dx), floats(dz), floats(alpha), pointer<const word_t>(w), p.plan.shape, n);
    else
      cpu::binary_conv_bwd_input(p.host.context, p.plan, pointer<float>(dx), floats(dz), floats(alpha), pointer<const word_t>(w),
                                 n, pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_binaryConvBwdWeight(JNIEnv* env, jclass, jlong plan, jlong dw, jlong x,
                                                                          jlong dz, jlong n, jint mode, jlong workspace) {
  jni_guard(env, [&] {
    const BinaryConv& p = *pointer<BinaryConv>(plan);
    if (p.host.reference && p.plan.gradient == BinaryConvGradient::kFixed16)
      *p.plan.fallbacks += ref::binary_conv_bwd_weight_fixed16(pointer<float>(dw), pointer<const word_t>(x), floats(dz),
                                                               p.plan.shape, n, GradMode(mode));
    else if (p.host.reference)
      ref::binary_conv_bwd_weight(pointer<float>(dw), pointer<const word_t>(x), floats(dz), p.plan.shape, n, GradMode(mode));
    else
      cpu::binary_conv_bwd_weight(p.host.context, p.plan, pointer<float>(dw), pointer<const word_t>(x), floats(dz), n,
                                  GradMode(mode), pointer<void>(workspace));
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_batchNormSlices(JNIEnv*, jobject, jlong, jlong) { return 1; }

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_batchNormWorkspaceBytes(JNIEnv* env, jobject, jlong, jlong c) {
  return jni_guard(env, [&]() -> jlong { return batch_norm_workspace_bytes(c); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormSums(JNIEnv* env, jobject, jlong context, jlong sums, jlong v,
                                                                    jint type, jlong rows, jlong c, jlong workspace) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::batch_norm_sums(pointer<void>(sums), pointer<const void>(v), DType(type), rows, c);
    else
      cpu::batch_norm_sums(owner.context, pointer<void>(sums), pointer<const void>(v), DType(type), rows, c,
                           pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormStatistics(JNIEnv* env, jobject, jlong, jlong stats, jlong affine,
                                                                          jlong running, jlong sums, jboolean integer,
                                                                          jlong alpha, jlong gamma, jlong beta, jlong rows,
                                                                          jlong c, jdouble eps) {
  jni_guard(env, [&] {
    ref::batch_norm_statistics(pointer<double>(stats), pointer<float>(affine), pointer<double>(running),
                               pointer<const void>(sums), integer, floats(alpha), floats(gamma), floats(beta), rows, c, eps);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormCommit(JNIEnv* env, jclass, jlong mean, jlong var, jlong running,
                                                                      jlong nonfinite, jlong c, jlong count, jdouble momentum) {
  jni_guard(env, [&] {
    ref::batch_norm_commit(pointer<float>(mean), pointer<float>(var), pointer<double>(running), pointer<const double>(nonfinite),
                           c, count, momentum);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormInference(JNIEnv* env, jobject, jlong, jlong affine, jlong mean,
                                                                         jlong var, jlong alpha, jlong gamma, jlong beta, jlong c,
                                                                         jdouble eps) {
  jni_guard(env, [&] {
    ref::batch_norm_inference(pointer<float>(affine), floats(mean), floats(var), floats(alpha), floats(gamma), floats(beta), c,
                              eps);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormApply(JNIEnv* env, jobject, jlong context, jlong y, jint,
                                                                     jlong bits, jlong v, jint type, jlong affine, jlong stats,
                                                                     jlong running, jlong sums, jlong alpha, jlong gamma,
                                                                     jlong beta, jdouble eps, jlong shortcut,
                                                                     jlong shortcut_affine, jlong bias1, jlong slope, jlong bias2,
                                                                     jlong threshold, jlong rows, jlong c) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (stats)
      ref::batch_norm_statistics(pointer<double>(stats), pointer<float>(affine), pointer<double>(running),
                                 pointer<const void>(sums), true, floats(alpha), floats(gamma), floats(beta), rows, c, eps);
    BatchNormApply in{pointer<const void>(v), DType(type),   floats(affine), floats(shortcut), floats(shortcut_affine),
                      floats(threshold),      floats(bias1), floats(slope),  floats(bias2)};
    if (owner.reference)
      ref::batch_norm_apply(pointer<float>(y), pointer<word_t>(bits), in, rows, c);
    else
      cpu::batch_norm_apply(owner.context, pointer<float>(y), pointer<word_t>(bits), in, rows, c);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormRPReluBwd(JNIEnv* env, jobject, jlong context, jlong dz,
                                                                         jlong sums, jlong dbias1, jlong dslope, jlong dbias2,
                                                                         jlong dy, jint, jlong v, jint type, jlong affine,
                                                                         jlong shortcut, jlong shortcut_affine, jlong bias1,
                                                                         jlong slope, jlong bias2, jlong rows, jlong c, jint mode,
                                                                         jlong workspace) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    BatchNormApply in{pointer<const void>(v), DType(type),   floats(affine), floats(shortcut), floats(shortcut_affine), nullptr,
                      floats(bias1),          floats(slope), floats(bias2)};
    if (owner.reference)
      ref::batch_norm_rprelu_bwd(pointer<float>(dz), pointer<double>(sums), pointer<float>(dbias1), pointer<float>(dslope),
                                 pointer<float>(dbias2), floats(dy), in, rows, c, GradMode(mode));
    else
      cpu::batch_norm_rprelu_bwd(owner.context, pointer<float>(dz), pointer<double>(sums), pointer<float>(dbias1),
                                 pointer<float>(dslope), pointer<float>(dbias2), floats(dy), in, rows, c, GradMode(mode),
                                 pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormBwdSums(JNIEnv* env, jobject, jlong context, jlong sums, jlong dy,
                                                                       jint, jlong v, jint type, jlong rows, jlong c,
                                                                       jlong workspace) {
  jni_guard(env, [&] { batch_norm_bwd_sums(host(context), sums, dy, v, type, rows, c, workspace); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormBwdCoefficients(
    JNIEnv* env, jobject, jlong, jlong coefficients, jlong dgamma, jlong dbeta, jlong sums, jlong stats, jlong alpha, jlong gamma,
    jlong shortcut_coefficients, jlong shortcut_dgamma, jlong shortcut_dbeta, jlong shortcut_sums, jlong shortcut_stats,
    jlong shortcut_alpha, jlong shortcut_gamma, jlong, jlong rows, jlong c, jint mode) {
  jni_guard(env, [&] {
    ref::batch_norm_bwd_coefficients(pointer<float>(coefficients), pointer<float>(dgamma), pointer<float>(dbeta),
                                     pointer<const double>(sums), pointer<const double>(stats), floats(alpha), floats(gamma),
                                     rows, c, GradMode(mode));
    if (shortcut_coefficients)
      ref::batch_norm_bwd_coefficients(pointer<float>(shortcut_coefficients), pointer<float>(shortcut_dgamma),
                                       pointer<float>(shortcut_dbeta), pointer<const double>(shortcut_sums),
                                       pointer<const double>(shortcut_stats), floats(shortcut_alpha), floats(shortcut_gamma),
                                       rows, c, GradMode(mode));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormBwdApply(JNIEnv* env, jobject, jlong context, jlong dz, jlong dy,
                                                                        jint type, jlong v, jint v_type, jlong coefficients,
                                                                        jlong shortcut_dz, jlong shortcut_v,
                                                                        jlong shortcut_coefficients, jlong rows, jlong c) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    // The shortcut's first: dz may be dy.
    if (shortcut_dz) batch_norm_bwd_apply(owner, shortcut_dz, dy, shortcut_v, type, shortcut_coefficients, rows, c);
    batch_norm_bwd_apply(owner, dz, dy, v, v_type, coefficients, rows, c);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_conv2dFwd(JNIEnv* env, jclass, jlong plan, jlong y, jlong x, jlong w,
                                                                jlong n, jlong workspace) {
  jni_guard(env, [&] {
    const Conv2d& p = *pointer<Conv2d>(plan);
    if (p.host.reference)
      ref::conv2d_fwd(pointer<float>(y), floats(x), floats(w), p.plan.shape, n);
    else
      cpu::conv2d_fwd(p.host.context, p.plan, pointer<float>(y), floats(x), floats(w), n, pointer<void>(workspace));
  });
}

JNIEXPORT jboolean JNICALL Java_bireal_backend_cpu_CpuOps_conv2dFusesMaxPool(JNIEnv* env, jclass, jlong plan, jlong r, jlong s,
                                                                             jlong stride, jlong pad) {
  return jni_guard(env, [&]() -> jboolean { return cpu::conv2d_fuses_max_pool(pointer<Conv2d>(plan)->plan, r, s, stride, pad); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_conv2dMaxPoolBatchNormFwd(JNIEnv* env, jclass, jlong plan, jlong y,
                                                                                jlong bits, jlong x, jlong w, jlong gamma,
                                                                                jlong affine, jlong threshold, jlong n,
                                                                                jlong workspace) {
  jni_guard(env, [&] {
    const Conv2d& p = *pointer<Conv2d>(plan);
    const BatchNormApply norm{nullptr, DType::kF32, floats(affine), nullptr, nullptr, floats(threshold)};
    cpu::conv2d_pool_norm_fwd(p.host.context, p.plan, pointer<float>(y), pointer<word_t>(bits), floats(gamma), norm, floats(x),
                              floats(w), n, pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_conv2dBwdInput(JNIEnv* env, jclass, jlong plan, jlong dx, jlong dy, jlong w,
                                                                     jlong n, jlong workspace) {
  jni_guard(env, [&] {
    const Conv2d& p = *pointer<Conv2d>(plan);
    if (p.host.reference)
      ref::conv2d_bwd_input(pointer<float>(dx), floats(dy), floats(w), p.plan.shape, n);
    else
      cpu::conv2d_bwd_input(p.host.context, p.plan, pointer<float>(dx), floats(dy), floats(w), n, pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_conv2dBwdWeight(JNIEnv* env, jclass, jlong plan, jlong dw, jlong x,
                                                                      jlong dy, jlong n, jint mode, jlong workspace) {
  jni_guard(env, [&] {
    const Conv2d& p = *pointer<Conv2d>(plan);
    if (p.host.reference)
      ref::conv2d_bwd_weight(pointer<float>(dw), floats(x), floats(dy), p.plan.shape, n, GradMode(mode));
    else
      cpu::conv2d_bwd_weight(p.host.context, p.plan, pointer<float>(dw), floats(x), floats(dy), n, GradMode(mode),
                             pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_linearFwd(JNIEnv* env, jclass, jlong plan, jlong y, jlong x, jlong w,
                                                                jlong bias, jlong n, jlong workspace) {
  jni_guard(env, [&] {
    const Linear& p = *pointer<Linear>(plan);
    if (p.host.reference)
      ref::linear_fwd(pointer<float>(y), floats(x), floats(w), floats(bias), n, p.plan.C, p.plan.K);
    else
      cpu::linear_fwd(p.host.context, p.plan, pointer<float>(y), floats(x), floats(w), floats(bias), n, pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_linearBwdInput(JNIEnv* env, jclass, jlong plan, jlong dx, jlong dy, jlong w,
                                                                     jlong n, jlong workspace) {
  jni_guard(env, [&] {
    const Linear& p = *pointer<Linear>(plan);
    if (p.host.reference)
      ref::linear_bwd_input(pointer<float>(dx), floats(dy), floats(w), n, p.plan.C, p.plan.K);
    else
      cpu::linear_bwd_input(p.host.context, p.plan, pointer<float>(dx), floats(dy), floats(w), n, pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_linearBwdWeight(JNIEnv* env, jclass, jlong plan, jlong dw, jlong dbias,
                                                                      jlong x, jlong dy, jlong n, jint mode, jlong workspace) {
  jni_guard(env, [&] {
    const Linear& p = *pointer<Linear>(plan);
    if (p.host.reference)
      ref::linear_bwd_weight(pointer<float>(dw), pointer<float>(dbias), floats(x), floats(dy), n, p.plan.C, p.plan.K,
                             GradMode(mode));
    else
      cpu::linear_bwd_weight(p.host.context, p.plan, pointer<float>(dw), pointer<float>(dbias), floats(x), floats(dy), n,
                             GradMode(mode), pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormMaxPoolCheck(JNIEnv* env, jobject, jint, jlong n, jlong h, jlong w,
                                                                            jlong c, jlong r, jlong s, jlong stride, jlong pad) {
  jni_guard(env, [&] { batch_norm_max_pool_check(Conv2dShape{n, h, w, c, c, r, s, stride, pad}); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormMaxPoolFwd(JNIEnv* env, jobject, jlong context, jlong vmax,
                                                                          jlong index, jlong sums, jlong v, jint, jlong gamma,
                                                                          jlong n, jlong h, jlong w, jlong c, jlong r, jlong s,
                                                                          jlong stride, jlong pad, jlong workspace) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    const Conv2dShape shape{n, h, w, c, c, r, s, stride, pad};
    if (owner.reference)
      ref::batch_norm_max_pool_fwd(pointer<float>(vmax), pointer<uint8_t>(index), pointer<double>(sums), floats(v), floats(gamma),
                                   shape, n);
    else
      cpu::batch_norm_max_pool_fwd(owner.context, pointer<float>(vmax), pointer<uint8_t>(index), pointer<double>(sums), floats(v),
                                   floats(gamma), shape, n, pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_batchNormMaxPoolBwdApply(JNIEnv* env, jobject, jlong context, jlong dz,
                                                                               jlong dy, jlong index, jlong v, jint,
                                                                               jlong coefficients, jlong n, jlong h, jlong w,
                                                                               jlong c, jlong r, jlong s, jlong stride,
                                                                               jlong pad) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    const Conv2dShape shape{n, h, w, c, c, r, s, stride, pad};
    if (owner.reference)
      ref::batch_norm_max_pool_bwd_apply(pointer<float>(dz), floats(dy), pointer<const uint8_t>(index), floats(v),
                                         floats(coefficients), shape, n);
    else
      cpu::batch_norm_max_pool_bwd_apply(owner.context, pointer<float>(dz), floats(dy), pointer<const uint8_t>(index), floats(v),
                                         floats(coefficients), shape, n);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_avgPoolCheck(JNIEnv* env, jobject, jlong n, jlong h, jlong w, jlong c,
                                                                   jlong r, jlong s, jlong stride, jlong pad) {
  jni_guard(env, [&] { avg_pool_check(Conv2dShape{n, h, w, c, c, r, s, stride, pad}); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_avgPoolFwd(JNIEnv* env, jobject, jlong context, jlong y, jlong x, jint,
                                                                 jlong n, jlong h, jlong w, jlong c, jlong r, jlong s,
                                                                 jlong stride, jlong pad) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::avg_pool_fwd(pointer<float>(y), floats(x), Conv2dShape{n, h, w, c, c, r, s, stride, pad}, n);
    else
      cpu::avg_pool_fwd(owner.context, pointer<float>(y), floats(x), Conv2dShape{n, h, w, c, c, r, s, stride, pad}, n);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_avgPoolBwd(JNIEnv* env, jobject, jlong context, jlong dx, jlong dy, jint,
                                                                 jlong n, jlong h, jlong w, jlong c, jlong r, jlong s,
                                                                 jlong stride, jlong pad) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::avg_pool_bwd(pointer<float>(dx), floats(dy), Conv2dShape{n, h, w, c, c, r, s, stride, pad}, n);
    else
      cpu::avg_pool_bwd(owner.context, pointer<float>(dx), floats(dy), Conv2dShape{n, h, w, c, c, r, s, stride, pad}, n);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_activationFwd(JNIEnv* env, jobject, jlong context, jlong y, jlong x, jint,
                                                                    jlong count, jint kind, jfloat slope) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::activation_fwd(pointer<float>(y), floats(x), count, ActivationKind(kind), slope);
    else
      cpu::activation_fwd(owner.context, pointer<float>(y), floats(x), count, ActivationKind(kind), slope);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_activationBwd(JNIEnv* env, jobject, jlong context, jlong dx, jlong dy,
                                                                    jlong x, jlong shortcut, jint, jlong count, jint kind,
                                                                    jfloat slope) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::activation_bwd(pointer<float>(dx), floats(dy), floats(x), floats(shortcut), count, ActivationKind(kind), slope);
    else
      cpu::activation_bwd(owner.context, pointer<float>(dx), floats(dy), floats(x), floats(shortcut), count, ActivationKind(kind),
                          slope);
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_softmaxXentWorkspaceBytes(JNIEnv* env, jobject, jlong n) {
  return jni_guard(env, [&]() -> jlong { return softmax_xent_workspace_bytes(n); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_softmaxXent(JNIEnv* env, jobject, jlong context, jlong metrics,
                                                                  jlong dlogits, jlong logits, jint, jlong labels, jlong teacher,
                                                                  jlong, jdouble smoothing, jdouble temperature, jdouble scale,
                                                                  jlong n, jlong k, jint mode, jlong workspace) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    SoftmaxXent in{floats(logits), pointer<const int32_t>(labels), floats(teacher), smoothing, temperature, scale};
    if (owner.reference)
      ref::softmax_xent(pointer<double>(metrics), pointer<float>(dlogits), in, n, k, GradMode(mode));
    else
      cpu::softmax_xent(owner.context, pointer<double>(metrics), pointer<float>(dlogits), in, n, k, GradMode(mode),
                        pointer<void>(workspace));
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_CpuOps_finiteNormWorkspaceBytes(JNIEnv* env, jobject, jlong count) {
  return jni_guard(env, [&]() -> jlong { return finite_norm_workspace_bytes(count); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_finiteNorm(JNIEnv* env, jclass, jlong context, jlong state, jlong g,
                                                                 jlong metrics, jlong count, jlong workspace) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::finite_norm(pointer<StepState>(state), floats(g), pointer<const double>(metrics), count);
    else
      cpu::finite_norm(owner.context, pointer<StepState>(state), floats(g), pointer<const double>(metrics), count,
                       pointer<void>(workspace));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_adam(JNIEnv* env, jclass, jlong context, jlong p, jlong m, jlong v, jlong g,
                                                           jlong segments, jlong segment_count, jlong state, jdouble beta1,
                                                           jdouble beta2, jdouble eps) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::adam(pointer<float>(p), pointer<float>(m), pointer<float>(v), floats(g), pointer<const Segment>(segments),
                segment_count, pointer<const StepState>(state), AdamSpec{beta1, beta2, eps});
    else
      cpu::adam(owner.context, pointer<float>(p), pointer<float>(m), pointer<float>(v), floats(g),
                pointer<const Segment>(segments), segment_count, pointer<const StepState>(state), AdamSpec{beta1, beta2, eps});
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_sgd(JNIEnv* env, jclass, jlong context, jlong p, jlong b, jlong g,
                                                          jlong segments, jlong segment_count, jlong state, jdouble momentum,
                                                          jint form) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    if (owner.reference)
      ref::sgd(pointer<float>(p), pointer<float>(b), floats(g), pointer<const Segment>(segments), segment_count,
               pointer<const StepState>(state), momentum, SgdForm(form));
    else
      cpu::sgd(owner.context, pointer<float>(p), pointer<float>(b), floats(g), pointer<const Segment>(segments), segment_count,
               pointer<const StepState>(state), momentum, SgdForm(form));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_imageCheck(JNIEnv* env, jobject, jlong n, jlong h0, jlong w0, jlong c,
                                                                 jlong h, jlong w, jlong pad) {
  jni_guard(env, [&] { ImageShape{n, h0, w0, c, h, w, pad}.check(); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_CpuOps_imageNormalize(JNIEnv* env, jobject, jlong context, jlong x, jint,
                                                                     jlong pixels, jlong crops, jlong mean, jlong std, jlong n,
                                                                     jlong h0, jlong w0, jlong c, jlong h, jlong w, jlong pad) {
  jni_guard(env, [&] {
    Host& owner = host(context);
    ImageShape shape{n, h0, w0, c, h, w, pad};
    const double *m = pointer<const double>(mean), *d = pointer<const double>(std);
    const ImageCrop* windows = pointer<const ImageCrop>(crops);
    if (owner.reference)
      ref::image_normalize(pointer<float>(x), pointer<const uint8_t>(pixels), windows, m, d, shape, n);
    else
      cpu::image_normalize(owner.context, pointer<float>(x), pointer<const uint8_t>(pixels), windows, m, d, shape, n);
  });
}
