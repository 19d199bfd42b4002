// From the exact dot products of a block to the float32 sums of the outputs.
//
// Whatever computes the dot products takes these steps, block after block in the order of k: so the
// bits of an output are the same.
#pragma once

#include "cpu/kernels.h"
#include "cpu/quant_unpack.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

// Dot products are less than 2**24 in size: float32 has them exactly.
FLIPFAST_INLINE Vec scaled(Ints dots, Vec scale) {
  return __builtin_convertvector(dots, Vec) * scale;
}

FLIPFAST_INLINE Vec add_second_half(Vec sums, Ints dots, Vec extra) {
  return fused(__builtin_convertvector(dots, Vec), extra, sums);
}

template <bool kMin>
FLIPFAST_INLINE Vec add_scaled(Vec acc, Vec sums, const RowBlock& row, Vec extra) {
  const Vec with_block = fused(sums, splat(row.scale), acc);
  return kMin ? fused(extra, splat(row.sum), with_block) : with_block;
}

// A panel's part of the rows of y.
struct Outputs {
  float* y;
  ptrdiff_t y_stride;
  int columns;        // of the panel that y has
  const float* init;  // a panel of what sums start from, or null for 0
  bool first;         // whether the sums start here; else they continue from y

  FLIPFAST_INLINE int valid(int c) const { return most(0, least(kWidth, columns - c)); }

  FLIPFAST_INLINE Vec start(int row, int c) const {
    if (first) return init == nullptr ? Vec{} : load(init + c);
    const float* const from = y + row * y_stride + c;
    return columns == kPanel ? load(from) : load_first(from, valid(c));
  }

  FLIPFAST_INLINE void finish(int row, int c, Vec sums) const {
    float* const to = y + row * y_stride + c;
    if (columns == kPanel) {
      store(to, sums);
    } else {
      store_first(to, sums, valid(c));
    }
  }
};

FLIPFAST_INLINE Outputs outputs(const QuantArgs& args, int panel, int row, bool first) {
  const int column = panel * kPanel;
  return {args.y + row * args.y_stride + column, args.y_stride, least(kPanel, args.n - column),
          args.bias == nullptr ? nullptr : args.bias + column, first};
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
