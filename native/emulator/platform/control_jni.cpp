// control_jni: control.h for Java tests (java/test/bireal/backend/cuda/Emulator.java).
#include <jni.h>

#include <string>

#include "emulator/platform/control.h"
#include "emulator/platform/export.h"

namespace {

std::string text_of(JNIEnv* env, jstring text) {
  const char* characters = env->GetStringUTFChars(text, nullptr);
  std::string result = characters == nullptr ? "" : characters;
  if (characters != nullptr) env->ReleaseStringUTFChars(text, characters);
  return result;
}

}  // namespace

extern "C" {

JNIEXPORT jint JNICALL Java_bireal_backend_cuda_Emulator_set0(JNIEnv* env, jclass, jstring key, jlong value) {
  return bireal_emulator_set(text_of(env, key).c_str(), value);
}

JNIEXPORT jlong JNICALL Java_bireal_backend_cuda_Emulator_get0(JNIEnv* env, jclass, jstring key) {
  return bireal_emulator_get(text_of(env, key).c_str());
}

JNIEXPORT jstring JNICALL Java_bireal_backend_cuda_Emulator_finding0(JNIEnv* env, jclass, jlong i) {
  const char* text = bireal_emulator_finding(i);
  return text == nullptr ? nullptr : env->NewStringUTF(text);
}

JNIEXPORT jstring JNICALL Java_bireal_backend_cuda_Emulator_lastError0(JNIEnv* env, jclass) {
  return env->NewStringUTF(bireal_emulator_last_error());
}

JNIEXPORT jstring JNICALL Java_bireal_backend_cuda_Emulator_recordName0(JNIEnv* env, jclass, jlong i) {
  bireal_emulator_record record;
  return bireal_emulator_get_record(i, &record) != 0 ? nullptr : env->NewStringUTF(record.name);
}

// Kind, bytes and distinct sectors read and written, sectors requested and ideal, worst bank conflict, thread instructions,
// replay, grid.
JNIEXPORT jlongArray JNICALL Java_bireal_backend_cuda_Emulator_record0(JNIEnv* env, jclass, jlong i) {
  bireal_emulator_record r;
  if (bireal_emulator_get_record(i, &r) != 0) return nullptr;
  const jlong values[] = {r.kind,
                          jlong(r.read.bytes),
                          jlong(r.write.bytes),
                          jlong(r.read.sectors_distinct),
                          jlong(r.write.sectors_distinct),
                          jlong(r.read.sectors_requested + r.write.sectors_requested),
                          jlong(r.read.sectors_ideal + r.write.sectors_ideal),
                          jlong(r.worst_bank_conflict),
                          jlong(r.thread_instructions),
                          r.replay,
                          jlong(r.grid[0]),
                          jlong(r.grid[1]),
                          jlong(r.grid[2])};
  const jsize count = jsize(sizeof values / sizeof values[0]);
  jlongArray array = env->NewLongArray(count);
  if (array != nullptr) env->SetLongArrayRegion(array, 0, count, values);
  return array;
}

JNIEXPORT void JNICALL Java_bireal_backend_cuda_Emulator_clear0(JNIEnv*, jclass) { bireal_emulator_clear(); }

JNIEXPORT void JNICALL Java_bireal_backend_cuda_Emulator_reset0(JNIEnv*, jclass) { bireal_emulator_reset(); }

}  // extern "C"
