#include "cpu/memory.h"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace flipfast::cpu {

void Free::operator()(void* p) const { std::free(p); }

Memory zeros(size_t bytes) {
  constexpr size_t kHugePage = size_t{1} << 21;
  const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const size_t whole = (bytes + alignment - 1) / alignment * alignment;
  Memory memory(std::aligned_alloc(alignment, whole));
  if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  // Fewer TLB misses when a weight is streamed; only advice.
  if (alignment == kHugePage) madvise(memory.get(), whole, MADV_HUGEPAGE);
#endif
  std::memset(memory.get(), 0, whole);
  return memory;
}

}  // namespace flipfast::cpu
