// The executable's own malloc family comes before the C library's in the dynamic linker's order, also for what shared
// libraries call, so it sees libdnnl and libgomp too. Under AddressSanitizer, which has the same idea, its hooks count instead.
#include "testing/allocations.h"

#include <dlfcn.h>
#include <dnnl.h>

#include <atomic>
#include <cerrno>
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
// As in sanitizer/allocator_interface.h, which gcc does not ship.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*, size_t),
                                                         void (*free_hook)(const volatile void*));
#endif

namespace {
std::atomic<int64_t> calls, bytes, live, most_bytes, library_calls, library_most_bytes;
thread_local int in_library = 0;

void raise_to(std::atomic<int64_t>& most, int64_t value) {
  int64_t seen = most.load(std::memory_order_relaxed);
  while (value > seen && !most.compare_exchange_weak(seen, value)) {
  }
}

void count(size_t size) {
  live.fetch_add(1, std::memory_order_relaxed);
  if (in_library) {
    library_calls.fetch_add(1, std::memory_order_relaxed);
    raise_to(library_most_bytes, int64_t(size));
    return;
  }
  calls.fetch_add(1, std::memory_order_relaxed);
  bytes.fetch_add(int64_t(size), std::memory_order_relaxed);
  raise_to(most_bytes, int64_t(size));
}

void count_free(const volatile void* memory) {
  if (memory) live.fetch_sub(1, std::memory_order_relaxed);
}
}  // namespace

namespace bireal::testing {

Allocations allocations() {
  return {calls.load(), bytes.load(), live.load(), most_bytes.load(), library_calls.load(), library_most_bytes.load()};
}

void reset_allocations() {
#if defined(__SANITIZE_ADDRESS__)
  static const int installed = __sanitizer_install_malloc_and_free_hooks([](const volatile void*, size_t size) { count(size); },
                                                                         [](const volatile void* memory) { count_free(memory); });
  (void)installed;
#endif
  calls = bytes = live = most_bytes = library_calls = library_most_bytes = 0;
}

}  // namespace bireal::testing

// oneDNN's execution, likewise before the library's own.
extern "C" {
#define BIREAL_EXPORT __attribute__((visibility("default")))
BIREAL_EXPORT dnnl_status_t DNNL_API dnnl_primitive_execute(const_dnnl_primitive_t primitive, dnnl_stream_t stream, int count,
                                                            const dnnl_exec_arg_t* args) {
  static const auto own = reinterpret_cast<decltype(&dnnl_primitive_execute)>(dlsym(RTLD_NEXT, "dnnl_primitive_execute"));
  ++in_library;
  dnnl_status_t status = own(primitive, stream, count, args);
  --in_library;
  return status;
}
}

#if !defined(__SANITIZE_ADDRESS__)
// The C library's own, under the names that it keeps for this purpose.
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t items, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);

BIREAL_EXPORT void* malloc(size_t size);
BIREAL_EXPORT void* calloc(size_t items, size_t size);
BIREAL_EXPORT void* realloc(void* memory, size_t size);
BIREAL_EXPORT void* memalign(size_t alignment, size_t size);
BIREAL_EXPORT void* aligned_alloc(size_t alignment, size_t size);
BIREAL_EXPORT int posix_memalign(void** memory, size_t alignment, size_t size);
BIREAL_EXPORT void free(void* memory);

void* malloc(size_t size) {
  count(size);
  return __libc_malloc(size);
}
void* calloc(size_t items, size_t size) {
  count(items * size);
  return __libc_calloc(items, size);
}
void* realloc(void* memory, size_t size) {
  count(size);
  count_free(memory);
  return __libc_realloc(memory, size);
}
void* memalign(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, size_t alignment, size_t size) {
  count(size);
  void* got = __libc_memalign(alignment, size);
  if (!got) return ENOMEM;
  *memory = got;
  return 0;
}
void free(void* memory) {
  count_free(memory);
  __libc_free(memory);
}
}
#endif
