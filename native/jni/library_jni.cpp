// Library-wide natives: exception classes, the ABI number, and a way for tests to provoke each exception.
#include "bireal_runtime_NativeLibrary.h"
#include "jni/jni_guard.h"

namespace bireal::jni {
namespace {

// Must equal bireal.runtime.NativeLibrary.ABI.
constexpr jint kAbi = 7;

struct Classes {
  jclass illegal_argument, out_of_memory, native, device;
  jmethodID device_constructor;
} classes;

jclass global_class(JNIEnv* env, const char* name) {
  jclass local = env->FindClass(name);
  return local ? static_cast<jclass>(env->NewGlobalRef(local)) : nullptr;
}

}  // namespace

void raise(JNIEnv* env, Raise type, const char* message) noexcept {
  if (env->ExceptionCheck()) return;
  jclass target = type == Raise::kIllegalArgument ? classes.illegal_argument
                  : type == Raise::kOutOfMemory   ? classes.out_of_memory
                                                  : classes.native;
  env->ThrowNew(target, message);
}

void raise_device(JNIEnv* env, const DeviceError& error) noexcept {
  if (env->ExceptionCheck()) return;
  jstring op = env->NewStringUTF(error.op().c_str());
  jstring message = op ? env->NewStringUTF(error.what()) : nullptr;
  if (!message) return;  // an OutOfMemoryError is pending
  jobject exception =
      env->NewObject(classes.device, classes.device_constructor, op, jint(error.code()), message, jboolean(error.fatal()));
  if (exception) env->Throw(static_cast<jthrowable>(exception));
}

}  // namespace bireal::jni

using namespace bireal::jni;

extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* vm, void*) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_8) != JNI_OK) return JNI_ERR;
  classes.illegal_argument = global_class(env, "java/lang/IllegalArgumentException");
  classes.out_of_memory = classes.illegal_argument ? global_class(env, "java/lang/OutOfMemoryError") : nullptr;
  classes.native = classes.out_of_memory ? global_class(env, "bireal/runtime/NativeException") : nullptr;
  classes.device = classes.native ? global_class(env, "bireal/runtime/DeviceException") : nullptr;
  if (!classes.device) return JNI_ERR;
  classes.device_constructor = env->GetMethodID(classes.device, "<init>", "(Ljava/lang/String;ILjava/lang/String;Z)V");
  return classes.device_constructor ? JNI_VERSION_1_8 : JNI_ERR;
}

JNIEXPORT jint JNICALL Java_bireal_runtime_NativeLibrary_abi(JNIEnv*, jclass) { return kAbi; }

JNIEXPORT void JNICALL Java_bireal_runtime_NativeLibrary_provoke(JNIEnv* env, jclass, jint kind) {
  jni_guard(env, [&] {
    switch (kind) {
      case 0: throw bireal::InvalidArgument("provoked argument");
      case 1: throw std::bad_alloc();
      case 2: throw std::runtime_error("provoked error");
      case 3: throw bireal::DeviceError("provoked_op", 700, "PROVOKED", true);
      default: throw 42;
    }
  });
}
