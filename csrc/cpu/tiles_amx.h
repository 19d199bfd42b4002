// Blocks of 32 rows times 32 columns in AMX matrix tiles: bfloat16 operands, float32 sums.
//
// A tile is 16 rows of 64 bytes. Sums run over k in order, 32 at a time, and rows do not mix, so a
// row's bits do not depend on the rows beside it, padding included.
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

constexpr int kTileRows = 16;
constexpr int kBlockRows = 2 * kTileRows;
constexpr int kStep = 32;  // k per tile
constexpr ptrdiff_t kTileBytes = kTileRows * 64;
constexpr ptrdiff_t kStepBytes = 2 * kTileBytes;  // one step of a block's packed rows

// Configures the thread's tile registers for the lifetime of this object: 0 to 3 for sums, 4 and 5
// for rows of k_bytes, 6 and 7 for what they are multiplied with.
class Tiles {
 public:
  explicit Tiles(int k_bytes = 64) {
    struct {
      uint8_t palette, start_row, unused[14];
      uint16_t row_bytes[16];
      uint8_t rows[16];
    } config = {};
    static_assert(sizeof(config) == 64, "the processor reads 64 bytes");
    config.palette = 1;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? k_bytes : 64);
      config.rows[i] = static_cast<uint8_t>(i < 6 ? kTileRows : k_bytes / 4);
    }
    // GCC 12's intrinsic says that it reads 8 bytes; all 64 have to be there.
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

FLIPFAST_INLINE __m256i halves(Words words) {
  return _mm512_cvtepi32_epi16((__m512i)(words >> 16));
}

// Packs rows (at most 32) rounded to bfloat16, as [k_padded / 32][2 tiles][16][32], with zeros
// after the last row and from k to k_padded. The second tile is not written if it has no rows.
template <class Row>
FLIPFAST_INLINE void pack_tiles(const Row& row, int rows, int k, int k_padded, char* out) {
  const int padded_rows = rows > kTileRows ? kBlockRows : kTileRows;
  for (int r = 0; r < padded_rows; ++r) {
    char* to = out + r * 64;
    for (int i = 0; i < k_padded; i += kWidth, to += 32) {
      if (i != 0 && i % kStep == 0) to += kStepBytes - 64;
      const int valid = r < rows ? most(0, least(kWidth, k - i)) : 0;
      const Vec v = valid > 0 ? load_first(row(r) + i, valid) : Vec{};
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves(rounded_words(v)));
    }
  }
}

// What the sums start from: zeros, `row`, or what c holds.
enum class Start { kZero, kRow, kStored };

struct Block {
  const char* left;  // packed rows
  int steps;
  ptrdiff_t right_row;  // bytes from one pair of k to the next
  float* c;
  ptrdiff_t c_row;  // in numbers
  Start start;
  const float* row;  // for kRow
};

// A macro, as the tile number is part of the instruction's encoding.
#define FLIPFAST_START_TILE(tile, block, at_row, at_column)                                     \
  do {                                                                                          \
    if ((block).start == Start::kStored) {                                                      \
      _tile_loadd(tile, (block).c + (at_row) * (block).c_row + (at_column), (block).c_row * 4); \
    } else if ((block).start == Start::kRow) {                                                  \
      _tile_loadd(tile, (block).row + (at_column), 0); /* the same row 16 times */              \
    } else {                                                                                    \
      _tile_zero(tile);                                                                         \
    }                                                                                           \
  } while (false)

// GCC does not know that tile loads read memory: this stops it from moving accesses past here.
FLIPFAST_INLINE void fence() { __asm__ volatile("" ::: "memory"); }

// c = start + left @ right for 32 columns and 16 or (kTwo) 32 rows. right(step) gives the address
// of a step's words, whose columns are contiguous, 64 bytes per 16 columns.
template <bool kTwo, class Right>
FLIPFAST_INLINE void multiply_rows(const Block& b, const Right& right) {
  fence();
  FLIPFAST_START_TILE(0, b, 0, 0);
  FLIPFAST_START_TILE(1, b, 0, kTileRows);
  if (kTwo) {
    FLIPFAST_START_TILE(2, b, kTileRows, 0);
    FLIPFAST_START_TILE(3, b, kTileRows, kTileRows);
  }
  const char* left = b.left;
  for (int step = 0; step < b.steps; ++step, left += kStepBytes) {
    const char* const words = right(step);
    _tile_loadd(4, left, 64);
    _tile_loadd(6, words, b.right_row);
    _tile_loadd(7, words + 64, b.right_row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (kTwo) {
      _tile_loadd(5, left + kTileBytes, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, b.c, b.c_row * 4);
  _tile_stored(1, b.c + kTileRows, b.c_row * 4);
  if (kTwo) {
    _tile_stored(2, b.c + kTileRows * b.c_row, b.c_row * 4);
    _tile_stored(3, b.c + kTileRows * b.c_row + kTileRows, b.c_row * 4);
  }
  fence();
}

template <class Right>
FLIPFAST_INLINE void multiply(const Block& b, int rows, const Right& right) {
  if (rows > kTileRows) {
    multiply_rows<true>(b, right);
  } else {
    multiply_rows<false>(b, right);
  }
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
