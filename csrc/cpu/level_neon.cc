#define FLIPFAST_LEVEL neon
#define FLIPFAST_NEON
#include "cpu/attention.h"
#include "cpu/levels.h"
#include "cpu/product.h"
#include "cpu/quant_product.h"
#include "cpu/rows.h"

namespace flipfast::cpu::neon {

const Kernels kTable = {
    "neon", {kProduct<false>, kProduct<true>}, {kAttend, kAttend}, kRowKernels, kQuant};

}  // namespace flipfast::cpu::neon
