// What the tests of the CPU kernels share: operands, and what rounding may do to a result.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpu/levels.h"

namespace flipfast::test {

constexpr double kUnit = 0x1p-24;  // the most that a float32 is rounded by, relative to it

// Relative error of the functions in vector_math.h, as its first line has it.
constexpr double kFunctionError = 1e-6;

// What n roundings one after the other add up to at most, relative to the sum of the sizes of what
// is added (Higham, Accuracy and Stability of Numerical Algorithms, 2002, lemma 3.1). A sum of n
// numbers has n - 1 of them at most, in whatever order it is taken.
inline double gamma(int n) { return n * kUnit / (1 - n * kUnit); }

inline std::vector<float> numbers(size_t n, unsigned seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> out(n);
  for (float& x : out) x = normal(generator);
  return out;
}

// To the 8 bits of a bfloat16, ties to even.
inline float rounded(float x) {
  int exponent;
  const double fraction = std::frexp(static_cast<double>(x), &exponent);
  return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8));
}

inline std::vector<float> rounded(std::vector<float> values) {
  for (float& x : values) x = rounded(x);
  return values;
}

// Whether the result is no farther from the expected value than the bound; a NaN is.
inline bool within(double result, double expected, double bound) {
  return std::fabs(result - expected) <= bound;
}

inline bool same_bits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}

inline bool is_amx(const cpu::Kernels& level) { return std::strcmp(level.name, "amx") == 0; }

// Calls body(level) with each level of this CPU in use.
template <class Body>
void each_level(const Body& body) {
  for (const cpu::Kernels* const* level = cpu::levels(); *level != nullptr; ++level) {
    cpu::use(**level);
    body(**level);
  }
}

}  // namespace flipfast::test
