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

constexpr int kBlockVectors = kQuantBlock / kWidth;

FLIPFAST_INLINE Ints larger(Ints a, Ints b) { return a > b ? a : b; }

// What all lanes give together by an operation of two, in any order.
template <class Two>
FLIPFAST_INLINE int32_t over_lanes(Ints v, Two two) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i all = (__m256i)v;
  typedef int32_t Half __attribute__((vector_size(16)));
  Half half = two((Half)_mm256_castsi256_si128(all), (Half)_mm256_extracti128_si256(all, 1));
  half = two(half, (Half)_mm_shuffle_epi32((__m128i)half, 0x4e));
  half = two(half, (Half)_mm_shuffle_epi32((__m128i)half, 0xb1));
  return half[0];
#else
  int32_t all = v[0];
  for (int i = 1; i < kWidth; ++i) all = two(all, v[i]);
  return all;
#endif
}

FLIPFAST_INLINE int32_t largest_lane(Ints v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32((__m512i)v);
#else
  return over_lanes(v, [](auto a, auto b) { return a > b ? a : b; });
#endif
}

FLIPFAST_INLINE int32_t sum_lanes(Ints v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  return over_lanes(v, [](auto a, auto b) { return a + b; });
#endif
}

FLIPFAST_INLINE void narrow(const Ints (&v)[kBlockVectors], int8_t* out) {
#if defined(__AVX512F__)
  for (int i = 0; i < kBlockVectors; ++i) {
    const __m128i bytes = _mm512_cvtepi32_epi8((__m512i)v[i]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * kWidth), bytes);
  }
#elif defined(__AVX2__)
  const __m256i first = _mm256_packs_epi32((__m256i)v[0], (__m256i)v[1]);
  const __m256i second = _mm256_packs_epi32((__m256i)v[2], (__m256i)v[3]);
  // Both take turns between the two halves of what they pack.
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
#else
  typedef int8_t Narrow __attribute__((vector_size(kWidth)));
  for (int i = 0; i < kBlockVectors; ++i) {
    const Narrow bytes = __builtin_convertvector(v[i], Narrow);
    __builtin_memcpy(out + i * kWidth, &bytes, sizeof(bytes));
  }
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
  Ints integers[kBlockVectors];
  FLIPFAST_UNROLL for (int i = 0; i < kBlockVectors; ++i) {
    integers[i] = (Ints)(values[i] * factor + splat(kRounder)) - kRounderBits;
  }
  narrow(integers, q);
  int32_t sums[2];
  FLIPFAST_UNROLL for (int half = 0; half < 2; ++half) {
    Ints total = {};
    FLIPFAST_UNROLL for (int i = 0; i < kBlockVectors / 2; ++i) {
      total += integers[half * kBlockVectors / 2 + i];
    }
    sums[half] = sum_lanes(total);
  }
  const float scale = most / 127.0f;
  return {scale, scale * static_cast<float>(sums[0] + sums[1]), {sums[0], sums[1]}};
}

// A few rows of a block lie side by side, the blocks of a row far apart: a cache line is written
// while it is near.
void quantize(const QuantArgs& args, int begin, int end) {
  constexpr int kTogether = 8;
  const int blocks = args.k / kQuantBlock;
  for (int first = begin; first < end; first += kTogether) {
    const int last = least(first + kTogether, end);
    for (int i = 0; i < blocks; ++i) {
      for (int row = first; row < last; ++row) {
        const float* const x = args.x + row * args.x_stride + i * kQuantBlock;
        const ptrdiff_t to = static_cast<ptrdiff_t>(i) * args.rows + row;
        args.row_blocks[to] = quantize_block(x, args.q + to * kQuantBlock);
      }
    }
  }
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
