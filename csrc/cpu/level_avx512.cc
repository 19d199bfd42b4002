#define FLIPFAST_LEVEL avx512
#include "cpu/attention.h"
#include "cpu/levels.h"
#include "cpu/product.h"
#include "cpu/quant_product.h"
#include "cpu/rows.h"

namespace flipfast::cpu::avx512 {

const Kernels kTable = {
    "avx512", {kProduct<false>, kProduct<true>}, {kAttend, kAttend}, kRowKernels, kQuant};

}  // namespace flipfast::cpu::avx512
