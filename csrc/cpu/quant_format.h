// GGUF's kinds of blocks: their sizes, the way into panels and out again, and from numbers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"

namespace flipfast::cpu {

struct Format {
  const char* name;
  Kind kind;
  int numbers;         // in a block of the file
  size_t bytes;        // of a block of the file
  size_t panel_bytes;  // of a block of 32 outputs in memory
  void (*put)(const uint8_t* block, void* panel, int column);
  // The block's numbers in float32, as gguf.quants.dequantize has them, bit for bit.
  void (*get)(const void* panel, int column, float* out);
  // A block of `numbers` finite numbers, as gguf.quants.quantize has it, bit for bit; false where
  // one is not finite. Null for kinds without a rule there.
  bool (*encode)(const float* x, uint8_t* block);
};

constexpr int kFormats = 5;
typedef Format Formats[kFormats];

const Formats& formats();
const Format& format(Kind kind);

// Blocks to numbers and back, in all threads. `quantize` needs a format with `encode`, and returns
// false if a number is not finite.
void dequantize(const Format& format, const uint8_t* blocks, size_t n_blocks, float* out);
bool quantize(const Format& format, const float* x, size_t n_blocks, uint8_t* out);

}  // namespace flipfast::cpu
