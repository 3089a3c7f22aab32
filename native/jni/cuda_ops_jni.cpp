// Shims between bireal.backend.cuda.CudaOps and native/ops: no arithmetic, no checks (the Java caller has made them). Every call
// makes its device current first.
#include <dlfcn.h>

#include <cstring>
#include <string>
#include <vector>

#include "bireal_backend_cuda_CudaOps.h"

#include "cuda/device.h"
#include "cuda/row_slices.h"
#include "jni/jni_guard.h"
#include "ops/activation/activation.h"
#include "ops/adam/update_items.h"
#include "ops/approx_sign/approx_sign.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_max_pool.h"
#include "ops/binary_conv/binary_conv.h"
#include "ops/cast/cast.h"
#include "ops/finite_norm/finite_norm.h"
#include "ops/image/image.h"
#include "ops/pool2d/pool2d.h"
#include "ops/sgd/sgd.h"
#include "ops/sign_pack/sign_pack.h"
#include "ops/softmax_xent/softmax_xent.h"
#include "ops/weight_binarize/weight_binarize.h"

using namespace bireal;
using namespace bireal::jni;

namespace {

/// What bireal.backend.cuda.CudaBackend holds.
struct Gpu {
  explicit Gpu(const cuda::Device::Config& config) : device(config) {}
  cuda::Device device;
  cuda::Stream stream = nullptr;  // every launch goes there
};

struct BinaryConv {
  const Gpu& gpu;
  cuda::BinaryConvPlan plan;
  DType type;  // of dz and dx
};

const Gpu& gpu(jlong context) {
  const Gpu& g = *pointer<Gpu>(context);
  g.device.make_current();
  return g;
}

/// Of a convolution, which adds to them; 0: none.
void clear_sums(const BinaryConv& b, jlong sums) {
  const cuda::Driver& driver = b.gpu.device.driver();
  if (sums)
    driver.check(driver.cuMemsetD8Async(cuda::DevicePointer(sums), 0, size_t(2 * b.plan.shape.K) * sizeof(int64_t), b.gpu.stream),
                 "cuMemsetD8Async");
}

const float* floats(jlong address) { return pointer<const float>(address); }

std::string text(JNIEnv* env, jstring string) {
  const char* characters = env->GetStringUTFChars(string, nullptr);
  if (!characters) throw std::bad_alloc();
  std::string copy = characters;
  env->ReleaseStringUTFChars(string, characters);
  return copy;
}

std::vector<jlong> longs(JNIEnv* env, jlongArray array) {
  std::vector<jlong> copy(size_t(env->GetArrayLength(array)));
  env->GetLongArrayRegion(array, 0, jsize(copy.size()), copy.data());
  return copy;
}

/// The end of a step: its work list on the device with the scratch of finite_norm behind it, and the normalisations.
struct Update {
  /// trained: begin, count and the bits of the decay of each segment; binary: begin, K, taps, C, rule, address of bits and of
  /// alpha of each parameter; norms: addresses of running mean, variance and sums, and C, of each.
  Update(const Gpu& gpu, const std::vector<jlong>& trained, const std::vector<jlong>& binary, const std::vector<jlong>& norms,
         int64_t count)
      : gpu(gpu) {
    std::vector<Segment> segments;
    for (size_t i = 0; i < trained.size(); i += 3) {
      double decay;
      std::memcpy(&decay, &trained[i + 2], sizeof decay);
      segments.push_back({trained[i], trained[i + 1], decay});
    }
    std::vector<cuda::BinaryParameter> parameters;
    for (size_t i = 0; i < binary.size(); i += 7)
      parameters.push_back({binary[i], binary[i + 1], binary[i + 2], binary[i + 3], WeightGradient(binary[i + 4]),
                            pointer<word_t>(binary[i + 5]), pointer<float>(binary[i + 6])});
    for (size_t i = 0; i < norms.size(); i += 4)
      this->norms.push_back(
          {pointer<float>(norms[i]), pointer<float>(norms[i + 1]), pointer<double>(norms[i + 2]), norms[i + 3]});
    const std::vector<cuda::UpdateItem> list = cuda::update_items(segments, parameters, count);
    item_count = int64_t(list.size());
    items_bytes = (list.size() * sizeof list[0] + 63) / 64 * 64;
    const cuda::Driver& driver = gpu.device.driver();
    driver.check(driver.cuMemAlloc(&memory, items_bytes + size_t(cuda::finite_norm_workspace_bytes(item_count))), "cuMemAlloc");
    int result = driver.cuMemcpyHtoDAsync(memory, list.data(), list.size() * sizeof list[0], gpu.stream);
    if (result == 0) result = driver.cuStreamSynchronize(gpu.stream);  // the list goes
    if (result != 0) driver.cuMemFree(memory);
    driver.check(result, "copying the work list of the optimizer");
  }
  ~Update() {
    // Results are not looked at: after a fatal error every call fails.
    gpu.device.driver().cuStreamSynchronize(gpu.stream);
    gpu.device.driver().cuMemFree(memory);
  }
  Update(const Update&) = delete;
  Update& operator=(const Update&) = delete;

