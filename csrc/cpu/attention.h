// Attention over pages with fused multiply-adds, as in FlashAttention (Dao et al. 2022): key blocks
// at fixed positions, an online softmax, the output rescaled when a row's largest score grows.
//
// A row's bits depend on its own query and keys alone: key blocks start at multiples of 128 from
// the sequence's start, a key that a row does not see has weight 0, and adding 0 changes nothing.
#pragma once

#include "cpu/attention_rows.h"
#include "cpu/pack.h"
#include "cpu/tile.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

constexpr int kItemRows = 8 * kRows;
constexpr int kPagesABlock = kKeyBlock / kPanel;
constexpr int kChain = 16;  // dimensions of a query summed in one chain

// Working memory of one call, in float32.
struct AttendRoom {
  float* query;   // [row block][head_dim][rows]
  float* output;  // [row][depth]
  RowState* states;
  float* scores;  // [row of a block][key]
  float* keys;    // pages of a key block, widened
  float* values;
  void* tail;  // the last page of values, zeroed past the sequence's end
};

FLIPFAST_INLINE AttendRoom divide(void* scratch, int depth) {
  float* p = static_cast<float*>(scratch);
  const auto take = [&p](size_t n) {
    float* const start = p;
    p += (n + 15) / 16 * 16;
    return start;
  };
  const size_t d = static_cast<size_t>(depth);
  AttendRoom room;
  room.query = take(kItemRows * d);
  room.output = take(kItemRows * d);
  room.states = reinterpret_cast<RowState*>(take(kItemRows * sizeof(RowState) / 4));
  room.scores = take(kRows * kKeyBlock);
  room.keys = take(kKeyBlock * d);
  room.values = take(kKeyBlock * d);
  room.tail = take(kPanel * d);
  return room;
}

size_t attend_bytes(int depth) {
  const size_t d = static_cast<size_t>(depth);
  return 4 * (2 * kItemRows * d + kItemRows * sizeof(RowState) / 4 + kRows * kKeyBlock +
              2 * kKeyBlock * d + kPanel * d + 7 * 16);
}

// The pages of a key block, float32 or words.
struct KeyBlock {
  const void* keys[kPagesABlock];
  const void* values[kPagesABlock];
  Storage storage;
};

FLIPFAST_INLINE void widen(const uint32_t* words, int pairs, int columns, float* out) {
  for (int i = 0; i < pairs; ++i, out += 2 * columns) {
    for (int c = 0; c < columns; c += kWidth) {
      const Words w = load_words(words + i * columns + c);
      store(out + c, lower_half(w));
      store(out + columns + c, upper_half(w));
    }
  }
}

FLIPFAST_INLINE KeyBlock find_block(const AttendArgs& args, int base, const Columns& columns,
                                    bool widened, const AttendRoom& room) {
  KeyBlock block = {};
  block.storage = widened ? Storage::kFloat32 : args.storage;
  for (int c = columns.begin; c < columns.end; c += kPanel) {
    const int i = c / kPanel;
    const void* keys = page_of(args, args.keys, base + c);
    const void* values = page_of(args, args.values, base + c);
    const int valid = args.length - (base + c);
    if (valid < kPanel) {
      copy_values(values, args.storage, args.depth, valid, room.tail);
      values = room.tail;
    }
    if (widened) {
      const ptrdiff_t place = static_cast<ptrdiff_t>(i) * kPanel * args.depth;
      widen(static_cast<const uint32_t*>(keys), args.head_dim / 2, kPanel, room.keys + place);
      widen(static_cast<const uint32_t*>(values), kPanel / 2, args.depth, room.values + place);
      keys = room.keys + place;
      values = room.values + place;
    }
    block.keys[i] = keys;
    block.values[i] = values;
  }
  return block;
}

