// y = x @ weight.T + bias in AMX matrix tiles; operands are bfloat16, sums float32.
#pragma once

#include "cpu/tiles_amx.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

// k range processed for all rows before the next: 336 rows of it take a third of the L2 cache.
constexpr int kDepthBlock = 1024;

size_t product_bytes(int rows, int k_padded) {
  return static_cast<size_t>((rows + kBlockRows - 1) / kBlockRows) * (k_padded / kStep) *
         kStepBytes;
}

int product_blocks(int rows) { return (rows + kBlockRows - 1) / kBlockRows; }

FLIPFAST_INLINE char* packed_block(const ProductArgs& args, int block) {
  return static_cast<char*>(args.packed) +
         static_cast<ptrdiff_t>(block) * (args.k_padded / kStep) * kStepBytes;
}

void product_pack(const ProductArgs& args, int block) {
  const int begin = block * kBlockRows;
  const auto row = [&](int r) { return args.x + (begin + r) * args.x_stride; };
  pack_tiles(row, least(kBlockRows, args.rows - begin), args.k, args.k_padded,
             packed_block(args, block));
}

FLIPFAST_INLINE void copy_part(const float* from, ptrdiff_t from_row, int rows, int columns,
                               float* to, ptrdiff_t to_row) {
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) to[r * to_row + c] = from[r * from_row + c];
  }
}

// One block of rows times one panel, for k in [k_begin, k_end).
FLIPFAST_INLINE void run_block(const ProductArgs& args, int panel, int block, int k_begin,
                               int k_end) {
  const int row = block * kBlockRows;
  const int column = panel * kPanel;
  const int rows = least(kBlockRows, args.rows - row);
  const int columns = least(kPanel, args.n - column);
  // Where a block is not full, tiles reach past the end of y.
  const bool whole = columns == kPanel && (rows == kTileRows || rows == kBlockRows);
  alignas(64) float edge[kBlockRows * kPanel];
  float* const y = args.y + row * args.y_stride + column;
  Block b = {};
  b.left = packed_block(args, block) + static_cast<ptrdiff_t>(k_begin / kStep) * kStepBytes;
  b.steps = (k_end - k_begin) / kStep;
  b.right_row = kPanel * 4;
  b.c = whole ? y : edge;
  b.c_row = whole ? args.y_stride : kPanel;
  b.start = k_begin > 0 ? Start::kStored : args.bias != nullptr ? Start::kRow : Start::kZero;
  b.row = args.bias == nullptr ? nullptr : args.bias + column;
  if (!whole && k_begin > 0) copy_part(y, args.y_stride, rows, columns, edge, kPanel);
  const char* const words = static_cast<const char*>(args.weight) +
                            (static_cast<ptrdiff_t>(panel) * args.k_padded + k_begin) * kPanel * 2;
  multiply(b, rows, [&](int step) { return words + step * kStepBytes; });
  if (!whole) copy_part(edge, kPanel, rows, columns, y, args.y_stride);
}

void product_run(const ProductArgs& args, int panel_begin, int panel_end, int block_begin,
                 int block_end) {
  const Tiles tiles;
  // A single block gains nothing from splitting k: each part of the weight is used only once.
  const int step = block_end - block_begin == 1 ? args.k_padded : kDepthBlock;
  for (int k = 0; k < args.k_padded; k += step) {
    const int k_end = least(k + step, args.k_padded);
    for (int panel = panel_begin; panel < panel_end; ++panel) {
      for (int block = block_begin; block < block_end; ++block) {
        run_block(args, panel, block, k, k_end);
      }
    }
  }
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
