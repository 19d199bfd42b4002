// Threads that wait for work, kept from call to call.
#pragma once

#include <cstddef>

namespace flipfast::cpu {

// Number of threads that share a call's work, the caller included; at least 1.
void set_threads(int n);
int threads();

using TaskFunction = void (*)(void* context, size_t task);

// Runs function(context, i) for every i below n, each once, in any order, on any thread; returns
// when all are done. While another thread's call has the pool, this one runs on its caller alone.
void run_tasks(size_t n, TaskFunction function, void* context);

template <class Body>
void parallel_for(size_t n, const Body& body) {
  run_tasks(
      n, [](void* context, size_t i) { (*static_cast<const Body*>(context))(i); },
      const_cast<Body*>(&body));
}

// Memory of the calling thread for the duration of a task: at least `bytes`, on a cache line.
// A second call on the same thread with the same slot gives the same memory, perhaps moved.
enum class Room { kCall, kTask };
void* scratch(Room room, size_t bytes);

}  // namespace flipfast::cpu
