// y = x @ weight.T + bias with quantised weights, dot products in AMX matrix tiles.
//
// Tiles hold the dot products of one block, or half a block where halves have scales of their own;
// float32 sums are the vector units'.
#pragma once

#include "cpu/levels.h"
#include "cpu/quant_sums.h"
#include "cpu/tiles_amx.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

constexpr int kFewRows = 8;   // vectors are as fast with so few
constexpr int kDotTiles = 4;  // blocks or halves whose dot products are kept at once: 16 KB

typedef int32_t Dots[kBlockRows][kPanel];

// The dot products of kParts parts of a block's k, for 32 columns and 16 or (kTwo) 32 rows.
template <int kParts, bool kTwo>
FLIPFAST_INLINE void multiply_block(const int8_t* q, const Unpacked& block, Dots* out) {
  constexpr int kRow = kPanel * 4;
  FLIPFAST_UNROLL for (int part = 0; part < kParts; ++part) {
    const int8_t* const left = q + part * kQuantBlock / kParts;
    const Group* const right = block.weights + part * kGroups / kParts;
    _tile_loadd(4, left, kQuantBlock);
    _tile_loadd(6, right, kRow);
    _tile_loadd(7, right[0] + kTileRows, kRow);
    _tile_zero(0);
    _tile_zero(1);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_stored(0, out[part][0], kRow);
    _tile_stored(1, out[part][0] + kTileRows, kRow);
    if (kTwo) {
      _tile_loadd(5, left + kTileRows * kQuantBlock, kQuantBlock);
      _tile_zero(2);
      _tile_zero(3);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
      _tile_stored(2, out[part][kTileRows], kRow);
      _tile_stored(3, out[part][kTileRows] + kTileRows, kRow);
    }
  }
}

FLIPFAST_INLINE Ints load_dots(const int32_t* p) {
  Ints v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

// Adds kBlocks blocks to the sums of `rows` rows; row_blocks are `stride` apart from block to
// block.
template <int kBlocks, bool kMin, bool kHalves>
FLIPFAST_INLINE void add_blocks(const Dots* dots, const Unpacked* blocks,
                                const RowBlock* row_blocks, ptrdiff_t stride, int rows,
                                const Outputs& to) {
  constexpr int kParts = kHalves ? 2 : 1;
  for (int c = 0; c < kPanel; c += kWidth) {
    Vec scale[kBlocks], extra[kBlocks];
    FLIPFAST_UNROLL for (int i = 0; i < kBlocks; ++i) {
      scale[i] = load(blocks[i].scale + c);
      extra[i] = load(blocks[i].extra + c);
    }
    for (int row = 0; row < rows; ++row) {
      Vec acc = to.start(row, c);
      FLIPFAST_UNROLL for (int i = 0; i < kBlocks; ++i) {
        Vec sums = scaled(load_dots(dots[i * kParts][row] + c), scale[i]);
        if (kHalves) {
          sums = add_second_half(sums, load_dots(dots[i * kParts + 1][row] + c), extra[i]);
        }
        acc = add_scaled<kMin>(acc, sums, row_blocks[i * stride + row], extra[i]);
      }
      to.finish(row, c, acc);
    }
  }
}

// Rows, at most 32, from `row` on times unpacked blocks from `block` on, kBlocks of them.
template <int kBlocks, bool kMin, bool kHalves>
FLIPFAST_INLINE void run_rows(const QuantArgs& args, int panel, int row, int rows, int block,
                              const Unpacked* blocks) {
  constexpr int kParts = kHalves ? 2 : 1;
  alignas(64) Dots dots[kBlocks * kParts];
  const ptrdiff_t stride = args.rows;
  const ptrdiff_t first = block * stride + row;
  fence();
  for (int i = 0; i < kBlocks; ++i) {
    const int8_t* const q = args.q + (first + i * stride) * kQuantBlock;
    if (rows > kTileRows) {
      multiply_block<kParts, true>(q, blocks[i], dots + i * kParts);
    } else {
      multiply_block<kParts, false>(q, blocks[i], dots + i * kParts);
    }
  }
  fence();
  add_blocks<kBlocks, kMin, kHalves>(dots, blocks, args.row_blocks + first, stride, rows,
                                     outputs(args, panel, row, block == 0));
}

template <class Panel, bool kMin, bool kHalves>
void run_panels(const QuantArgs& args, int panel_begin, int panel_end, int row_begin, int row_end) {
  constexpr int kAtOnce = kDotTiles / (kHalves ? 2 : 1);
  const Tiles tiles(kQuantBlock / (kHalves ? 2 : 1));
  Unpacked unpacked[kUnpacked];
  const int blocks = args.k / kQuantBlock;
  const Panel* from = static_cast<const Panel*>(args.weight) +
                      static_cast<ptrdiff_t>(panel_begin) * (blocks / Panel::kBlocks);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int begin = 0; begin < blocks; begin += kUnpacked) {
      const int n_blocks = least(kUnpacked, blocks - begin);
      for (int i = 0; i < n_blocks; i += Panel::kBlocks) unpack<true>(*from++, unpacked + i);
      for (int row = row_begin; row < row_end; row += kBlockRows) {
        const int rows = least(kBlockRows, row_end - row);
        int i = 0;
        for (; i + kAtOnce <= n_blocks; i += kAtOnce) {
          run_rows<kAtOnce, kMin, kHalves>(args, panel, row, rows, begin + i, unpacked + i);
        }
        for (; i < n_blocks; ++i) {
          run_rows<1, kMin, kHalves>(args, panel, row, rows, begin + i, unpacked + i);
        }
      }
    }
  }
}

void quant_run(const QuantArgs& args, int panel_begin, int panel_end, int row_begin, int row_end) {
  const auto run = row_end - row_begin <= kFewRows ? vnni::kQuantized.run
                   : args.kind == Kind::kQ4_0      ? run_panels<PanelQ4_0, false, false>
                   : args.kind == Kind::kQ4_1      ? run_panels<PanelQ4_1, true, false>
                   : args.kind == Kind::kQ8_0      ? run_panels<PanelQ8_0, false, false>
                   : args.kind == Kind::kQ4_K      ? run_panels<PanelQ4_K, true, false>
                                                   : run_panels<PanelQ6_K, false, true>;
  run(args, panel_begin, panel_end, row_begin, row_end);
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
