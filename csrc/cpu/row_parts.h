// How the products of many rows are cut into calls and tasks.
#pragma once

#include <algorithm>
#include <cstddef>

#include "cpu/pool.h"

namespace flipfast::cpu {

constexpr int kRowsATask = 336;            // a task's packed rows stay in the L2 cache
constexpr size_t kWorthThreads = 1 << 15;  // least work (elements, products) for multithreading

inline int divide_up(int a, int b) { return (a + b - 1) / b; }

// Runs task(i) for every i below n, on several threads if that is worth while.
template <class Task>
void for_each(size_t n, size_t work, const Task& task) {
  if (work < kWorthThreads) {
    for (size_t i = 0; i < n; ++i) task(i);
  } else {
    parallel_for(n, task);
  }
}

// Calls run(args) with the x and y of each part of the rows. Panels alone give a few threads enough
// to share; many threads also need several row parts.
template <class Args, class Run>
void in_row_parts(const float* x, ptrdiff_t x_stride, size_t n_rows, float* y, ptrdiff_t y_stride,
                  const Run& run) {
  const size_t at_once = static_cast<size_t>(kRowsATask * std::max(1, threads() / 4));
  const size_t parts = (n_rows + at_once - 1) / at_once;
  for (size_t part = 0; part < parts; ++part) {
    const size_t begin = n_rows * part / parts;
    Args args = {};
    args.x = x + static_cast<ptrdiff_t>(begin) * x_stride;
    args.x_stride = x_stride;
    args.rows = static_cast<int>(n_rows * (part + 1) / parts - begin);
    args.y = y + static_cast<ptrdiff_t>(begin) * y_stride;
    args.y_stride = y_stride;
    run(args);
  }
}

}  // namespace flipfast::cpu
