// y = x @ weight.T + bias with quantised weights.
//
// Of every block of 32, the dot product is exact in int32. It is scaled and added in float32, block
// after block, in the same operations at every level: an output has the same bits on every CPU,
// whatever the rows beside it.
#pragma once

#include "cpu/quant_dot.h"
#include "cpu/quant_rows.h"
#include "cpu/quant_sums.h"
#include "cpu/tile.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kQuantRows = 6;
#elif defined(__AVX2__)
constexpr int kQuantRows = 4;
#else
constexpr int kQuantRows = 2;
#endif

// What kinds differ in once they are unpacked. kOffset has been added to weights without a sign.
struct Nibbles8 {
  static constexpr Values kValues = Values::kNibbles;
  static constexpr int kOffset = 8;
  static constexpr bool kSigned = false, kMin = false, kHalves = false;
};
struct NibblesMin {
  static constexpr Values kValues = Values::kNibbles;
  static constexpr int kOffset = 0;
  static constexpr bool kSigned = false, kMin = true, kHalves = false;
};
struct EightBits {
  static constexpr Values kValues = Values::kBytes;
  static constexpr int kOffset = kSignedBytes ? 0 : 128;
  static constexpr bool kSigned = kSignedBytes, kMin = false, kHalves = false;
};
struct SixBitHalves {
  static constexpr Values kValues = Values::kSixBits;
  static constexpr int kOffset = 32;
  static constexpr bool kSigned = false, kMin = false, kHalves = true;
};

struct QuantTile {
  const Unpacked* blocks;
  int n_blocks;
  const int8_t* q;  // first row, first block
  const RowBlock* row_blocks;
  ptrdiff_t rows;  // from one block to the next
  Outputs outputs;
};

typedef void (*QuantTileFunction)(const QuantTile&);

FLIPFAST_INLINE Words splat_group(const int8_t* q) {
  uint32_t word;
  __builtin_memcpy(&word, q, sizeof(word));
  return Words{} + word;
}

// The dot products of groups [begin, end), for two vectors of columns from c on.
template <int R, Values V>
FLIPFAST_INLINE void dots(const Unpacked& block, int c, const int8_t* q, int begin, int end,
                          Dot<V> (&out)[R][2]) {
  FLIPFAST_UNROLL for (int g = begin; g < end; g += 2) {
    Words first[2], second[2];
    FLIPFAST_UNROLL for (int v = 0; v < 2; ++v) {
      first[v] = load_group(block.weights[g] + c + v * kWidth);
      second[v] = load_group(block.weights[g + 1] + c + v * kWidth);
    }
    FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
      const Words q0 = splat_group(q + r * kQuantBlock + g * 4);
      const Words q1 = splat_group(q + r * kQuantBlock + g * 4 + 4);
      FLIPFAST_UNROLL for (int v = 0; v < 2; ++v) out[r][v].add(first[v], q0, second[v], q1);
    }
  }
}

// Without the surplus that weights without a sign have.
template <class Form, Values V>
FLIPFAST_INLINE Ints exact(const Dot<V>& dot, int32_t sum) {
  return Form::kOffset == 0 ? dot.total() : dot.total() - Form::kOffset * sum;
}

template <class Form, int R>
FLIPFAST_INLINE void add_block(const QuantTile& t, int i, int c, Vec (&acc)[R][2]) {
  const Unpacked& block = t.blocks[i];
  const int8_t* const q = t.q + i * t.rows * kQuantBlock;
  const RowBlock* const row_blocks = t.row_blocks + i * t.rows;
  constexpr int kFirst = Form::kHalves ? kGroups / 2 : kGroups;
  Vec sums[R][2];
  Dot<Form::kValues> first[R][2];
  dots(block, c, q, 0, kFirst, first);
  FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
    const RowBlock& row = row_blocks[r];
    const int32_t sum = Form::kHalves ? row.half_sums[0] : row.half_sums[0] + row.half_sums[1];
    FLIPFAST_UNROLL for (int v = 0; v < 2; ++v) {
      sums[r][v] = scaled(exact<Form>(first[r][v], sum), load(block.scale + c + v * kWidth));
    }
  }
  if constexpr (Form::kHalves) {
    Dot<Form::kValues> second[R][2];
    dots(block, c, q, kFirst, kGroups, second);
    FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
      const int32_t sum = row_blocks[r].half_sums[1];
      FLIPFAST_UNROLL for (int v = 0; v < 2; ++v) {
        const Ints part = exact<Form>(second[r][v], sum);
        sums[r][v] = add_second_half(sums[r][v], part, load(block.extra + c + v * kWidth));
      }
    }
  }
  FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
    const RowBlock& row = row_blocks[r];
    FLIPFAST_UNROLL for (int v = 0; v < 2; ++v) {
      const Vec extra = load(block.extra + c + v * kWidth);
      acc[r][v] = add_scaled<Form::kMin>(acc[r][v], sums[r][v], row, extra);
    }
  }
}

