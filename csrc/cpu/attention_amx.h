// Attention over bfloat16 pages in AMX matrix tiles: queries and weights are rounded to bfloat16,
// scores, sums and outputs are float32. Otherwise as in attention.h.
#pragma once

#include "cpu/attention_rows.h"
#include "cpu/tiles_amx.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

constexpr int kItemBlocks = 4;
constexpr int kItemRows = kItemBlocks * kBlockRows;
constexpr int kPagesABlock = kKeyBlock / kPanel;
static_assert(kPanel == kStep, "a page of values is one step of k");

// Working memory of one call.
struct AttendRoom {
  char* query;    // packed rows of each block
  char* weights;  // of one block, packed
  char* tail;     // the last page of values, zeroed past the sequence's end
  float* output;  // [row][depth]
  float* scores;  // [row of a block][key]
  RowState* states;
};

FLIPFAST_INLINE ptrdiff_t query_bytes(int depth) { return depth / kStep * kStepBytes; }

size_t attend_bytes(int depth) {
  const size_t d = static_cast<size_t>(depth);
  return kItemBlocks * static_cast<size_t>(query_bytes(depth)) + kPagesABlock * kStepBytes +
         kPanel * d * 2 + 4 * kItemRows * d + 4 * kBlockRows * kKeyBlock +
         kItemRows * sizeof(RowState);
}

// Every part is a multiple of 64 bytes, so that tile rows do not cross cache lines.
FLIPFAST_INLINE AttendRoom divide(void* scratch, int depth) {
  AttendRoom room;
  room.query = static_cast<char*>(scratch);
  room.weights = room.query + kItemBlocks * query_bytes(depth);
  room.tail = room.weights + kPagesABlock * kStepBytes;
  room.output = reinterpret_cast<float*>(room.tail + kPanel * depth * 2);
  room.scores = room.output + kItemRows * depth;
  room.states = reinterpret_cast<RowState*>(room.scores + kBlockRows * kKeyBlock);
  return room;
}

// The value pages of a key block.
struct Values {
  const char* pages[kPagesABlock];
};

FLIPFAST_INLINE Values find_values(const AttendArgs& args, int base, const Columns& columns,
                                   char* tail) {
  Values values = {};
  for (int c = columns.begin; c < columns.end; c += kPanel) {
    const char* page = page_of(args, args.values, base + c);
    const int valid = args.length - (base + c);
    if (valid < kPanel) {
      copy_values(page, Storage::kBfloat16, args.depth, valid, tail);
      page = tail;
    }
    values.pages[c / kPanel] = page;
  }
  return values;
}

// scores[r][key] = q.k for the computed columns.
FLIPFAST_INLINE void score(const AttendArgs& args, int base, const Columns& columns, int rows,
                           const char* query, float* scores) {
  for (int c = columns.begin; c < columns.end; c += kPanel) {
    const char* const keys = page_of(args, args.keys, base + c);
    Block b = {};
    b.left = query;
    b.steps = args.depth / kStep;
    b.right_row = kPanel * 4;
    b.c = scores + c;
    b.c_row = kKeyBlock;
    b.start = Start::kZero;
    multiply(b, rows, [&](int step) { return keys + step * kStepBytes; });
  }
}

// Rounds a row's weights and stores them in the layout of the tiles.
FLIPFAST_INLINE void pack_weights(const float* row, const Columns& columns, int r, char* weights) {
  char* const place = weights + r * 64;  // the second tile directly follows the first
  for (int c = columns.begin; c < columns.end; c += kWidth) {
    char* const to = place + c / kPanel * kStepBytes + c % kPanel * 2;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves(rounded_words(load(row + c))));
  }
}

// output[r] += weights[r] @ values.
FLIPFAST_INLINE void gather(const AttendArgs& args, const Values& values, const Columns& columns,
                            int rows, const char* weights, float* output) {
  const int first = columns.begin / kPanel;
  for (int d = 0; d < args.depth; d += kPanel) {
    Block b = {};
    b.left = weights + first * kStepBytes;
    b.steps = columns.end / kPanel - first;
    b.right_row = static_cast<ptrdiff_t>(args.depth) * 4;
    b.c = output + d;
    b.c_row = args.depth;
    b.start = Start::kStored;
    multiply(b, rows, [&](int step) { return values.pages[first + step] + d * 4; });
  }
}

void attend_run(const AttendArgs& args, int row_begin, int row_end, void* scratch) {
  const Tiles tiles;
  const AttendRoom room = divide(scratch, args.depth);
  const int total = row_end - row_begin;
  const int n_blocks = (total + kBlockRows - 1) / kBlockRows;
  for (int b = 0; b < n_blocks; ++b) {
    const auto query = [&](int r) { return query_row(args, row_begin + b * kBlockRows + r); };
    pack_tiles(query, least(kBlockRows, total - b * kBlockRows), args.head_dim, args.depth,
               room.query + b * query_bytes(args.depth));
  }
  // Rows past the last are computed with the tiles, but their results are never used.
  __builtin_memset(room.output, 0, sizeof(float) * n_blocks * kBlockRows * args.depth);
  __builtin_memset(room.weights, 0, kPagesABlock * kStepBytes);
  reset(room.states, total);

  const int first = first_key(args, row_position(args, row_begin)) / kKeyBlock * kKeyBlock;
  const int last = row_position(args, row_end - 1);
  for (int base = first; base <= last; base += kKeyBlock) {
    const Columns any = needed_columns(args, row_begin, row_end, base);
    const Values values = find_values(args, base, any, room.tail);
    for (int b = 0; b < n_blocks; ++b) {
      const int begin = row_begin + b * kBlockRows;
      const int rows = least(kBlockRows, row_end - begin);
      const Columns columns = needed_columns(args, begin, begin + rows, base);
      if (columns.end <= columns.begin) continue;
      float* const output = room.output + b * kBlockRows * args.depth;
      score(args, base, columns, rows, room.query + b * query_bytes(args.depth), room.scores);
      for (int r = 0; r < rows; ++r) {
        float* const row = room.scores + r * kKeyBlock;
        const float factor = softmax_row(row, seen_by(args, begin + r, base, columns), args.scale,
                                         args.softcap, &room.states[begin - row_begin + r]);
        scale_row(output + r * args.depth, args.depth, factor);
        pack_weights(row, columns, r, room.weights);
      }
      gather(args, values, columns, rows, room.weights, output);
    }
  }
  for (int r = 0; r < total; ++r) {
    write_out(args, row_begin + r, room.output + r * args.depth, room.states[r]);
  }
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
