// GGUF's kinds of blocks: their sizes, the way into panels and out again.
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
};

constexpr int kFormats = 5;
typedef Format Formats[kFormats];

const Formats& formats();
const Format& format(Kind kind);

}  // namespace flipfast::cpu
