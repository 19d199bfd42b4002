// Row operations, divided among threads if there is enough work.
#pragma once

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/levels.h"
#include "cpu/pool.h"

namespace flipfast::cpu {

// Calls kernel(args, begin, end) over n rows; `numbers` is the number of elements per row.
template <class Args>
void for_rows(void (*kernel)(const Args&, int, int), const Args& args, int n, int numbers) {
  constexpr int kNumbersATask = 8192;  // a few microseconds of work
  const int rows = std::max(1, kNumbersATask / std::max(1, numbers));
  const int tasks = (n + rows - 1) / rows;
  if (tasks < 3) return kernel(args, 0, n);
  parallel_for(static_cast<size_t>(tasks), [&](size_t task) {
    const int begin = static_cast<int>(task) * rows;
    kernel(args, begin, std::min(begin + rows, n));
  });
}

}  // namespace flipfast::cpu
