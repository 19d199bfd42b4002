// One row of the online softmax (Milakov and Gimelshein 2018) over one block of keys.
#pragma once

#include "cpu/kernels.h"
#include "cpu/vector_math.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

// State of a row, carried from one block of keys to the next.
struct RowState {
  float top;            // largest score so far, minus infinity before the first
  float total[kWidth];  // sums of e**(score - top), one per lane
};

struct Columns {
  int begin, end;  // computed columns of the block, multiples of 32
  int low, high;   // the subset [low, high) that the row sees
};

FLIPFAST_INLINE Ints lane_numbers() {
  Ints v;
  for (int i = 0; i < kWidth; ++i) v[i] = i;
  return v;
}

// Scales and caps the scores in place and masks unseen ones with minus infinity; returns the
// largest.
FLIPFAST_INLINE float prepare_scores(float* scores, const Columns& columns, float scale,
                                     float softcap) {
  const Vec hidden = splat(-kInfinity);
  Vec top = hidden;
  for (int c = columns.begin; c < columns.end; c += kWidth) {
    Vec s = load(scores + c) * scale;
    if (softcap > 0.0f) s = tanh(s / softcap) * softcap;
    if (c < columns.low || c + kWidth > columns.high) {
      const Ints column = lane_numbers() + c;
      s = column < columns.low ? hidden : column >= columns.high ? hidden : s;
    }
    store(scores + c, s);
    top = max(s, top);  // ignores NaN, which still reaches the sum
  }
  return largest(top);
}

// Turns raw scores into weights e**(score - top) in place. Returns the factor by which to rescale
// the row's output so far.
FLIPFAST_INLINE float softmax_row(float* scores, const Columns& columns, float scale, float softcap,
                                  RowState* state) {
  if (columns.low >= columns.high) {  // the row sees no key here, so nothing may change
    for (int c = columns.begin; c < columns.end; c += kWidth) store(scores + c, Vec{});
    return 1.0f;
  }
  const float block_top = prepare_scores(scores, columns, scale, softcap);
  Vec total = load(state->total);
  float factor = 1.0f;
  if (block_top > state->top) {
    factor = exp(splat(state->top - block_top))[0];
    total *= factor;
    state->top = block_top;
  }
  const Vec top = splat(state->top);
  Vec block_total = {};  // separate, as the error of a sum grows with the length of its chain
  for (int c = columns.begin; c < columns.end; c += kWidth) {
    const Vec weight = exp(load(scores + c) - top);
    store(scores + c, weight);
    block_total += weight;
  }
  store(state->total, total + block_total);
  return factor;
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
