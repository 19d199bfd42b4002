// Rows of numbers to bytes: each block of 32 with a scale of its own.
//
// scale = max |x| / 127 and q = x * (127 / max |x|), ties to even, in -127 to 127. A block below
// 2**-119, whose scale would be no normal number, is 0. One with an infinity or a NaN has NaN for a
// scale, and zeros, so that its row's results are NaN and no other row's.
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

typedef int8_t Narrow __attribute__((vector_size(kWidth)));

constexpr int kBlockVectors = kQuantBlock / kWidth;

FLIPFAST_INLINE Ints larger(Ints a, Ints b) { return a > b ? a : b; }

FLIPFAST_INLINE int32_t largest_lane(Ints v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32((__m512i)v);
#else
  int32_t best = v[0];
  for (int i = 1; i < kWidth; ++i) best = v[i] > best ? v[i] : best;
  return best;
#endif
}

FLIPFAST_INLINE int32_t sum_lanes(Ints v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  int32_t total = 0;
  for (int i = 0; i < kWidth; ++i) total += v[i];
  return total;
#endif
}

FLIPFAST_INLINE void narrow(int8_t* out, Ints v) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8((__m512i)v));
#else
  const Narrow bytes = __builtin_convertvector(v, Narrow);
  __builtin_memcpy(out, &bytes, sizeof(bytes));
#endif
}

FLIPFAST_INLINE RowBlock quantize_block(const float* x, int8_t* q) {
  constexpr int32_t kInfinity = 0x7f800000, kLeast = 0x04000000;  // as float32: 2**-119
  Vec values[kBlockVectors];
  Ints sizes = {};  // the bits of |x|, which are in the order of the numbers, NaN last
  FLIPFAST_UNROLL for (int i = 0; i < kBlockVectors; ++i) {
    values[i] = load(x + i * kWidth);
    sizes = larger(sizes, (Ints)values[i] & 0x7fffffff);
  }
  const int32_t size = largest_lane(sizes);
  if (size < kLeast || size >= kInfinity) {
    __builtin_memset(q, 0, kQuantBlock);
    const float scale = size < kLeast ? 0.0f : __builtin_nanf("");
    return {scale, scale, {0, 0}};
  }
  float most;
  __builtin_memcpy(&most, &size, sizeof(most));
  const Vec factor = splat(127.0f / most);
  // Added to a number below 2**22, it leaves the nearest integer in the last bits.
  constexpr float kRounder = 0x1.8p23f;
  constexpr int32_t kRounderBits = 0x4b400000;
  int32_t sums[2];
  FLIPFAST_UNROLL for (int half = 0; half < 2; ++half) {
    Ints total = {};
    FLIPFAST_UNROLL for (int i = 0; i < kBlockVectors / 2; ++i) {
      const int at = half * kBlockVectors / 2 + i;
      const Ints integers = (Ints)(values[at] * factor + splat(kRounder)) - kRounderBits;
      narrow(q + at * kWidth, integers);
      total += integers;
    }
    sums[half] = sum_lanes(total);
  }
  const float scale = most / 127.0f;
  return {scale, scale * static_cast<float>(sums[0] + sums[1]), {sums[0], sums[1]}};
}

void quantize(const QuantArgs& args, int begin, int end) {
  const int blocks = args.k / kQuantBlock;
  for (int row = begin; row < end; ++row) {
    const float* const x = args.x + row * args.x_stride;
    for (int i = 0; i < blocks; ++i) {
      const ptrdiff_t to = static_cast<ptrdiff_t>(i) * args.rows + row;
      args.row_blocks[to] = quantize_block(x + i * kQuantBlock, args.q + to * kQuantBlock);
    }
  }
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
