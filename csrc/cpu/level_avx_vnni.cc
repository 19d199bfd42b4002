#define FLIPFAST_LEVEL avx_vnni
#include "cpu/levels.h"
#include "cpu/quant_product.h"

namespace flipfast::cpu::avx_vnni {

const QuantKernel kQuantized = kQuant;

}  // namespace flipfast::cpu::avx_vnni
