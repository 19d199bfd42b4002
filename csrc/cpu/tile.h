// The micro-kernel of all products here: a block of R rows times a strip of columns.
//
// Every element is one chain of fused multiply-adds over k in order, whatever the block's shape, so
// a row's bits do not depend on which block it falls in. Products with weights, q.k and p.v all use
// it, on float32 or on words of two bfloat16 (see kernels.h). Where precision matters more, a
// caller splits k at fixed positions and has each part's sum added to c (Sums::kAdd), as the error
// of a sum grows with the length of its chain.
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kAccumulators = 28;
constexpr int kRows = 14;
#elif defined(__AVX2__)
constexpr int kAccumulators = 12;
constexpr int kRows = 6;
#elif defined(FLIPFAST_NEON)
constexpr int kAccumulators = 24;
constexpr int kRows = 12;
#else
constexpr int kAccumulators = 12;
constexpr int kRows = 6;
#endif

constexpr int kPair = 2 * kWidth;  // columns of the narrowest strip

// Number of strips (of kPair columns) that `rows` rows can process at once.
constexpr int strips(int rows) {
  return 8 * rows <= kAccumulators ? 4 : 4 * rows <= kAccumulators ? 2 : 1;
}

// How the sums of a call combine with the contents of c.
enum class Sums {
  kStore,     // start from `init` or zeros and overwrite c
  kContinue,  // start from c, continuing the chain
  kAdd,       // start from zeros and are added to c
};

struct Tile {
  const float* a;               // left operand; its layout is a template argument
  const void* const* segments;  // right operand: `per_segment` k at each of these addresses
  int n_segments;
  int per_segment;  // even for words
  ptrdiff_t row;    // numbers (or words) from one k (or pair of k) to the next
  ptrdiff_t group;  // numbers (or words) from 32 columns to the next 32
  int column;       // column of the first group where the strips start
  float* c;
  ptrdiff_t c_row;
  Sums sums;
  const float* init;  // row that kStore's sums start from; null for zeros
};

typedef void (*TileFunction)(const Tile&);

// Layouts of the left operand: element (r, k) at a[r * kRowStride + k * kStep].
template <int R>
struct Packed {
  static constexpr int kRowStride = 1, kStep = R;
};
template <int R>
struct Scores {
  static constexpr int kRowStride = kKeyBlock, kStep = 1;
};

template <int R, int P>
FLIPFAST_INLINE void start(const Tile& t, Vec (&acc)[R][2 * P]) {
  FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
    FLIPFAST_UNROLL for (int v = 0; v < 2 * P; ++v) {
      if (t.sums == Sums::kContinue) {
        acc[r][v] = load(t.c + r * t.c_row + v * kWidth);
      } else {
        // The sums will be stored here after the sweep: prefetch the line meanwhile.
        __builtin_prefetch(t.c + r * t.c_row + v * kWidth, 1);
        acc[r][v] = t.init == nullptr ? Vec{} : load(t.init + v * kWidth);
      }
    }
  }
}

template <int R, int P, class Left>
FLIPFAST_INLINE void step(const float* a, const Vec (&b)[2 * P], Vec (&acc)[R][2 * P]) {
  FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
    const Vec left = splat(a[r * Left::kRowStride]);
    FLIPFAST_UNROLL for (int v = 0; v < 2 * P; ++v) acc[r][v] = fma(left, b[v], acc[r][v]);
  }
}

// Where vector v of the strips starts within a row of the right operand.
FLIPFAST_INLINE ptrdiff_t place(const Tile& t, int v) {
  return v * kWidth / kPanel * t.group + v * kWidth % kPanel;
}

template <int R, int P, class Left>
FLIPFAST_INLINE void sweep_floats(const Tile& t, Vec (&acc)[R][2 * P]) {
  const float* a = t.a;
  for (int s = 0; s < t.n_segments; ++s) {
    const float* b = static_cast<const float*>(t.segments[s]) + t.column;
    for (int k = 0; k < t.per_segment; ++k, b += t.row, a += Left::kStep) {
      Vec right[2 * P];
      FLIPFAST_UNROLL for (int v = 0; v < 2 * P; ++v) right[v] = load(b + place(t, v));
      step<R, P, Left>(a, right, acc);
    }
  }
}

template <int R, int P, class Left>
FLIPFAST_INLINE void sweep_words(const Tile& t, Vec (&acc)[R][2 * P]) {
  const float* a = t.a;
  for (int s = 0; s < t.n_segments; ++s) {
    const uint32_t* b = static_cast<const uint32_t*>(t.segments[s]) + t.column;
    for (int k = 0; k < t.per_segment; k += 2, b += t.row, a += 2 * Left::kStep) {
      Vec right[2 * P];
      FLIPFAST_UNROLL for (int v = 0; v < 2 * P; ++v) {
        right[v] = lower_half(load_words(b + place(t, v)));
      }
      step<R, P, Left>(a, right, acc);
      FLIPFAST_UNROLL for (int v = 0; v < 2 * P; ++v) {
        right[v] = upper_half(load_words(b + place(t, v)));
      }
      step<R, P, Left>(a + Left::kStep, right, acc);
    }
  }
}

template <int R, int P, template <int> class Left, Storage S>
void tile(const Tile& shared) {
  const Tile t = shared;  // a copy, so that stores to c cannot change it
  Vec acc[R][2 * P];
  start<R, P>(t, acc);
  if constexpr (S == Storage::kFloat32) {
    sweep_floats<R, P, Left<R>>(t, acc);
  } else {
    sweep_words<R, P, Left<R>>(t, acc);
  }
  FLIPFAST_UNROLL for (int r = 0; r < R; ++r) {
    FLIPFAST_UNROLL for (int v = 0; v < 2 * P; ++v) {
      float* const c = t.c + r * t.c_row + v * kWidth;
      store(c, t.sums == Sums::kAdd ? load(c) + acc[r][v] : acc[r][v]);
    }
  }
}

// The functions for 1 to kRows rows, with one strip and with the maximum number of strips.
struct TileTable {
  TileFunction narrow[kRows];
  TileFunction wide[kRows];
};

template <int... N>
struct Counted {};
template <int N, int... Rest>
struct Count : Count<N - 1, N - 1, Rest...> {};
template <int... N>
struct Count<0, N...> {
  using Type = Counted<N...>;
};

template <template <int> class Left, Storage S, int... N>
constexpr TileTable tile_table(Counted<N...>) {
  return {{tile<N + 1, 1, Left, S>...}, {tile<N + 1, strips(N + 1), Left, S>...}};
}

template <template <int> class Left, Storage S>
constexpr TileTable kTiles = tile_table<Left, S>(Count<kRows>::Type{});

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
