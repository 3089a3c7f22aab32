#include "cpu/context.h"

#include <omp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"

namespace bireal::cpu {

/// Asks `ready` for some 30 us; true as soon as it says so. A network's ops follow each other faster than a thread that sleeps is
/// woken (20 to 50 us on a virtual machine), and there are 60 of them in a forward pass.
template <class Ready>
static bool spin(const Ready& ready) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(30);
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

struct Context::Pool {
  std::mutex mutex;
  std::condition_variable wake, done;
  std::atomic<uint64_t> generation{0};  // counts run() calls; workers start when it changes
  std::atomic<bool> stop{false};
  std::atomic<int> busy{0};
  TaskFn fn = nullptr;
  const void* body = nullptr;
  int64_t task_count = 0;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::vector<std::thread> threads;

  void drain(int worker) {
    // oneDNN's OpenMP must not open threads of its own: one library call runs on one thread (docs/decisions.md, "The house").
    omp_set_num_threads(1);
    try {
      for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < task_count;) fn(body, task, worker);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
      next.store(task_count, std::memory_order_relaxed);
    }
  }

  void work(int worker) {
    uint64_t seen = 0;
    auto called = [&] { return stop || generation != seen; };
    for (;;) {
      if (!spin(called)) {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, called);
      }
      if (stop) return;
      seen = generation;
      drain(worker);
      if (--busy == 0) {
        // Under the mutex: the caller may be between its look at `busy` and its sleep.
        std::lock_guard<std::mutex> lock(mutex);
        done.notify_one();
      }
    }
  }
};

Context::Context(int thread_count, Isa isa) : isa_(isa), thread_count_(thread_count), pool_(new Pool) {
  require(thread_count >= 1 && thread_count <= 1024, "threads must be in 1..1024, got " + std::to_string(thread_count));
  require_isa(isa);
  for (int worker = 1; worker < thread_count; ++worker) pool_->threads.emplace_back([this, worker] { pool_->work(worker); });
}

Context::~Context() {
  {
    std::lock_guard<std::mutex> lock(pool_->mutex);
    pool_->stop = true;
  }
  pool_->wake.notify_all();
  for (auto& thread : pool_->threads) thread.join();
}

void Context::run(int64_t task_count, TaskFn fn, const void* body) {
  if (task_count <= 0) return;
  Pool& pool = *pool_;
  pool.fn = fn;
  pool.body = body;
  pool.task_count = task_count;
  pool.error = nullptr;
  pool.next.store(0, std::memory_order_relaxed);
  bool shared = thread_count_ > 1 && task_count > 1;
  if (shared) {
    std::lock_guard<std::mutex> lock(pool.mutex);
    pool.busy = thread_count_ - 1;
    ++pool.generation;
  }
  if (shared) pool.wake.notify_all();
  pool.drain(0);
  auto idle = [&] { return pool.busy == 0; };
  if (shared && !spin(idle)) {
    std::unique_lock<std::mutex> lock(pool.mutex);
    pool.done.wait(lock, idle);
  }
  if (pool.error) std::rethrow_exception(pool.error);
}

}  // namespace bireal::cpu
