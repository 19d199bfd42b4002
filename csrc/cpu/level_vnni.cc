#define FLIPFAST_LEVEL vnni
#include "cpu/levels.h"
#include "cpu/quant_product.h"

namespace flipfast::cpu::vnni {

const QuantKernel kQuantized = kQuant;

}  // namespace flipfast::cpu::vnni
