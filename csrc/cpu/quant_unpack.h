// Blocks of a panel, unpacked: weights in bytes, scales in float32.
#pragma once

#include "cpu/float16.h"
#include "cpu/quant_panels.h"
#include "cpu/simd.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

// One block of 32 outputs. With the sum over the block, an output's value is scale * sum(weight *
// q) and, by the kind, + extra * sum(q), or `scale` is for the first half and `extra` for the
// second.
struct Unpacked {
  alignas(64) Group weights[kGroups];
  float scale[kPanel];
  float extra[kPanel];
};

constexpr int kUnpacked = kSuper;  // blocks that are unpacked at once: 10 KB

typedef uint8_t Bytes __attribute__((vector_size(kWidth * 4)));
typedef uint8_t FewBytes __attribute__((vector_size(kWidth)));
typedef int8_t FewSigned __attribute__((vector_size(kWidth)));

FLIPFAST_INLINE Words load_group(const uint8_t (*columns)[4]) {
  Words v;
  __builtin_memcpy(&v, columns, sizeof(v));
  return v;
}

FLIPFAST_INLINE Vec widen_halves(const uint16_t* p) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(FLIPFAST_NEON)
  return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
  Vec v;
  for (int i = 0; i < kWidth; ++i) v[i] = from_float16(p[i]);
  return v;
#endif
}

FLIPFAST_INLINE Vec widen_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
#else
  FewBytes v;
  __builtin_memcpy(&v, p, sizeof(v));
  return __builtin_convertvector(__builtin_convertvector(v, Ints), Vec);
#endif
}

FLIPFAST_INLINE Vec widen_bytes(const int8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#else
  FewSigned v;
  __builtin_memcpy(&v, p, sizeof(v));
  return __builtin_convertvector(__builtin_convertvector(v, Ints), Vec);
#endif
}

// Calls body(c) for the first column of each vector of a panel.
template <class Body>
FLIPFAST_INLINE void each_column(const Body& body) {
  FLIPFAST_UNROLL for (int c = 0; c < kPanel; c += kWidth) body(c);
}

// `kOffset` is taken off again where weights shall have their sign.
template <bool kSigned, int kOffset>
FLIPFAST_INLINE void put(Unpacked& to, int group, int c, Words weights) {
  if constexpr (kSigned) weights = (Words)((Bytes)weights - static_cast<uint8_t>(kOffset));
  __builtin_memcpy(to.weights[group] + c, &weights, sizeof(weights));
}

template <bool kSigned, int kOffset>
FLIPFAST_INLINE void put_nibbles(const Nibbles& from, int c, Unpacked& to) {
  FLIPFAST_UNROLL for (int i = 0; i < kGroups / 2; ++i) {
    const Words pair = load_group(from.pairs[i] + c);
    put<kSigned, kOffset>(to, 2 * i, c, pair & 0x0f0f0f0fu);
    put<kSigned, kOffset>(to, 2 * i + 1, c, (pair >> 4) & 0x0f0f0f0fu);
  }
}

template <bool kSigned>
FLIPFAST_INLINE void unpack(const PanelQ4_0& from, Unpacked* to) {
  each_column([&](int c) {
    store(to->scale + c, widen_halves(from.d + c));
    put_nibbles<kSigned, 8>(from.nibbles, c, *to);
  });
}

template <bool kSigned>
FLIPFAST_INLINE void unpack(const PanelQ4_1& from, Unpacked* to) {
  each_column([&](int c) {
    store(to->scale + c, widen_halves(from.d + c));
    store(to->extra + c, widen_halves(from.m + c));
    put_nibbles<false, 0>(from.nibbles, c, *to);
  });
}

template <bool kSigned>
FLIPFAST_INLINE void unpack(const PanelQ8_0& from, Unpacked* to) {
  each_column([&](int c) {
    store(to->scale + c, widen_halves(from.d + c));
    FLIPFAST_UNROLL for (int i = 0; i < kGroups; ++i) {
      const Words bytes = load_group(from.bytes[i] + c);
      put<false, 0>(*to, i, c, kSigned ? bytes : bytes ^ 0x80808080u);
    }
  });
}

template <bool kSigned>
FLIPFAST_INLINE void unpack(const PanelQ4_K& from, Unpacked* to) {
  each_column([&](int c) {
    const Vec d = widen_halves(from.d + c);
    const Vec dmin = widen_halves(from.dmin + c);
    for (int i = 0; i < kSuper; ++i) {
      const PanelQ4_K::Block& block = from.blocks[i];
      store(to[i].scale + c, d * widen_bytes(block.scale + c));
      store(to[i].extra + c, -(dmin * widen_bytes(block.min + c)));
      put_nibbles<false, 0>(block.nibbles, c, to[i]);
    }
  });
}

template <bool kSigned>
FLIPFAST_INLINE void unpack(const PanelQ6_K& from, Unpacked* to) {
  each_column([&](int c) {
    const Vec d = widen_halves(from.d + c);
    for (int i = 0; i < kSuper; ++i) {
      const PanelQ6_K::Block& block = from.blocks[i];
      store(to[i].scale + c, d * widen_bytes(block.scale[0] + c));
      store(to[i].extra + c, d * widen_bytes(block.scale[1] + c));
      FLIPFAST_UNROLL for (int pair = 0; pair < kGroups / 2; ++pair) {
        const Words lower = load_group(block.nibbles.pairs[pair] + c);
        const Words upper = load_group(block.upper[pair / 2] + c) >> (pair % 2 * 4);
        put<kSigned, 32>(to[i], 2 * pair, c, (lower & 0x0f0f0f0fu) | (upper << 4 & 0x30303030u));
        put<kSigned, 32>(to[i], 2 * pair + 1, c,
                         (lower >> 4 & 0x0f0f0f0fu) | (upper << 2 & 0x30303030u));
      }
    }
  });
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