template <class Form, int R>
void quant_tile(const QuantTile& shared) {
  const QuantTile t = shared;  // a copy, so that stores to y cannot change it
  for (int c = 0; c < kPanel; c += 2 * kWidth) {
    Vec acc[R][2];
    FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
      FLIPFAST_UNROLL for (int v = 0; v < 2; ++v) {
        acc[r][v] = t.outputs.start(r, c + v * kWidth);
      }
    }
    for (int i = 0; i < t.n_blocks; ++i) add_block<Form>(t, i, c, acc);
    FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
      FLIPFAST_UNROLL for (int v = 0; v < 2; ++v) {
        t.outputs.finish(r, c + v * kWidth, acc[r][v]);
      }
    }
  }
}

template <class Form, int... N>
FLIPFAST_INLINE void run_quant_tile(int rows, const QuantTile& t, Counted<N...>) {
  constexpr QuantTileFunction tiles[] = {quant_tile<Form, N + 1>...};
  tiles[rows - 1](t);
}

// The panels' outputs of rows [row_begin, row_end). A few blocks of k are unpacked for all of them.
template <class Panel, class Form>
void run_panels(const QuantArgs& args, int panel_begin, int panel_end, int row_begin, int row_end) {
  constexpr int kPanelBlocks = Panel::kBlocks;
  Unpacked unpacked[kUnpacked];
  const int blocks = args.k / kQuantBlock;
  const int tiles = (row_end - row_begin + kQuantRows - 1) / kQuantRows;
  const Panel* from = static_cast<const Panel*>(args.weight) +
                      static_cast<ptrdiff_t>(panel_begin) * (blocks / kPanelBlocks);
  for (int panel = panel_begin; panel < panel_end; ++panel) {
    for (int begin = 0; begin < blocks; begin += kUnpacked) {
      const int n_blocks = least(kUnpacked, blocks - begin);
      for (int i = 0; i < n_blocks; i += kPanelBlocks) unpack<Form::kSigned>(*from++, unpacked + i);
      for (int i = 0; i < tiles; ++i) {
        const int row = row_begin + (row_end - row_begin) * i / tiles;
        const int rows = row_begin + (row_end - row_begin) * (i + 1) / tiles - row;
        QuantTile t;
        t.blocks = unpacked;
        t.n_blocks = n_blocks;
        const ptrdiff_t first = static_cast<ptrdiff_t>(begin) * args.rows + row;
        t.q = args.q + first * kQuantBlock;
        t.row_blocks = args.row_blocks + first;
        t.rows = args.rows;
        t.outputs = outputs(args, panel, row, begin == 0);
        run_quant_tile<Form>(rows, t, typename Count<kQuantRows>::Type{});
      }
    }
  }
}

void quant_run(const QuantArgs& args, int panel_begin, int panel_end, int row_begin, int row_end) {
  const auto run = args.kind == Kind::kQ4_0   ? run_panels<PanelQ4_0, Nibbles8>
                   : args.kind == Kind::kQ4_1 ? run_panels<PanelQ4_1, NibblesMin>
                   : args.kind == Kind::kQ8_0 ? run_panels<PanelQ8_0, EightBits>
                   : args.kind == Kind::kQ4_K ? run_panels<PanelQ4_K, NibblesMin>
                                              : run_panels<PanelQ6_K, SixBitHalves>;
  run(args, panel_begin, panel_end, row_begin, row_end);
}

constexpr QuantKernel kQuant = {quantize, quant_run};

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
