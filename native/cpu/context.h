// What a CPU op runs on: an instruction set and a pool of threads.
//
// Determinism rule: work is cut into tasks by the shape alone, never by the thread count. Tasks that produce partial
// sums write them to their own slot; the slots are added in task order. So 1 and 64 threads give the same bits.
#pragma once
#include <cstdint>
#include <memory>

#include "cpu/isa.h"

namespace bireal::cpu {

class Context {
 public:
  /// `thread_count` >= 1, the calling thread included. Throws InvalidArgument for an isa that the machine lacks.
  Context(int thread_count, Isa isa);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Isa isa() const { return isa_; }
  int thread_count() const { return thread_count_; }

  /// Calls body(task, worker) once for each task in [0, task_count), worker in [0, thread_count), and returns when
  /// all are done. Which worker runs a task is not fixed; a worker runs one task at a time. Allocates nothing. One caller at a
  /// time. An exception from a task is rethrown here after the others have ended.
  template <class Body>
  void parallel(int64_t task_count, const Body& body) {
    run(
        task_count, [](const void* f, int64_t task, int worker) { (*static_cast<const Body*>(f))(task, worker); }, &body);
  }

  /// Elementwise work over rows: calls body(begin_row, end_row) for chunks of about 64 kB (`row_bytes` a row).
  template <class Body>
  void rows(int64_t row_count, int64_t row_bytes, const Body& body) {
    int64_t chunk = kChunkBytes / (row_bytes < 1 ? 1 : row_bytes);
    if (chunk < 1) chunk = 1;
    parallel((row_count + chunk - 1) / chunk, [&](int64_t task, int) {
      int64_t begin = task * chunk, end = begin + chunk < row_count ? begin + chunk : row_count;
      body(begin, end);
    });
  }

  /// Reductions: slice s of kSlices covers [slice_begin(count, s), slice_begin(count, s + 1)).
  static constexpr int64_t kSlices = 16;
  static int64_t slice_begin(int64_t count, int64_t slice) { return count * slice / kSlices; }

 private:
  static constexpr int64_t kChunkBytes = 64 * 1024;
  using TaskFn = void (*)(const void* body, int64_t task, int worker);
  void run(int64_t task_count, TaskFn fn, const void* body);

  struct Pool;
  Isa isa_;
  int thread_count_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace bireal::cpu
