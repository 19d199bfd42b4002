// Rows, keys and pages of an attention call; shared by all levels.
#pragma once

#include "cpu/softmax.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

// Position, in its sequence, of the query that a row belongs to.
FLIPFAST_INLINE int row_position(const AttendArgs& args, int row) {
  return args.length - args.tokens + row / args.group;
}

FLIPFAST_INLINE int first_key(const AttendArgs& args, int position) {
  return args.window > position ? 0 : position - args.window + 1;
}

FLIPFAST_INLINE const float* query_row(const AttendArgs& args, int row) {
  return args.query + row / args.group * args.query_token_stride +
         row % args.group * args.query_head_stride;
}

FLIPFAST_INLINE float* out_row(const AttendArgs& args, int row) {
  return args.out + row / args.group * args.out_token_stride +
         static_cast<ptrdiff_t>(row % args.group) * args.head_dim;
}

// Columns of the key block at `base` that rows [begin, end) need, as whole pages; empty if the
// result's end <= begin.
FLIPFAST_INLINE Columns needed_columns(const AttendArgs& args, int begin, int end, int base) {
  const int first = first_key(args, row_position(args, begin)) / kPanel * kPanel;
  const int last = row_position(args, end - 1) / kPanel * kPanel + kPanel;
  return {most(first - base, 0), least(last - base, kKeyBlock), 0, 0};
}

FLIPFAST_INLINE Columns seen_by(const AttendArgs& args, int row, int base, Columns columns) {
  const int position = row_position(args, row);
  columns.low = most(first_key(args, position) - base, columns.begin);
  columns.high = least(position + 1 - base, columns.end);
  return columns;
}

FLIPFAST_INLINE const char* page_of(const AttendArgs& args, const void* pages, int key) {
  return static_cast<const char*>(pages) + args.pages[key / kPanel] * args.page_bytes;
}

FLIPFAST_INLINE void reset(RowState* states, int rows) {
  for (int r = 0; r < rows; ++r) {
    states[r].top = -kInfinity;
    store(states[r].total, Vec{});
  }
}

FLIPFAST_INLINE void scale_row(float* row, int n, float factor) {
  if (factor == 1.0f) return;
  for (int d = 0; d < n; d += kWidth) store(row + d, load(row + d) * factor);
}

FLIPFAST_INLINE void write_out(const AttendArgs& args, int row, const float* output,
                               const RowState& state) {
  const Vec total = splat(sum(load(state.total)));
  float* const out = out_row(args, row);
  for (int d = 0; d < args.head_dim; d += kWidth) {
    store_first(out + d, load(output + d) / total, least(kWidth, args.head_dim - d));
  }
}

// Copies a value page's tokens before `valid` and zeros the rest: memory past the end of a sequence
// may hold anything, and 0 times infinity or NaN is not 0.
FLIPFAST_INLINE void copy_values(const void* page, Storage storage, int depth, int valid,
                                 void* out) {
  const size_t row = static_cast<size_t>(depth) * 4;
  const bool words = storage == Storage::kBfloat16;
  const int rows = words ? kPanel / 2 : kPanel;
  const int whole = words ? valid / 2 : valid;
  __builtin_memcpy(out, page, whole * row);
  __builtin_memset(static_cast<char*>(out) + whole * row, 0, (rows - whole) * row);
  if (words && valid % 2 != 0) {
    const uint32_t* const from = static_cast<const uint32_t*>(page) + whole * depth;
    uint32_t* const to = static_cast<uint32_t*>(out) + whole * depth;
    for (int d = 0; d < depth; ++d) to[d] = from[d] & 0xffffu;
  }
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
