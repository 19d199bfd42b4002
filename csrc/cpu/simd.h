// A small float32 vector type for the instruction set that the file is compiled for. Each
// level_*.cc file defines FLIPFAST_LEVEL and includes this once; everything lives in a namespace of
// that name. The NEON level (every 64-bit Arm has NEON) also defines FLIPFAST_NEON.
//
// These files must not call inline functions of the standard library: the linker keeps one copy of
// those for the whole program, and that copy could use instructions that the CPU lacks.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(FLIPFAST_NEON)
#include <arm_neon.h>
#endif

#define FLIPFAST_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define FLIPFAST_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FLIPFAST_UNROLL _Pragma("GCC unroll 64")
#endif

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int32_t Ints __attribute__((vector_size(kWidth * 4)));
typedef uint32_t Words __attribute__((vector_size(kWidth * 4)));

FLIPFAST_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

FLIPFAST_INLINE Words load_words(const uint32_t* p) {
  Words v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

FLIPFAST_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof(v)); }

#if defined(__AVX2__) && !defined(__AVX512F__)
FLIPFAST_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first n lanes; the others are 0.
FLIPFAST_INLINE Vec load_first(const float* p, int n) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#elif defined(__AVX2__)
  return (Vec)_mm256_maskload_ps(p, first_lanes(n));
#else
  Vec v = {};
  __builtin_memcpy(&v, p, static_cast<size_t>(n) * 4);
  return v;
#endif
}

FLIPFAST_INLINE void store_first(float* p, Vec v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, first_lanes(n), (__m256)v);
#else
  __builtin_memcpy(p, &v, static_cast<size_t>(n) * 4);
#endif
}

FLIPFAST_INLINE Vec splat(float x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (Vec)_mm256_set1_ps(x);
#else
  return Vec{x, x, x, x};
#endif
}

// a * b + c, rounded once if the CPU can.
FLIPFAST_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(FLIPFAST_NEON)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// a * b + c, rounded once on every CPU.
FLIPFAST_INLINE Vec fused(Vec a, Vec b, Vec c) {
#if defined(__FMA__) || defined(FLIPFAST_NEON)
  return fma(a, b, c);
#else
  // float64 holds the product exactly. A sum rounded to odd there is rounded to float32 as the
  // exact sum would be (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008).
  Vec result;
  for (int i = 0; i < kWidth; ++i) {
    const double product = static_cast<double>(a[i]) * b[i];
    double sum = product + c[i];
    const double part = sum - product;
    const double error = (product - (sum - part)) + (c[i] - part);
    int64_t word;
    __builtin_memcpy(&word, &sum, sizeof(word));
    const bool inexact = error > 0 || error < 0;  // infinities have a NaN here
    if (inexact && word % 2 == 0) word += (error > 0) == (sum > 0) ? 1 : -1;
    __builtin_memcpy(&sum, &word, sizeof(sum));
    result[i] = static_cast<float>(sum);
  }
  return result;
#endif
}

// The larger one; b where either is NaN, as on x86.
FLIPFAST_INLINE Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

FLIPFAST_INLINE Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

// Sum of the lanes, folding halves onto each other: the same order for every caller.
FLIPFAST_INLINE float sum(Vec v) {
  float lanes[kWidth];
  store(lanes, v);
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// The largest lane; no lane may be NaN.
FLIPFAST_INLINE float largest(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float best = v[0];
  for (int i = 1; i < kWidth; ++i) best = v[i] > best ? v[i] : best;
  return best;
#endif
}

// The bfloat16 in the lower and in the upper half of each word, widened exactly.
FLIPFAST_INLINE Vec lower_half(Words w) { return (Vec)(w << 16); }
FLIPFAST_INLINE Vec upper_half(Words w) { return (Vec)(w & 0xffff0000u); }

FLIPFAST_INLINE float widen(uint16_t half) {
  const uint32_t word = static_cast<uint32_t>(half) << 16;
  float x;
  __builtin_memcpy(&x, &word, 4);
  return x;
}

// The words of x rounded to bfloat16, ties to even; NaN stays NaN.
FLIPFAST_INLINE Words rounded_words(Vec x) {
  const Words word = (Words)x;
  const Words even = word + 0x7fffu + ((word >> 16) & 1u);
  const Words quiet = word | 0x00400000u;
  const Words not_a_number = (Words)(x != x);
  return ((even & ~not_a_number) | (quiet & not_a_number)) & 0xffff0000u;
}

FLIPFAST_INLINE Vec round_to_bfloat16(Vec x) { return (Vec)rounded_words(x); }

FLIPFAST_INLINE int least(int a, int b) { return a < b ? a : b; }
FLIPFAST_INLINE int most(int a, int b) { return a > b ? a : b; }

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
