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

const Format& format(Kind kind);

// The format of that name, or null.
const Format* find_format(const char* name);

}  // namespace flipfast::cpu
