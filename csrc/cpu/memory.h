// Aligned memory that frees itself.
#pragma once

#include <cstddef>
#include <memory>

namespace flipfast::cpu {

struct Free {
  void operator()(void* p) const;
};
using Memory = std::unique_ptr<void, Free>;

// Zeros, aligned to a cache line, in huge pages if they fill some. Throws std::bad_alloc.
Memory zeros(size_t bytes);

}  // namespace flipfast::cpu
