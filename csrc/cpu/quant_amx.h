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
FLIPFAST_INLINE void multiply_block(const int8_t* q, ptrdiff_t q_stride, const Unpacked& block,
                                    Dots* out) {
  constexpr int kRow = kPanel * 4;
  FLIPFAST_UNROLL for (int part = 0; part < kParts; ++part) {
    const int8_t* const left = q + part * kQuantBlock / kParts;
    const Group* const right = block.weights + part * kGroups / kParts;
    _tile_loadd(4, left, q_stride);
    _tile_loadd(6, right, kRow);
    _tile_loadd(7, right[0] + kTileRows, kRow);
    _tile_zero(0);
    _tile_zero(1);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_stored(0, out[part][0], kRow);
    _tile_stored(1, out[part][0] + kTileRows, kRow);
    if (kTwo) {
      _tile_loadd(5, left + kTileRows * q_stride, q_stride);
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

template <bool kMin, bool kHalves>
FLIPFAST_INLINE void add_blocks(const Dots* dots, const Unpacked* blocks, int n_blocks,
                                const RowBlock* row_blocks, int row, const Outputs& to) {
  constexpr int kParts = kHalves ? 2 : 1;
  each_column([&](int c) {
    Vec acc = to.start(row, c);
    for (int i = 0; i < n_blocks; ++i) {
      Vec sums = scaled(load_dots(dots[i * kParts][row] + c), blocks[i], c);
      if (kHalves) {
        sums = add_second_half(sums, load_dots(dots[i * kParts + 1][row] + c), blocks[i], c);
      }
      acc = add_scaled<kMin>(acc, sums, row_blocks[i], blocks[i], c);
    }
    to.finish(row, c, acc);
  });
}

// Rows, at most 32, from `row` on times the unpacked blocks, which start at `begin`.
template <bool kMin, bool kHalves>
FLIPFAST_INLINE void run_rows(const QuantArgs& args, int panel, int row, int rows, int begin,
                              const Unpacked* blocks, int n_blocks) {
  constexpr int kParts = kHalves ? 2 : 1;
  constexpr int kAtOnce = kDotTiles / kParts;
  alignas(64) Dots dots[kDotTiles];
  const int row_stride = args.k / kQuantBlock;
  for (int i = 0; i < n_blocks; i += kAtOnce) {
    const int n = least(kAtOnce, n_blocks - i);
    const int8_t* const q = args.q + row * args.q_stride + (begin + i) * kQuantBlock;
    fence();
    for (int j = 0; j < n; ++j) {
      if (rows > kTileRows) {
        multiply_block<kParts, true>(q + j * kQuantBlock, args.q_stride, blocks[i + j],
                                     dots + j * kParts);
      } else {
        multiply_block<kParts, false>(q + j * kQuantBlock, args.q_stride, blocks[i + j],
                                      dots + j * kParts);
      }
    }
    fence();
    const Outputs to = outputs(args, panel, row, begin + i == 0);
    const RowBlock* row_blocks =
        args.row_blocks + static_cast<ptrdiff_t>(row) * row_stride + begin + i;
    for (int r = 0; r < rows; ++r, row_blocks += row_stride) {
      add_blocks<kMin, kHalves>(dots, blocks + i, n, row_blocks, r, to);
    }
  }
}

template <class Panel, bool kMin, bool kHalves>
void run_panels(const QuantArgs& args, int panel_begin, int panel_end, int row_begin, int row_end) {
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
        run_rows<kMin, kHalves>(args, panel, row, rows, begin, unpacked, n_blocks);
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
