// The instruction-set levels and the choice among them at run time.
#pragma once

#include "cpu/kernels.h"

namespace flipfast::cpu {

// AMX has tiles of bfloat16 alone; all else is AVX-512.
namespace amx {
extern const ProductKernel kProduct;
extern const AttendKernel kAttend;
}  // namespace amx
namespace avx512 {
extern const Kernels kTable;
}
namespace avx2 {
extern const Kernels kTable;
}
namespace neon {
extern const Kernels kTable;
}
namespace generic {
extern const Kernels kTable;
}

// The levels that this CPU and its operating system have, best first; null behind the last.
const Kernels* const* levels();

// What new objects and calls use: the best level, until `use` says otherwise.
const Kernels& current();
void use(const Kernels& level);

}  // namespace flipfast::cpu
