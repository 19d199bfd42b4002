#include "cpu/pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace flipfast::cpu {
namespace {

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// A job is open while `epoch_` is odd. A worker increments `inside_`, rechecks the epoch and leaves
// if the job it saw is over; the caller closes the job and waits until `inside_` is 0. So a late
// worker never touches the next job's fields unnoticed, and nobody waits for it.
class Pool {
 public:
  explicit Pool(int threads) : threads_(threads) {}

  int threads() const { return threads_; }

  void run(size_t n, TaskFunction function, void* context) {
    if (n < 2 || threads_ < 2 || busy_.test_and_set(std::memory_order_acquire)) {
      for (size_t i = 0; i < n; ++i) function(context, i);
      return;
    }
    if (!started_) start_workers();
    function_ = function;
    context_ = context;
    n_ = n;
    next_.store(0, std::memory_order_relaxed);
    epoch_.fetch_add(1);
    if (sleepers_.load() > 0) wake();
    work();
    epoch_.fetch_add(1);
    for (int spins = 0; inside_.load() > 0; ++spins) {
      spins < 10000 ? pause() : std::this_thread::yield();
    }
    busy_.clear(std::memory_order_release);
  }

  // Workers exit on their own; a running call still completes. The object must stay alive.
  void retire() {
    stopping_.store(true);
    epoch_.fetch_add(2);
    wake();
  }

 private:
  void start_workers() {
    started_ = true;
    try {
      for (int i = 1; i < threads_; ++i) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // No more threads available: the existing ones, at least the caller, do the work.
    }
  }

  void wake() {
    const std::lock_guard<std::mutex> lock(mutex_);
    condition_.notify_all();
  }

  void work() {
    for (size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_;) {
      function_(context_, i);
    }
  }

  void serve() {
    uint64_t seen = 0;
    while (!stopping_.load()) {
      const uint64_t epoch = wait_past(seen);
      seen = epoch;
      if (epoch % 2 == 0) continue;
      inside_.fetch_add(1);
      if (epoch_.load() == epoch) work();
      inside_.fetch_sub(1);
    }
  }

  // Spins for a new epoch for about 50 microseconds, the time between two calls of a step, then
  // sleeps.
  uint64_t wait_past(uint64_t seen) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    do {
      for (int i = 0; i < 64; ++i, pause()) {
        const uint64_t epoch = epoch_.load();
        if (epoch != seen) return epoch;
      }
    } while (std::chrono::steady_clock::now() < deadline);
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    condition_.wait(lock, [&] { return epoch_.load() != seen; });
    sleepers_.fetch_sub(1);
    return epoch_.load();
  }

  const int threads_;
  bool started_ = false;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  TaskFunction function_ = nullptr;
  void* context_ = nullptr;
  size_t n_ = 0;
  alignas(64) std::atomic<size_t> next_{0};
  alignas(64) std::atomic<uint64_t> epoch_{0};
  alignas(64) std::atomic<int> inside_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable condition_;
};

// Pools are never deleted: a worker may still access one when the process ends.
std::atomic<Pool*> g_pool{nullptr};

// Threads do not survive a fork, and a lock may have been held: the child gets a new pool.
void after_fork() {
  Pool* const old = g_pool.load();
  if (old != nullptr) g_pool.store(new Pool(old->threads()));
}

Pool* make_first() {
#if defined(__unix__) || defined(__APPLE__)
  pthread_atfork(nullptr, nullptr, after_fork);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return new Pool(cores > 0 ? static_cast<int>(cores) : 1);
}

Pool& pool() {
  if (Pool* const made = g_pool.load()) return *made;
  static Pool* const first = make_first();
  Pool* none = nullptr;
  g_pool.compare_exchange_strong(none, first);
  return *g_pool.load();
}

struct Buffer {
  void* data = nullptr;
  size_t bytes = 0;

  ~Buffer() { std::free(data); }

  void* at_least(size_t wanted) {
    if (wanted > bytes) {
      std::free(data);
      bytes = (wanted + wanted / 4 + 63) / 64 * 64;
      data = std::aligned_alloc(64, bytes);
      if (data == nullptr) {
        bytes = 0;
        throw std::bad_alloc();
      }
    }
    return data;
  }
};

}  // namespace

void set_threads(int n) {
  Pool& old = pool();
  if (n == old.threads()) return;
  g_pool.store(new Pool(n));
  old.retire();
}

int threads() { return pool().threads(); }

void run_tasks(size_t n, TaskFunction function, void* context) { pool().run(n, function, context); }

void* scratch(Room room, size_t bytes) {
  thread_local Buffer buffers[2];
  return buffers[static_cast<int>(room)].at_least(bytes);
}

}  // namespace flipfast::cpu
