// The instruction-set levels and the choice among them at run time.
#pragma once

#include "cpu/kernels.h"

namespace flipfast::cpu {

// AMX is used for tiles of bfloat16 and of bytes, VNNI for quantised weights; everything else is
// AVX-512, and beside VNNI of 256 bits AVX2.
namespace amx {
extern const ProductKernel kProduct;
extern const AttendKernel kAttend;
extern const QuantKernel kQuantized;
}  // namespace amx
namespace vnni {
extern const QuantKernel kQuantized;
}
namespace avx_vnni {
extern const QuantKernel kQuantized;
}
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

// The levels that this CPU and operating system support, best first; terminated by null.
const Kernels* const* levels();

// The level that new objects and calls use: the best one unless `use` sets another.
const Kernels& current();
void use(const Kernels& level);

}  // namespace flipfast::cpu
