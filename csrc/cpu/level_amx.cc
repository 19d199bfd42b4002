#define FLIPFAST_LEVEL amx
#include "cpu/attention_amx.h"
#include "cpu/levels.h"
#include "cpu/product_amx.h"
#include "cpu/quant_amx.h"
#include "cpu/quant_rows.h"

namespace flipfast::cpu::amx {

const ProductKernel kProduct = {product_bytes, product_blocks, product_pack, product_run};
const AttendKernel kAttend = {kItemRows, attend_bytes, attend_run};
const QuantKernel kQuantized = {quantize, quant_run};

}  // namespace flipfast::cpu::amx
