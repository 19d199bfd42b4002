#define FLIPFAST_LEVEL amx
#include "cpu/attention_amx.h"
#include "cpu/levels.h"
#include "cpu/product_amx.h"

namespace flipfast::cpu::amx {

const ProductKernel kProduct = {product_bytes, product_blocks, product_pack, product_run};
const AttendKernel kAttend = {kItemRows, attend_bytes, attend_run};

}  // namespace flipfast::cpu::amx
