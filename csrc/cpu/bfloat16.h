// Single numbers to bfloat16 and back.
#pragma once

#include <cstdint>
#include <cstring>

namespace flipfast::cpu {

// Ties to even; a NaN stays one.
inline uint16_t to_bfloat16(float x) {
  uint32_t word;
  std::memcpy(&word, &x, sizeof(word));
  if (x != x) return static_cast<uint16_t>((word | 0x00400000u) >> 16);
  return static_cast<uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
}

inline float from_bfloat16(uint16_t x) {
  const uint32_t word = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

}  // namespace flipfast::cpu
