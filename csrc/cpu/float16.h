// Conversion of single numbers from float16 and to it.
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

// To the nearest, ties to even; what is too large becomes an infinity. Not for NaN.
static inline uint16_t to_float16(float value) {
  uint32_t word;
  __builtin_memcpy(&word, &value, sizeof(word));
  const uint32_t sign = word >> 16 & 0x8000u;
  word &= 0x7fffffffu;
  if (word >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (word >= 0x38800000u) {
    const uint32_t rounded = word + 0xfffu + (word >> 13 & 1u);
    return static_cast<uint16_t>(sign | (rounded - (112u << 23)) >> 13);
  }
  // No normal number: added to 0.5, whose last bit is 2**-24, it is rounded where it ends.
  float size;
  __builtin_memcpy(&size, &word, sizeof(size));
  size += 0.5f;
  __builtin_memcpy(&word, &size, sizeof(word));
  return static_cast<uint16_t>(sign | (word - 0x3f000000u));
}

}  // namespace flipfast::cpu
