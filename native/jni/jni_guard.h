// The boundary to Java: one guard that turns every C++ exception into a Java one. Nothing else may throw across JNI.
#pragma once
#include <jni.h>

#include <new>
#include <stdexcept>
#include <type_traits>

#include "core/error.h"

namespace bireal::jni {

/// Raises `type` with `message` unless a Java exception is pending already. Types are resolved in JNI_OnLoad.
enum class Raise { kIllegalArgument, kOutOfMemory, kNative };
void raise(JNIEnv* env, Raise type, const char* message) noexcept;
void raise_device(JNIEnv* env, const DeviceError& error) noexcept;

template <class Body>
auto jni_guard(JNIEnv* env, Body&& body) noexcept -> std::invoke_result_t<Body> {
  using Result = std::invoke_result_t<Body>;
  try {
    return body();
  } catch (const DeviceError& e) {
    raise_device(env, e);
  } catch (const InvalidArgument& e) {
    raise(env, Raise::kIllegalArgument, e.what());
  } catch (const std::bad_alloc&) {
    raise(env, Raise::kOutOfMemory, "native heap");
  } catch (const std::exception& e) {
    raise(env, Raise::kNative, e.what());
  } catch (...) {
    raise(env, Raise::kNative, "unknown C++ exception");
  }
  return Result();
}

/// Address as it travels through Java.
template <class T>
T* pointer(jlong address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace bireal::jni