  const cuda::UpdateItem* items() const { return pointer<const cuda::UpdateItem>(jlong(memory)); }
  void* workspace() const { return pointer<void>(jlong(memory + items_bytes)); }

  const Gpu& gpu;
  cuda::DevicePointer memory = 0;
  size_t items_bytes = 0;
  int64_t item_count = 0;
  std::vector<cuda::RunningStatistics> norms;
};

cuda::BatchNormStatistics statistics(jlong stats, jlong affine, jlong running, jlong sums, int64_t slices, bool integer,
                                     jlong alpha, jlong gamma, jlong beta, double eps) {
  return {pointer<double>(stats),
          pointer<float>(affine),
          pointer<double>(running),
          pointer<const void>(sums),
          slices,
          integer,
          floats(alpha),
          floats(gamma),
          floats(beta),
          eps};
}

cuda::BatchNormApplyCuda apply(jlong v, jint v_type, jlong affine, jlong shortcut, jlong shortcut_affine, jlong bias1,
                               jlong slope, jlong bias2) {
  return {pointer<const void>(v),  DType(v_type), floats(affine), nullptr,       pointer<const void>(shortcut),
          floats(shortcut_affine), nullptr,       floats(bias1),  floats(slope), floats(bias2)};
}

}  // namespace

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_createContext(JNIEnv* env, jclass, jstring library, jint ordinal,
                                                                       jint images, jboolean synchronize) {
  return jni_guard(env, [&]() -> jlong {
    cuda::Device::Config config;
    config.library = text(env, library);
    config.ordinal = ordinal;
    config.images = cuda::Device::Config::Images(images);
    config.synchronize = synchronize;
    return reinterpret_cast<jlong>(new Gpu(config));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_destroyContext(JNIEnv* env, jclass, jlong context) {
  jni_guard(env, [&] { delete pointer<Gpu>(context); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_setStream(JNIEnv* env, jclass, jlong context, jlong stream) {
  jni_guard(env, [&] { pointer<Gpu>(context)->stream = pointer<std::remove_pointer_t<cuda::Stream>>(stream); });
}

JNIEXPORT jint JNICALL Java_bireal_backend_cuda_CudaOps_computeCapability(JNIEnv* env, jclass, jlong context) {
  return jni_guard(env, [&]() -> jint { return jint(gpu(context).device.sm()); });
}

JNIEXPORT jstring JNICALL Java_bireal_backend_cuda_CudaOps_imageKind(JNIEnv* env, jclass, jlong context) {
  return jni_guard(env, [&]() -> jstring { return env->NewStringUTF(cuda::image_kind_name(gpu(context).device.image_kind())); });
}

JNIEXPORT jint JNICALL Java_bireal_backend_cuda_CudaOps_toolkitVersion(JNIEnv* env, jclass) {
  return jni_guard(env, [&]() -> jint { return cuda::toolkit_version(); });
}

JNIEXPORT jboolean JNICALL Java_bireal_backend_cuda_CudaOps_isFatal(JNIEnv* env, jclass, jint result) {
  return jni_guard(env, [&]() -> jboolean { return cuda::is_fatal(result); });
}

JNIEXPORT jint JNICALL Java_bireal_backend_cuda_CudaOps_stickyError(JNIEnv* env, jclass, jlong context) {
  return jni_guard(env, [&]() -> jint {
    const Gpu& g = *pointer<Gpu>(context);
    const cuda::Driver& driver = g.device.driver();
    int capturing = 0;
    int result = driver.cuStreamIsCapturing(g.stream, &capturing);
    // A synchronisation would end a capture; the question itself reports what the context has become.
    return result != 0 || capturing ? result : driver.cuStreamSynchronize(g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_openLibrary(JNIEnv* env, jclass, jstring path) {
  jni_guard(env, [&] {
    const std::string name = text(env, path);
    // Global and for good: JCuda's natives find its symbols by the name that it was loaded under.
    if (!dlopen(name.c_str(), RTLD_NOW | RTLD_GLOBAL)) throw std::runtime_error(dlerror());
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_planBinaryConv(JNIEnv* env, jclass, jlong context, jlong n, jlong h,
                                                                        jlong w, jlong c, jlong k, jlong r, jlong s, jlong stride,
                                                                        jlong pad, jint type, jboolean training,
                                                                        jboolean measured) {
  return jni_guard(env, [&]() -> jlong {
    const Gpu& g = gpu(context);
    const Conv2dShape shape{n, h, w, c, k, r, s, stride, pad};
    return reinterpret_cast<jlong>(
        new BinaryConv{g, cuda::binary_conv_plan(g.device, shape, measured ? nullptr : "", DType(type), training), DType(type)});
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_destroyBinaryConv(JNIEnv* env, jclass, jlong plan) {
  jni_guard(env, [&] { delete pointer<BinaryConv>(plan); });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_binaryConvWorkspaceBytes(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jlong { return pointer<BinaryConv>(plan)->plan.workspace_bytes; });
}

JNIEXPORT jint JNICALL Java_bireal_backend_cuda_CudaOps_binaryConvValueType(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jint { return jint(pointer<BinaryConv>(plan)->plan.v_type); });
}

JNIEXPORT jstring JNICALL Java_bireal_backend_cuda_CudaOps_binaryConvKernelName(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jstring { return env->NewStringUTF(pointer<BinaryConv>(plan)->plan.kernel_name); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_binaryConvFwd(JNIEnv* env, jclass, jlong plan, jlong v, jlong sums,
                                                                      jlong x, jlong w, jlong n) {
  jni_guard(env, [&] {
    const BinaryConv& b = *pointer<BinaryConv>(plan);
    b.gpu.device.make_current();
    clear_sums(b, sums);
    cuda::binary_conv_fwd(b.gpu.device, b.plan, pointer<void>(v), pointer<int64_t>(sums), pointer<const word_t>(x),
                          pointer<const word_t>(w), n, b.gpu.stream);
  });
}

JNIEXPORT jboolean JNICALL Java_bireal_backend_cuda_CudaOps_binaryConvFusesBatchNorm(JNIEnv* env, jclass, jlong plan) {
  return jni_guard(env, [&]() -> jboolean { return cuda::binary_conv_fuses_norm(pointer<BinaryConv>(plan)->plan); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_binaryConvBatchNormFwd(
    JNIEnv* env, jclass, jlong plan, jlong y, jint type, jlong bits, jlong v, jlong x, jlong w, jlong affine, jlong stats,
    jlong running, jlong sums, jlong alpha, jlong gamma, jlong beta, jdouble eps, jlong shortcut, jlong shortcut_affine,
    jlong bias1, jlong slope, jlong bias2, jlong threshold, jlong n) {
  jni_guard(env, [&] {
    const BinaryConv& b = *pointer<BinaryConv>(plan);
    b.gpu.device.make_current();
    clear_sums(b, sums);
    const cuda::BatchNormStatistics norm = statistics(stats, affine, running, sums, 1, true, alpha, gamma, beta, eps);
    cuda::BatchNormApplyCuda in = apply(v, jint(b.plan.v_type), affine, shortcut, shortcut_affine, bias1, slope, bias2);
    in.statistics = stats ? &norm : nullptr;
    in.threshold = floats(threshold);
    cuda::binary_conv_norm_fwd(b.gpu.device, b.plan, pointer<void>(v), pointer<void>(y), DType(type), pointer<word_t>(bits), in,
                               pointer<const word_t>(x), pointer<const word_t>(w), n, b.gpu.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_binaryConvBwdInput(JNIEnv* env, jclass, jlong plan, jlong dx, jlong dz,
                                                                           jlong alpha, jlong w, jlong n) {
  jni_guard(env, [&] {
    const BinaryConv& b = *pointer<BinaryConv>(plan);
    b.gpu.device.make_current();
    cuda::binary_conv_bwd_input(b.gpu.device, b.plan, pointer<void>(dx), pointer<const void>(dz), b.type, floats(alpha),
                                pointer<const word_t>(w), n, b.gpu.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_binaryConvBwdWeight(JNIEnv* env, jclass, jlong plan, jlong dw, jlong x,
                                                                            jlong dz, jlong n, jint mode, jlong workspace) {
  jni_guard(env, [&] {
    const BinaryConv& b = *pointer<BinaryConv>(plan);
    b.gpu.device.make_current();
    cuda::binary_conv_bwd_weight(b.gpu.device, b.plan, pointer<float>(dw), pointer<const word_t>(x), pointer<const void>(dz),
                                 b.type, n, GradMode(mode), pointer<void>(workspace), b.gpu.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_castWeights(JNIEnv* env, jclass, jlong context, jint type,
                                                                    jlongArray tensors) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    const std::vector<jlong> values = longs(env, tensors);
    std::vector<cuda::CastWeights> list;
    for (size_t i = 0; i < values.size(); i += 5)
      list.push_back({pointer<void>(values[i]), floats(values[i + 1]), floats(values[i + 2]), values[i + 3], values[i + 4]});
    cuda::cast_weights(g.device, list.data(), int64_t(list.size()), DType(type), g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_castGradients(JNIEnv* env, jclass, jlong context, jint type, jint mode,
                                                                      jlongArray tensors) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    const std::vector<jlong> values = longs(env, tensors);
    std::vector<cuda::CastGradient> list;
    for (size_t i = 0; i < values.size(); i += 3)
      list.push_back({pointer<float>(values[i]), pointer<const void>(values[i + 1]), values[i + 2]});
    cuda::cast_gradients(g.device, list.data(), int64_t(list.size()), DType(type), GradMode(mode), g.stream);
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_planUpdate(JNIEnv* env, jclass, jlong context, jlongArray trained,
                                                                    jlongArray binary, jlongArray norms, jlong count) {
  return jni_guard(env, [&]() -> jlong {
    return reinterpret_cast<jlong>(new Update(gpu(context), longs(env, trained), longs(env, binary), longs(env, norms), count));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_destroyUpdate(JNIEnv* env, jclass, jlong update) {
  jni_guard(env, [&] { delete pointer<Update>(update); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_finiteNorm(JNIEnv* env, jclass, jlong update, jlong state, jlong scale,
                                                                   jlong g, jlong p, jlong metrics) {
  jni_guard(env, [&] {
    const Update& u = *pointer<Update>(update);
    u.gpu.device.make_current();
    cuda::finite_norm(u.gpu.device, pointer<StepState>(state), pointer<LossScale>(scale), floats(g), floats(p), u.items(),
                      u.item_count, pointer<const double>(metrics), u.workspace(), u.gpu.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_adam(JNIEnv* env, jclass, jlong update, jlong p, jlong m, jlong v,
                                                             jlong g, jlong state, jlong scale, jdouble beta1, jdouble beta2,
                                                             jdouble eps) {
  jni_guard(env, [&] {
    const Update& u = *pointer<Update>(update);
    u.gpu.device.make_current();
    cuda::adam(u.gpu.device, pointer<float>(p), pointer<float>(m), pointer<float>(v), floats(g), u.items(), u.item_count,
               pointer<const StepState>(state), pointer<const LossScale>(scale), AdamSpec{beta1, beta2, eps}, u.gpu.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_sgd(JNIEnv* env, jclass, jlong update, jlong p, jlong b, jlong g,
                                                            jlong state, jlong scale, jdouble momentum, jint form) {
  jni_guard(env, [&] {
    const Update& u = *pointer<Update>(update);
    u.gpu.device.make_current();
    cuda::sgd(u.gpu.device, pointer<float>(p), pointer<float>(b), floats(g), u.items(), u.item_count,
              pointer<const StepState>(state), pointer<const LossScale>(scale), momentum, SgdForm(form), u.gpu.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormCommit(JNIEnv* env, jclass, jlong update, jlong nonfinite,
                                                                        jlong count, jdouble momentum) {
  jni_guard(env, [&] {
    const Update& u = *pointer<Update>(update);
    u.gpu.device.make_current();
    cuda::batch_norm_commit(u.gpu.device, u.norms.data(), int64_t(u.norms.size()), pointer<const double>(nonfinite), count,
                            momentum, u.gpu.stream);
  });
}

// Ops.

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_signPackFwd(JNIEnv* env, jobject, jlong context, jlong bits, jlong x,
                                                                    jint type, jlong threshold, jlong rows, jlong c) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::sign_pack_fwd(g.device, pointer<word_t>(bits), pointer<const void>(x), DType(type), floats(threshold), rows, c,
                        g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_signUnpackFwd(JNIEnv* env, jobject, jlong context, jlong x, jint type,
                                                                      jlong bits, jlong rows, jlong c) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::sign_unpack_fwd(g.device, pointer<void>(x), DType(type), pointer<const word_t>(bits), rows, c, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_weightBinarizeFwd(JNIEnv* env, jobject, jlong context, jlong bits,
                                                                          jlong alpha, jlong w, jlong k, jlong taps, jlong c) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    weight_binarize_check(k, taps, c);
    const cuda::WeightTensor tensor{floats(w), pointer<float>(0), pointer<word_t>(bits), pointer<float>(alpha), k, taps, c};
    cuda::weight_binarize_fwd(g.device, &tensor, 1, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_weightGradient(JNIEnv* env, jobject, jlong context, jlong gradient,
                                                                       jlong w, jlong alpha, jlong k, jlong taps, jlong c,
                                                                       jint rule) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    const cuda::WeightTensor tensor{floats(w), pointer<float>(gradient), pointer<word_t>(0), pointer<float>(alpha), k, taps, c};
    cuda::weight_gradient(g.device, &tensor, 1, WeightGradient(rule), g.stream);
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_approxSignWorkspaceBytes(JNIEnv* env, jobject, jlong rows, jlong c) {
  return jni_guard(env, [&]() -> jlong { return cuda::approx_sign_workspace_bytes(rows, c); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_approxSignBwd(JNIEnv* env, jobject, jlong context, jlong dx,
                                                                      jlong dthreshold, jlong sums, jlong db, jlong x, jint type,
                                                                      jlong threshold, jlong shortcut, jlong pooled_w, jlong v,
                                                                      jint v_type, jlong second_sums, jlong second_v, jlong rows,
                                                                      jlong c, jint kind, jint mode, jlong workspace) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::approx_sign_bwd(g.device, pointer<void>(dx), pointer<float>(dthreshold), pointer<const void>(db),
                          pointer<const void>(x), DType(type), floats(threshold), pointer<const void>(shortcut), pooled_w,
                          pointer<double>(sums), pointer<const void>(v), DType(v_type), pointer<double>(second_sums),
                          pointer<const void>(second_v), rows, c, ActivationGradient(kind), GradMode(mode),
                          pointer<void>(workspace), g.stream);
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_batchNormSlices(JNIEnv* env, jobject, jlong rows, jlong c) {
  return jni_guard(env, [&]() -> jlong { return cuda::row_slice_count(rows, c); });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_batchNormWorkspaceBytes(JNIEnv* env, jobject, jlong rows, jlong c) {
  return jni_guard(env, [&]() -> jlong { return cuda::batch_norm_rprelu_bwd_workspace_bytes(rows, c); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormSums(JNIEnv* env, jobject, jlong context, jlong sums, jlong v,
                                                                      jint v_type, jlong rows, jlong c, jlong) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::batch_norm_sums(g.device, pointer<void>(sums), pointer<const void>(v), DType(v_type), rows, c, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormStatistics(JNIEnv* env, jobject, jlong context, jlong stats,
                                                                            jlong affine, jlong running, jlong sums,
                                                                            jboolean integer, jlong alpha, jlong gamma,
                                                                            jlong beta, jlong rows, jlong c, jdouble eps) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::batch_norm_statistics(
        g.device,
        statistics(stats, affine, running, sums, integer ? 1 : cuda::row_slice_count(rows, c), integer, alpha, gamma, beta, eps),
        rows, c, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormInference(JNIEnv* env, jobject, jlong context, jlong affine,
                                                                           jlong mean, jlong var, jlong alpha, jlong gamma,
                                                                           jlong beta, jlong c, jdouble eps) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::batch_norm_inference(g.device, pointer<float>(affine), floats(mean), floats(var), floats(alpha), floats(gamma),
                               floats(beta), c, eps, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormApply(JNIEnv* env, jobject, jlong context, jlong y, jint type,
                                                                       jlong bits, jlong v, jint v_type, jlong affine,
                                                                       jlong stats, jlong running, jlong sums, jlong alpha,
                                                                       jlong gamma, jlong beta, jdouble eps, jlong shortcut,
                                                                       jlong shortcut_affine, jlong bias1, jlong slope,
                                                                       jlong bias2, jlong threshold, jlong rows, jlong c) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    const cuda::BatchNormStatistics norm = statistics(stats, affine, running, sums, 1, true, alpha, gamma, beta, eps);
    cuda::BatchNormApplyCuda in = apply(v, v_type, affine, shortcut, shortcut_affine, bias1, slope, bias2);
    in.statistics = stats ? &norm : nullptr;
    in.threshold = floats(threshold);
    cuda::batch_norm_apply(g.device, pointer<void>(y), DType(type), pointer<word_t>(bits), in, rows, c, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormRPReluBwd(JNIEnv* env, jobject, jlong context, jlong dz,
                                                                           jlong sums, jlong dbias1, jlong dslope, jlong dbias2,
                                                                           jlong dy, jint type, jlong v, jint v_type,
                                                                           jlong affine, jlong shortcut, jlong shortcut_affine,
                                                                           jlong bias1, jlong slope, jlong bias2, jlong rows,
                                                                           jlong c, jint mode, jlong workspace) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::batch_norm_rprelu_bwd(g.device, pointer<void>(dz), pointer<double>(sums), pointer<float>(dbias1),
                                pointer<float>(dslope), pointer<float>(dbias2), pointer<const void>(dy), DType(type),
                                apply(v, v_type, affine, shortcut, shortcut_affine, bias1, slope, bias2), rows, c, GradMode(mode),
                                pointer<void>(workspace), g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormBwdSums(JNIEnv* env, jobject, jlong context, jlong sums,
                                                                         jlong dy, jint type, jlong v, jint v_type, jlong rows,
                                                                         jlong c, jlong) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::batch_norm_bwd_sums(g.device, pointer<double>(sums), pointer<const void>(dy), DType(type), pointer<const void>(v),
                              DType(v_type), rows, c, g.stream);
  });
}

static cuda::BatchNormBackward backward(jlong coefficients, jlong dgamma, jlong dbeta, jlong sums, jlong stats, jlong alpha,
                                        jlong gamma) {
  return {pointer<float>(coefficients), pointer<float>(dgamma), pointer<float>(dbeta), pointer<const double>(sums),
          pointer<const double>(stats), floats(alpha),          floats(gamma)};
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormBwdCoefficients(
    JNIEnv* env, jobject, jlong context, jlong coefficients, jlong dgamma, jlong dbeta, jlong sums, jlong stats, jlong alpha,
    jlong gamma, jlong shortcut_coefficients, jlong shortcut_dgamma, jlong shortcut_dbeta, jlong shortcut_sums,
    jlong shortcut_stats, jlong shortcut_alpha, jlong shortcut_gamma, jlong summed_rows, jlong rows, jlong c, jint mode) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    const cuda::BatchNormBackward shortcut = backward(shortcut_coefficients, shortcut_dgamma, shortcut_dbeta, shortcut_sums,
                                                      shortcut_stats, shortcut_alpha, shortcut_gamma);
    cuda::batch_norm_bwd_coefficients(g.device, backward(coefficients, dgamma, dbeta, sums, stats, alpha, gamma),
                                      shortcut_coefficients ? &shortcut : nullptr, cuda::row_slice_count(summed_rows, c), rows, c,
                                      GradMode(mode), g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormBwdApply(JNIEnv* env, jobject, jlong context, jlong dz, jlong dy,
                                                                          jint type, jlong v, jint v_type, jlong coefficients,
                                                                          jlong shortcut_dz, jlong shortcut_v,
                                                                          jlong shortcut_coefficients, jlong rows, jlong c) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::batch_norm_bwd_apply(g.device, pointer<void>(dz), pointer<const void>(dy), DType(type), pointer<const void>(v),
                               DType(v_type), floats(coefficients), pointer<void>(shortcut_dz), pointer<const void>(shortcut_v),
                               floats(shortcut_coefficients), rows, c, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormMaxPoolCheck(JNIEnv* env, jobject, jint type, jlong n, jlong h,
                                                                              jlong w, jlong c, jlong r, jlong s, jlong stride,
                                                                              jlong pad) {
  jni_guard(env, [&] { cuda::batch_norm_max_pool_check(Conv2dShape{n, h, w, c, c, r, s, stride, pad}, DType(type)); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormMaxPoolFwd(JNIEnv* env, jobject, jlong context, jlong vmax,
                                                                            jlong index, jlong sums, jlong v, jint type,
                                                                            jlong gamma, jlong n, jlong h, jlong w, jlong c,
                                                                            jlong r, jlong s, jlong stride, jlong pad, jlong) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::batch_norm_max_pool_fwd(g.device, pointer<void>(vmax), pointer<uint8_t>(index), pointer<double>(sums),
                                  pointer<const void>(v), DType(type), floats(gamma),
                                  Conv2dShape{n, h, w, c, c, r, s, stride, pad}, n, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_batchNormMaxPoolBwdApply(JNIEnv* env, jobject, jlong context, jlong dz,
                                                                                 jlong dy, jlong index, jlong v, jint type,
                                                                                 jlong coefficients, jlong n, jlong h, jlong w,
                                                                                 jlong c, jlong r, jlong s, jlong stride,
                                                                                 jlong pad) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::batch_norm_max_pool_bwd_apply(g.device, pointer<void>(dz), pointer<const void>(dy), pointer<const uint8_t>(index),
                                        pointer<const void>(v), DType(type), floats(coefficients),
                                        Conv2dShape{n, h, w, c, c, r, s, stride, pad}, n, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_avgPoolCheck(JNIEnv* env, jobject, jlong n, jlong h, jlong w, jlong c,
                                                                     jlong r, jlong s, jlong stride, jlong pad) {
  jni_guard(env, [&] { avg_pool_check(Conv2dShape{n, h, w, c, c, r, s, stride, pad}); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_avgPoolFwd(JNIEnv* env, jobject, jlong context, jlong y, jlong x,
                                                                   jint type, jlong n, jlong h, jlong w, jlong c, jlong r,
                                                                   jlong s, jlong stride, jlong pad) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::avg_pool_fwd(g.device, pointer<void>(y), pointer<const void>(x), DType(type),
                       Conv2dShape{n, h, w, c, c, r, s, stride, pad}, n, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_avgPoolBwd(JNIEnv* env, jobject, jlong context, jlong dx, jlong dy,
                                                                   jint type, jlong n, jlong h, jlong w, jlong c, jlong r,
                                                                   jlong s, jlong stride, jlong pad) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::avg_pool_bwd(g.device, pointer<void>(dx), pointer<const void>(dy), DType(type),
                       Conv2dShape{n, h, w, c, c, r, s, stride, pad}, n, g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_activationFwd(JNIEnv* env, jobject, jlong context, jlong y, jlong x,
                                                                      jint type, jlong count, jint kind, jfloat slope) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::activation_fwd(g.device, pointer<void>(y), pointer<const void>(x), DType(type), count, ActivationKind(kind), slope,
                         g.stream);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_activationBwd(JNIEnv* env, jobject, jlong context, jlong dx, jlong dy,
                                                                      jlong x, jlong shortcut, jint type, jlong count, jint kind,
                                                                      jfloat slope) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::activation_bwd(g.device, pointer<void>(dx), pointer<const void>(dy), pointer<const void>(x),
                         pointer<const void>(shortcut), DType(type), count, ActivationKind(kind), slope, g.stream);
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_softmaxXentWorkspaceBytes(JNIEnv* env, jobject, jlong n) {
  return jni_guard(env, [&]() -> jlong { return softmax_xent_workspace_bytes(n); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_softmaxXent(JNIEnv* env, jobject, jlong context, jlong metrics,
                                                                    jlong dlogits, jlong logits, jint type, jlong labels,
                                                                    jlong teacher, jlong scale, jdouble smoothing,
                                                                    jdouble temperature, jdouble gradient_scale, jlong n, jlong k,
                                                                    jint mode, jlong workspace) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    const cuda::SoftmaxXentCuda in{pointer<const void>(logits),
                                   DType(type),
                                   pointer<const int32_t>(labels),
                                   pointer<const void>(teacher),
                                   pointer<const LossScale>(scale),
                                   smoothing,
                                   temperature,
                                   gradient_scale};
    cuda::softmax_xent(g.device, pointer<double>(metrics), pointer<void>(dlogits), in, n, k, GradMode(mode),
                       pointer<void>(workspace), g.stream);
  });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_CudaOps_finiteNormWorkspaceBytes(JNIEnv*, jobject, jlong) {
  return 0;
}  // an Update has its own

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_imageCheck(JNIEnv* env, jobject, jlong n, jlong h0, jlong w0, jlong c,
                                                                   jlong h, jlong w, jlong pad) {
  jni_guard(env, [&] { ImageShape{n, h0, w0, c, h, w, pad}.check(); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_CudaOps_imageNormalize(JNIEnv* env, jobject, jlong context, jlong x, jint type,
                                                                       jlong pixels, jlong crops, jlong mean, jlong std, jlong n,
                                                                       jlong h0, jlong w0, jlong c, jlong h, jlong w, jlong pad) {
  jni_guard(env, [&] {
    const Gpu& g = gpu(context);
    cuda::image_normalize(g.device, pointer<void>(x), DType(type), pointer<const uint8_t>(pixels),
                          pointer<const ImageCrop>(crops), pointer<const double>(mean), pointer<const double>(std),
                          ImageShape{n, h0, w0, c, h, w, pad}, n, g.stream);
  });
}
