// How quantised weights lie in memory: the blocks of GGUF's kinds, 32 outputs side by side.
//
// Each struct is one block of the file (32 numbers of k, or a super-block of 256) for the 32
// outputs of a panel. Numbers are in groups of 4 k, an output's in the bytes of a 32-bit word, so
// that a lane of a vector owns an output. A weight of k numbers is [panel][k / numbers of a block].
// Scales are as in the file, but for Q4_K's: 6 bits there, bytes here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"

namespace flipfast::cpu {

constexpr int kGroups = kQuantBlock / 4;  // groups of 4 k in a block
constexpr int kSuper = 8;                 // blocks of a super-block

typedef uint8_t Group[kPanel][4];

// Group 2 i in the lower half of each byte of pairs[i], group 2 i + 1 in the upper.
struct Nibbles {
  Group pairs[kGroups / 2];
};

// d * (nibble - 8)
struct PanelQ4_0 {
  static constexpr int kBlocks = 1;
  uint16_t d[kPanel];
  Nibbles nibbles;
};

// d * nibble + m
struct PanelQ4_1 {
  static constexpr int kBlocks = 1;
  uint16_t d[kPanel];
  uint16_t m[kPanel];
  Nibbles nibbles;
};

// d * byte, which has a sign
struct PanelQ8_0 {
  static constexpr int kBlocks = 1;
  uint16_t d[kPanel];
  Group bytes[kGroups];
};

// d * scale * nibble - dmin * min
struct PanelQ4_K {
  static constexpr int kBlocks = kSuper;
  uint16_t d[kPanel];
  uint16_t dmin[kPanel];
  struct Block {
    uint8_t scale[kPanel];
    uint8_t min[kPanel];
    Nibbles nibbles;
  } blocks[kSuper];
};

// d * scale * (nibble + 16 * upper - 32), with a scale for each half of a block. The 2 bits of
// group 4 i + j are bits 2 j and 2 j + 1 of each byte of upper[i].
struct PanelQ6_K {
  static constexpr int kBlocks = kSuper;
  uint16_t d[kPanel];
  struct Block {
    int8_t scale[2][kPanel];
    Nibbles nibbles;
    Group upper[kGroups / 4];
  } blocks[kSuper];
};

static_assert(sizeof(PanelQ4_0) == 18 * kPanel, "as many bytes as in the file");
static_assert(sizeof(PanelQ4_1) == 20 * kPanel, "as many bytes as in the file");
static_assert(sizeof(PanelQ8_0) == 34 * kPanel, "as many bytes as in the file");
static_assert(sizeof(PanelQ4_K) == 148 * kPanel, "144 bytes in the file");
static_assert(sizeof(PanelQ6_K) == 210 * kPanel, "as many bytes as in the file");

}  // namespace flipfast::cpu
