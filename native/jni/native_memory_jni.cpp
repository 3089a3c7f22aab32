// Memory of the CPU backend.
#include <sys/mman.h>

#include <cstring>
#include <string>

#include "bireal_backend_cpu_NativeMemory.h"
#include "jni/jni_guard.h"

using namespace bireal::jni;

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_NativeMemory_allocate(JNIEnv* env, jclass, jlong bytes) {
  return jni_guard(env, [&]() -> jlong {
    // Anonymous pages are zero and cost nothing until touched.
    void* memory = mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    madvise(memory, size_t(bytes), MADV_HUGEPAGE);  // a hint: refusal changes speed only
    return reinterpret_cast<jlong>(memory);
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_NativeMemory_free(JNIEnv* env, jclass, jlong address, jlong bytes) {
  jni_guard(env, [&] {
    if (munmap(pointer<void>(address), size_t(bytes)) != 0)
      throw std::runtime_error("munmap failed: " + std::string(strerror(errno)));
  });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_NativeMemory_zero(JNIEnv* env, jclass, jlong address, jlong bytes) {
  jni_guard(env, [&] { std::memset(pointer<void>(address), 0, size_t(bytes)); });
}

JNIEXPORT void JNICALL Java_bireal_backend_cpu_NativeMemory_copy(JNIEnv* env, jclass, jlong target, jlong source, jlong bytes) {
  jni_guard(env, [&] { std::memmove(pointer<void>(target), pointer<void>(source), size_t(bytes)); });
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cpu_NativeMemory_address(JNIEnv* env, jclass, jobject direct) {
  return reinterpret_cast<jlong>(env->GetDirectBufferAddress(direct));
}

JNIEXPORT jobject JNICALL Java_bireal_backend_cpu_NativeMemory_view(JNIEnv* env, jclass, jlong address, jlong bytes) {
  return env->NewDirectByteBuffer(pointer<void>(address), bytes);
}
