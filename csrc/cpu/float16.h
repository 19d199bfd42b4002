// Conversion of single numbers from float16.
#pragma once

#include <stdint.h>

namespace flipfast::cpu {

// Exact, for the numbers below the normal ones too. Every file that uses it has its own copy: see
// simd.h.
static inline float from_float16(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 0x1fu;
  const uint32_t fraction = half & 0x3ffu;
  uint32_t word;
  float value;
  if (exponent == 0) {
    value = static_cast<float>(fraction) * 0x1p-24f;
    __builtin_memcpy(&word, &value, sizeof(word));
  } else {
    word = (exponent == 31 ? 0xffu : exponent + 112) << 23 | fraction << 13;
  }
  word |= sign;
  __builtin_memcpy(&value, &word, sizeof(value));
  return value;
}

}  // namespace flipfast::cpu
