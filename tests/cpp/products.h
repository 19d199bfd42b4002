// What the tests of matrix products share.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "numbers.h"

namespace flipfast::test {

// Rows of n_out + 1 numbers, the last of which nothing may write to.
template <class Linear>
std::vector<float> run(const Linear& linear, const float* x, int rows) {
  const size_t stride = static_cast<size_t>(linear.n_out()) + 1;
  std::vector<float> y(rows * stride, std::numeric_limits<float>::quiet_NaN());
  linear.forward(x, linear.n_in(), rows, y.data(), stride);
  for (int r = 0; r < rows; ++r) CHECK(std::isnan(y[(r + 1) * stride - 1]));
  return y;
}

// Whether the rows that `run` gave are those expected, which are laid out the same way.
inline bool same_rows(const std::vector<float>& y, const float* expected, int rows, int n_out) {
  for (int r = 0; r < rows; ++r) {
    const size_t start = static_cast<size_t>(r) * (n_out + 1);
    if (!same_bits(&y[start], expected + start, n_out)) return false;
  }
  return true;
}

}  // namespace flipfast::test
