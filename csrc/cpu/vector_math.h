// Vector exp and tanh with a relative error below 1e-6 (exp: about 1e-7).
#pragma once

#include "cpu/simd.h"

namespace flipfast::cpu::FLIPFAST_LEVEL {
namespace {

constexpr float kInfinity = __builtin_inff();

// 2**n * (Taylor sum of e**r up to r**7), with r = x - n * ln 2 in two parts, |r| <= ln(2) / 2. The
// power is applied in two steps, so that overflow gives infinity and underflow gives 0.
FLIPFAST_INLINE Vec exp(Vec x) {
  x = min(splat(100.0f), max(splat(-104.0f), x));
  const Vec magic = splat(12582912.0f);  // 1.5 * 2**23: adding it rounds to an integer
  const Vec shifted = fma(x, splat(1.44269504088896341f), magic);
  const Vec n = shifted - magic;
  Vec r = fma(n, splat(-0.693145751953125f), x);
  r = fma(n, splat(-1.42860682030941723e-6f), r);
  Vec sum = splat(1.0f / 5040.0f);
  sum = fma(sum, r, splat(1.0f / 720.0f));
  sum = fma(sum, r, splat(1.0f / 120.0f));
  sum = fma(sum, r, splat(1.0f / 24.0f));
  sum = fma(sum, r, splat(1.0f / 6.0f));
  sum = fma(sum, r, splat(0.5f));
  sum = fma(sum, r, splat(1.0f));
  sum = fma(sum, r, splat(1.0f));
  const Ints power = (Ints)shifted - 0x4b400000;
  const Ints first = power >> 1;
  const Vec scale_1 = (Vec)((first + 127) << 23);
  const Vec scale_2 = (Vec)((power - first + 127) << 23);
  return sum * scale_1 * scale_2;
}

// Near 0 an odd polynomial (Chebyshev fit of tanh(x) / x in x**2 on |x| <= 0.6), else from exp.
FLIPFAST_INLINE Vec tanh(Vec x) {
  const Vec square = x * x;
  Vec near = splat(-6.27639e-3f);
  near = fma(near, square, splat(2.111622e-2f));
  near = fma(near, square, splat(-5.387514e-2f));
  near = fma(near, square, splat(0.13332924f));
  near = fma(near, square, splat(-0.3333333f));
  near = fma(near * square, x, x);
  const Vec far = splat(1.0f) - splat(2.0f) / (exp(x + x) + splat(1.0f));
  const Vec magnitude = max(x, -x);
  return magnitude < splat(0.6f) ? near : far;
}

FLIPFAST_INLINE Vec silu(Vec x) { return x / (splat(1.0f) + exp(-x)); }

// 0.5 x (1 + tanh(u)) = x / (1 + e**(-2u)), u = sqrt(2 / pi) (x + 0.044715 x**3).
FLIPFAST_INLINE Vec gelu_tanh(Vec x) {
  const Vec inner = fma(x * x * x, splat(0.044715f), x);
  return x / (splat(1.0f) + exp(inner * splat(-1.5957691216057308f)));
}

}  // namespace
}  // namespace flipfast::cpu::FLIPFAST_LEVEL
