// A thread pool that is kept from call to call.
#pragma once

#include <cstddef>

namespace flipfast::cpu {

// Number of threads that share a call's work, including the caller; at least 1.
void set_threads(int n);
int threads();

using TaskFunction = void (*)(void* context, size_t task);

// Runs function(context, i) once for every i below n, in any order, on any thread; returns when all
// are done. If the pool is busy with another thread's call, everything runs on the calling thread.
void run_tasks(size_t n, TaskFunction function, void* context);

template <class Body>
void parallel_for(size_t n, const Body& body) {
  run_tasks(
      n, [](void* context, size_t i) { (*static_cast<const Body*>(context))(i); },
      const_cast<Body*>(&body));
}

// Scratch memory of the calling thread: at least `bytes`, aligned to a cache line. Another call on
// the same thread with the same room reuses the memory and may move it. Throws std::bad_alloc.
enum class Room { kCall, kTask };
void* scratch(Room room, size_t bytes);

}  // namespace flipfast::cpu
