#define FLIPFAST_LEVEL generic
#include "cpu/attention.h"
#include "cpu/levels.h"
#include "cpu/product.h"
#include "cpu/quant_product.h"
#include "cpu/rows.h"

namespace flipfast::cpu::generic {

const Kernels kTable = {
    "generic", {kProduct<false>, kProduct<true>}, {kAttend, kAttend}, kRowKernels, kQuant};

}  // namespace flipfast::cpu::generic
