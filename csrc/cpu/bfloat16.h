// Conversion of single numbers to bfloat16 and back.
#pragma once

#include <cstdint>
#include <cstring>

namespace flipfast::cpu {

// Ties to even; NaN stays NaN.
inline uint16_t to_bfloat16(float x) {
  uint32_t word;
  std::memcpy(&word, &x, sizeof(word));
  const uint32_t even = word + 0x7fffu + ((word >> 16) & 1u);
  const uint32_t quiet = word | 0x00400000u;
  return static_cast<uint16_t>((x != x ? quiet : even) >>
                               16);  // no branch, so that loops vectorize
}

inline float from_bfloat16(uint16_t x) {
  const uint32_t word = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

}  // namespace flipfast::cpu
