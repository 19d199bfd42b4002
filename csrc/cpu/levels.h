// The instruction-set levels and the choice among them at run time.
#pragma once

#include "cpu/kernels.h"

namespace flipfast::cpu {

namespace amx {
extern const Kernels kTable;
}
namespace avx512 {
extern const Kernels kTable;
}
namespace avx2 {
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
