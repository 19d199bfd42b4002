#include "cpu/levels.h"

#include <atomic>

#if defined(FLIPFAST_HAVE_X86)
#include <cpuid.h>
#endif
#if defined(FLIPFAST_HAVE_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace flipfast::cpu {
namespace {

#if defined(FLIPFAST_HAVE_X86)
struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned part) {
  Registers r;
  __get_cpuid_count(leaf, part, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool all(unsigned value, unsigned bits) { return (value & bits) == bits; }

// The register states that the operating system saves (XCR0).
unsigned saved_states() {
  if (!all(cpuid(1, 0).ecx, 1u << 27)) return 0;  // OSXSAVE
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool has_avx2() {
  constexpr unsigned kFma = 1u << 12, kF16c = 1u << 29;
  return all(cpuid(1, 0).ecx, kFma | kF16c) && all(cpuid(7, 0).ebx, 1u << 5) &&
         all(saved_states(), 0x6);
}

bool has_avx512() {
  constexpr unsigned kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31;
  return has_avx2() && all(cpuid(7, 0).ebx, kF | kDq | kBw | kVl) && all(saved_states(), 0xe6);
}

bool has_vnni() { return has_avx512() && all(cpuid(7, 0).ecx, 1u << 11); }
#endif

#if defined(FLIPFAST_HAVE_AVX_VNNI)
bool has_avx_vnni() { return has_avx2() && all(cpuid(7, 1).eax, 1u << 4); }
#endif

#if defined(FLIPFAST_HAVE_AMX)
// Linux requires processes to request permission for the tile registers.
bool has_amx() {
  constexpr unsigned kBfloat16 = 1u << 22, kTiles = 1u << 24, kInt8 = 1u << 25;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return has_vnni() && all(cpuid(7, 0).edx, kBfloat16 | kTiles | kInt8) &&
         all(saved_states(), 0x60000) &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

#if defined(FLIPFAST_HAVE_X86)
const Kernels& vnni_table() {
  static const Kernels table = {"avx512_vnni",
                                {avx512::kTable.product[0], avx512::kTable.product[1]},
                                {avx512::kTable.attend[0], avx512::kTable.attend[1]},
                                avx512::kTable.rows,
                                vnni::kQuantized};
  return table;
}
#endif

#if defined(FLIPFAST_HAVE_AVX_VNNI)
const Kernels& avx_vnni_table() {
  static const Kernels table = {"avx2_vnni",
                                {avx2::kTable.product[0], avx2::kTable.product[1]},
                                {avx2::kTable.attend[0], avx2::kTable.attend[1]},
                                avx2::kTable.rows,
                                avx_vnni::kQuantized};
  return table;
}
#endif

#if defined(FLIPFAST_HAVE_AMX)
const Kernels& amx_table() {
  static const Kernels table = {"amx",
                                {avx512::kTable.product[0], amx::kProduct},
                                {avx512::kTable.attend[0], amx::kAttend},
                                avx512::kTable.rows,
                                amx::kQuantized};
  return table;
}
#endif

struct Found {
  const Kernels* list[7] = {};

  Found() {
    const Kernels** next = list;
#if defined(FLIPFAST_HAVE_AMX)
    if (has_amx()) *next++ = &amx_table();
#endif
#if defined(FLIPFAST_HAVE_X86)
    if (has_vnni()) *next++ = &vnni_table();
    if (has_avx512()) *next++ = &avx512::kTable;
#endif
#if defined(FLIPFAST_HAVE_AVX_VNNI)
    if (has_avx_vnni()) *next++ = &avx_vnni_table();
#endif
#if defined(FLIPFAST_HAVE_X86)
    if (has_avx2()) *next++ = &avx2::kTable;
#endif
#if defined(FLIPFAST_HAVE_NEON)
    *next++ = &neon::kTable;  // every 64-bit Arm has it
#endif
    *next = &generic::kTable;
  }
};

std::atomic<const Kernels*> g_current{nullptr};

}  // namespace

const Kernels* const* levels() {
  static const Found found;
  return found.list;
}

const Kernels& current() {
  const Kernels* const chosen = g_current.load(std::memory_order_acquire);
  return chosen != nullptr ? *chosen : *levels()[0];
}

void use(const Kernels& level) { g_current.store(&level, std::memory_order_release); }

}  // namespace flipfast::cpu
