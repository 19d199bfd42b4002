// Dot products of bytes, exact in int32: in each lane, 4 weights times 4 numbers of a row at a
// time.
//
// Weights have no sign: nibbles, 6 bits, or bytes with 128 added; the caller takes the surplus off.
// Without VNNI bytes keep their sign.
#pragma once

#include "cpu/simd.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

enum class Values { kNibbles, kSixBits, kBytes };

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || !defined(__AVX2__)

constexpr bool kSignedBytes = false;

FLIPFAST_INLINE Ints multiply_add(Ints sums, Words weights, Words q) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)weights, (__m512i)q);
#elif defined(__AVXVNNI__)
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)weights, (__m256i)q);
#else
  FLIPFAST_UNROLL for (int i = 0; i < 32; i += 8) {
    sums += (Ints)((weights >> i) & 0xffu) * ((Ints)(q << (24 - i)) >> 24);
  }
  return sums;
#endif
}

template <Values>
struct Dot {
  Ints sums = {};

  FLIPFAST_INLINE void add(Words w0, Words q0, Words w1, Words q1) {
    sums = multiply_add(multiply_add(sums, w0, q0), w1, q1);
  }
  FLIPFAST_INLINE Ints total() const { return sums; }
};

#else

constexpr bool kSignedBytes = true;

#if defined(__AVX512F__)
FLIPFAST_INLINE Words add_int16(Words a, Words b) {
  return (Words)_mm512_add_epi16((__m512i)a, (__m512i)b);
}
FLIPFAST_INLINE Ints add_pairs(Words v) {
  return (Ints)_mm512_madd_epi16((__m512i)v, _mm512_set1_epi16(1));
}
// a, without a sign, times b, with one: sums of two in int16.
FLIPFAST_INLINE Words multiply_bytes(Words a, Words b) {
  return (Words)_mm512_maddubs_epi16((__m512i)a, (__m512i)b);
}
FLIPFAST_INLINE Words sizes(Words v) { return (Words)_mm512_abs_epi8((__m512i)v); }
FLIPFAST_INLINE Words with_signs(Words v, Words signs) {
  const __mmask64 negative = _mm512_movepi8_mask((__m512i)signs);
  return (Words)_mm512_mask_sub_epi8((__m512i)v, negative, __m512i{}, (__m512i)v);
}
#else
FLIPFAST_INLINE Words add_int16(Words a, Words b) {
  return (Words)_mm256_add_epi16((__m256i)a, (__m256i)b);
}
FLIPFAST_INLINE Ints add_pairs(Words v) {
  return (Ints)_mm256_madd_epi16((__m256i)v, _mm256_set1_epi16(1));
}
FLIPFAST_INLINE Words multiply_bytes(Words a, Words b) {
  return (Words)_mm256_maddubs_epi16((__m256i)a, (__m256i)b);
}
FLIPFAST_INLINE Words sizes(Words v) { return (Words)_mm256_abs_epi8((__m256i)v); }
FLIPFAST_INLINE Words with_signs(Words v, Words signs) {
  return (Words)_mm256_sign_epi8((__m256i)v, (__m256i)signs);
}
#endif

// Keeps GCC from taking a chain of sums apart: it multiplies first, spills all products, adds last.
template <class Vector>
FLIPFAST_INLINE void in_order(Vector& sums) {
  asm volatile("" : "+v"(sums));
}

// int16 must not saturate. A product of bytes is at most 15 * 127, 63 * 127 or 128 * 127: there is
// room for a block's 16 of the first, for 4 of the second, for the 2 that one instruction adds of
// the third.
template <Values V>
struct Dot {
  Ints sums = {};

  FLIPFAST_INLINE void add(Words w0, Words q0, Words w1, Words q1) {
    if constexpr (V == Values::kBytes) {
      sums += add_pairs(multiply_bytes(sizes(w0), with_signs(q0, w0)));
      in_order(sums);
      sums += add_pairs(multiply_bytes(sizes(w1), with_signs(q1, w1)));
    } else {
      sums += add_pairs(add_int16(multiply_bytes(w0, q0), multiply_bytes(w1, q1)));
    }
    in_order(sums);
  }
  FLIPFAST_INLINE Ints total() const { return sums; }
};

template <>
struct Dot<Values::kNibbles> {
  Words sums = {};

  FLIPFAST_INLINE void add(Words w0, Words q0, Words w1, Words q1) {
    sums = add_int16(sums, add_int16(multiply_bytes(w0, q0), multiply_bytes(w1, q1)));
    in_order(sums);
  }
  FLIPFAST_INLINE Ints total() const { return add_pairs(sums); }
};

#endif

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