// scores[r][key] = q.k for the computed columns, summed over kChain dimensions at a time.
FLIPFAST_INLINE void score(const AttendArgs& args, const KeyBlock& block, const Columns& columns,
                           int rows, const float* query, float* scores) {
  const TileTable& table = block.storage == Storage::kFloat32 ? kTiles<Packed, Storage::kFloat32>
                                                              : kTiles<Packed, Storage::kBfloat16>;
  const bool wide = strips(rows) * kPair <= kPanel;
  const int width = wide ? strips(rows) * kPair : kPair;
  const ptrdiff_t number = block.storage == Storage::kFloat32 ? 4 : 2;
  const void* keys = nullptr;
  for (int c = columns.begin; c < columns.end; c += width) {
    Tile t = {};
    t.segments = &keys;
    t.n_segments = 1;
    t.row = kPanel;
    t.column = c % kPanel;
    t.c = scores + c;
    t.c_row = kKeyBlock;
    for (int d = 0; d < args.head_dim; d += kChain) {
      keys = static_cast<const char*>(block.keys[c / kPanel]) + d * number * kPanel;
      t.a = query + d * rows;
      t.per_segment = least(kChain, args.head_dim - d);
      (wide ? table.wide : table.narrow)[rows - 1](t);
      t.sums = Sums::kAdd;
    }
  }
}

// output[r] += weights[r] @ values, summed over the block's keys in one chain.
FLIPFAST_INLINE void gather(const AttendArgs& args, const KeyBlock& block, const Columns& columns,
                            int rows, const float* weights, float* output) {
  const TileTable& table = block.storage == Storage::kFloat32 ? kTiles<Scores, Storage::kFloat32>
                                                              : kTiles<Scores, Storage::kBfloat16>;
  Tile t = {};
  t.a = weights + columns.begin;
  t.segments = block.values + columns.begin / kPanel;
  t.n_segments = (columns.end - columns.begin) / kPanel;
  t.per_segment = kPanel;
  t.row = args.depth;
  t.group = kPanel;
  t.c_row = args.depth;
  t.sums = Sums::kAdd;
  const int wide = strips(rows) * kPair;
  for (int d = 0; d < args.depth;) {
    const bool fits = d + wide <= args.depth;
    t.column = d;
    t.c = output + d;
    (fits ? table.wide : table.narrow)[rows - 1](t);
    d += fits ? wide : kPair;
  }
}

void attend_run(const AttendArgs& args, int row_begin, int row_end, void* scratch) {
  const AttendRoom room = divide(scratch, args.depth);
  const int total = row_end - row_begin;
  const int n_blocks = (total + kRows - 1) / kRows;
  const auto start_of = [&](int block) { return total * block / n_blocks; };
  for (int b = 0; b < n_blocks; ++b) {
    const auto query = [&](int r) { return query_row(args, row_begin + start_of(b) + r); };
    pack_rows<false>(query, start_of(b + 1) - start_of(b), args.head_dim, args.head_dim,
                     room.query + start_of(b) * args.head_dim);
  }
  __builtin_memset(room.output, 0, sizeof(float) * total * args.depth);
  reset(room.states, total);

  const int first = first_key(args, row_position(args, row_begin)) / kKeyBlock * kKeyBlock;
  const int last = row_position(args, row_end - 1);
  const bool widened = args.storage == Storage::kBfloat16 && n_blocks > 1;
  for (int base = first; base <= last; base += kKeyBlock) {
    const Columns any = needed_columns(args, row_begin, row_end, base);
    const KeyBlock block = find_block(args, base, any, widened, room);
    for (int b = 0; b < n_blocks; ++b) {
      const int begin = row_begin + start_of(b);
      const int end = row_begin + start_of(b + 1);
      const Columns columns = needed_columns(args, begin, end, base);
      if (columns.end <= columns.begin) continue;
      float* const output = room.output + start_of(b) * args.depth;
      score(args, block, columns, end - begin, room.query + start_of(b) * args.head_dim,
            room.scores);
      for (int row = begin; row < end; ++row) {
        const int r = row - begin;
        const float factor =
            softmax_row(room.scores + r * kKeyBlock, seen_by(args, row, base, columns), args.scale,
                        args.softcap, &room.states[row - row_begin]);
        scale_row(output + r * args.depth, args.depth, factor);
      }
      gather(args, block, columns, end - begin, room.scores, output);
    }
  }
  for (int row = row_begin; row < row_end; ++row) {
    write_out(args, row, room.output + (row - row_begin) * args.depth,
              room.states[row - row_begin]);
  }
}

constexpr AttendKernel kAttend = {kItemRows, attend_bytes, attend_run};

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
