// Packing of rows side by side, as the left operand of a tile.
#pragma once

#include "cpu/simd.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

#if defined(__clang__)
FLIPFAST_INLINE Vec pick(Vec a, Vec b, Ints from) {
  Vec v;
  FLIPFAST_UNROLL for (int i = 0; i < kWidth; ++i) {
    v[i] = from[i] < kWidth ? a[from[i] % kWidth] : b[from[i] % kWidth];
  }
  return v;
}
#else
FLIPFAST_INLINE Vec pick(Vec a, Vec b, Ints from) { return __builtin_shuffle(a, b, from); }
#endif

// Transposes a square by swapping off-diagonal blocks: first single numbers, then 2 by 2 blocks,
// and so on.
FLIPFAST_INLINE void transpose(Vec (&rows)[kWidth]) {
  FLIPFAST_UNROLL for (int size = 1; size < kWidth; size *= 2) {
    Ints upper, lower;
    FLIPFAST_UNROLL for (int i = 0; i < kWidth; ++i) {
      upper[i] = (i & size) == 0 ? i : kWidth + i - size;
      lower[i] = (i & size) == 0 ? i + size : kWidth + i;
    }
    FLIPFAST_UNROLL for (int i = 0; i < kWidth; ++i) {
      if ((i & size) != 0) continue;
      const Vec a = rows[i];
      const Vec b = rows[i + size];
      rows[i] = pick(a, b, upper);
      rows[i + size] = pick(a, b, lower);
    }
  }
}

// Writes [k_padded][rows], zeros from k on; row(r) gives the address of row r.
template <bool kRound, class Row>
FLIPFAST_INLINE void pack_rows(const Row& row, int rows, int k, int k_padded, float* out) {
  for (int r = 0; r < rows; r += kWidth) {
    const int n_rows = least(kWidth, rows - r);
    for (int begin = 0; begin < k_padded; begin += kWidth) {
      const int valid = most(0, least(kWidth, k - begin));
      Vec square[kWidth] = {};
      for (int i = 0; i < n_rows; ++i) {
        const float* const from = row(r + i) + begin;
        const Vec v = valid == kWidth ? load(from) : load_first(from, valid);
        square[i] = kRound ? round_to_bfloat16(v) : v;
      }
      transpose(square);
      const int n = least(kWidth, k_padded - begin);
      for (int i = 0; i < n; ++i) {
        store_first(out + static_cast<ptrdiff_t>(begin + i) * rows + r, square[i], n_rows);
      }
    }
  }
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
