// y = x @ weight.T + bias with fused multiply-adds; see ProductArgs for the layouts.
#pragma once

#include "cpu/pack.h"
#include "cpu/tile.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

// Largest k range of a panel processed for all rows before the next: its 48 KB, with 21 KB of
// packed rows, stay near the L1 cache.
constexpr int kDepthBlock = 384;

int product_blocks(int rows) { return (rows + kRows - 1) / kRows; }

// Rows are split into blocks as evenly as possible: 15 rows into 8 and 7, not 14 and 1.
struct Blocks {
  int each;    // rows per block
  int longer;  // number of first blocks with one more row

  explicit Blocks(int rows)
      : each(rows / product_blocks(rows)), longer(rows % product_blocks(rows)) {}

  int start(int block) const { return block * each + least(block, longer); }
  int size(int block) const { return each + (block < longer ? 1 : 0); }
};

size_t product_bytes(int rows, int k_padded) {
  return static_cast<size_t>(rows) * static_cast<size_t>(k_padded) * sizeof(float);
}

// A single row without padding is already in packed form.
FLIPFAST_INLINE bool as_is(const ProductArgs& args) {
  return args.rows == 1 && args.k == args.k_padded;
}

template <bool kRound>
void product_pack(const ProductArgs& args, int block) {
  const Blocks blocks(args.rows);
  const int begin = blocks.start(block);
  const int rows = blocks.size(block);
  float* const out =
      static_cast<float*>(args.packed) + static_cast<ptrdiff_t>(begin) * args.k_padded;
  if (!kRound && as_is(args)) return;
  const auto row = [&](int r) { return args.x + (begin + r) * args.x_stride; };
  pack_rows<kRound>(row, rows, args.k, args.k_padded, out);
}

// Widens part of a panel to float32: [k][32].
FLIPFAST_INLINE void widen_panel(const uint32_t* words, int pairs, float* out) {
  for (int i = 0; i < pairs; ++i, words += kPanel, out += 2 * kPanel) {
    for (int c = 0; c < kPanel; c += kWidth) {
      const Words w = load_words(words + c);
      store(out + c, lower_half(w));
      store(out + kPanel + c, upper_half(w));
    }
  }
}

struct Strip {
  int panel;
  int n_panels;
  int k_begin;
  int k_end;
  const void* right;  // the first panel at k_begin
  Storage storage;
};

FLIPFAST_INLINE void run_tile(const ProductArgs& args, const Strip& strip, int begin, int rows,
                              const float* left) {
  const bool wide = strip.n_panels > 1 || strips(rows) * kPair <= kPanel;
  const TileTable& table = strip.storage == Storage::kFloat32 ? kTiles<Packed, Storage::kFloat32>
                                                              : kTiles<Packed, Storage::kBfloat16>;
  const TileFunction tile = wide ? table.wide[rows - 1] : table.narrow[rows - 1];
  const int width = wide ? strips(rows) * kPair : kPair;
  const int per_word = strip.storage == Storage::kFloat32 ? 1 : 2;
  const int total = strip.n_panels * kPanel;
  for (int column = 0; column < total; column += width) {
    const int n = strip.panel * kPanel + column;
    float edge[kRows * 4 * kPair];
    const int valid = least(width, args.n - n);
    if (valid <= 0) return;
    float* const y = args.y + begin * args.y_stride + n;
    const bool whole = valid == width;
    Tile t;
    t.a = left;
    t.segments = &strip.right;
    t.n_segments = 1;
    t.per_segment = strip.k_end - strip.k_begin;
    t.row = kPanel;
    t.group = static_cast<ptrdiff_t>(args.k_padded / per_word) * kPanel;
    t.column = column;
    t.c = whole ? y : edge;
    t.c_row = whole ? args.y_stride : width;
    t.init = args.bias == nullptr ? nullptr : args.bias + n;
    t.sums = strip.k_begin > 0 ? Sums::kContinue : Sums::kStore;
    if (!whole && t.sums == Sums::kContinue) {
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < valid; ++c) edge[r * width + c] = y[r * args.y_stride + c];
      }
    }
    tile(t);
    if (!whole) {
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < valid; ++c) y[r * args.y_stride + c] = edge[r * width + c];
      }
    }
  }
}

// For few rows: the weight is read once, as stored, several panels side by side.
template <bool kRound>
void run_few(const ProductArgs& args, int panel_begin, int panel_end) {
  const bool floats = args.storage == Storage::kFloat32;
  const ptrdiff_t panel_bytes = static_cast<ptrdiff_t>(args.k_padded) * kPanel * (floats ? 4 : 2);
  const float* left = !kRound && as_is(args) ? args.x : static_cast<const float*>(args.packed);
  const int together = most(1, strips(args.rows) * kPair / kPanel);
  for (int panel = panel_begin; panel < panel_end;) {
    // A wide tile spans `together` panels, all of which must be within the range.
    const int n_panels = panel + together <= panel_end ? together : 1;
    Strip strip = {panel,
                   n_panels,
                   0,
                   args.k_padded,
                   static_cast<const char*>(args.weight) + panel * panel_bytes,
                   args.storage};
    run_tile(args, strip, 0, args.rows, left);
    panel += n_panels;
  }
}

template <bool kRound>
void product_run(const ProductArgs& args, int panel_begin, int panel_end, int block_begin,
                 int block_end) {
  if (product_blocks(args.rows) == 1) return run_few<kRound>(args, panel_begin, panel_end);
  const Blocks blocks(args.rows);
  const bool floats = args.storage == Storage::kFloat32;
  alignas(64) float widened[kDepthBlock * kPanel];
  const int parts = (args.k_padded + kDepthBlock - 1) / kDepthBlock;
  const int step = ((args.k_padded + parts - 1) / parts + 1) / 2 * 2;
  for (int k = 0; k < args.k_padded; k += step) {
    const int k_end = least(k + step, args.k_padded);
    for (int panel = panel_begin; panel < panel_end; ++panel) {
      const ptrdiff_t start = (static_cast<ptrdiff_t>(panel) * args.k_padded + k) * kPanel;
      Strip strip = {panel, 1, k, k_end, widened, Storage::kFloat32};
      if (floats) {
        strip.right = static_cast<const float*>(args.weight) + start;
      } else {
        widen_panel(static_cast<const uint32_t*>(args.weight) + start / 2, (k_end - k) / 2,
                    widened);
      }
      for (int block = block_begin; block < block_end; ++block) {
        const int begin = blocks.start(block);
        const int rows = blocks.size(block);
        const float* const left = static_cast<const float*>(args.packed) +
                                  static_cast<ptrdiff_t>(begin) * args.k_padded +
                                  static_cast<ptrdiff_t>(k) * rows;
        run_tile(args, strip, begin, rows, left);
      }
    }
  }
}

template <bool kRound>
constexpr ProductKernel kProduct = {product_bytes, product_blocks, product_pack<kRound>,
                                    product_run<kRound>};

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
