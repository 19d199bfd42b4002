// Products of float32 and bfloat16 weights at every level of instructions, against float64.

#include "check.h"
#include "cpu/linear.h"
#include "cpu/pool.h"
#include "products.h"

namespace flipfast::test {
namespace {

using cpu::Compute;
using cpu::PackedLinear;
using cpu::Storage;

constexpr int kMostRows = 70;

struct Shape {
  int n_out, n_in;
};

// The last two reach over several panels, and over several parts of a panel's depth.
constexpr Shape kShapes[] = {{1, 1}, {5, 3}, {33, 31}, {32, 64}, {70, 129}, {131, 257}, {40, 801}};

struct Kind {
  Storage storage;
  Compute compute;
  const char* name;
};

constexpr Kind kKinds[] = {
    {Storage::kFloat32, Compute::kFloat32, "float32"},
    {Storage::kBfloat16, Compute::kFloat32, "bfloat16 weights"},
    {Storage::kBfloat16, Compute::kBfloat16, "bfloat16"},
};

void check_values(const Shape& shape, const std::vector<float>& x, const std::vector<float>& weight,
                  const std::vector<float>& bias, const std::vector<float>& y) {
  for (int r = 0; r < kMostRows; ++r) {
    for (int n = 0; n < shape.n_out; ++n) {
      double expected = bias[n];
      double size = std::fabs(expected);
      for (int k = 0; k < shape.n_in; ++k) {
        const double term = static_cast<double>(x[r * shape.n_in + k]) * weight[n * shape.n_in + k];
        expected += term;
        size += std::fabs(term);
      }
      // Each term is rounded and added to those before; matrix tiles take the least numbers for 0.
      const double bound = gamma(shape.n_in + 1) * size + (shape.n_in + 1) * FLT_MIN;
      CHECK(within(y[r * (shape.n_out + 1) + n], expected, bound));
    }
  }
}

void check_product(const Shape& shape, const Kind& kind) {
  const auto [n_out, n_in] = shape;
  std::vector<float> weight = numbers(n_out * n_in, 1);
  std::vector<float> x = numbers(kMostRows * n_in, 2);
  const std::vector<float> bias = numbers(n_out, 3);
  PackedLinear linear(n_out, n_in, kind.storage, kind.compute, true);
  linear.load_rows(weight.data(), Storage::kFloat32, n_in, 0, n_out);
  linear.load_bias(bias.data(), 0, n_out);

  std::vector<float> alone;
  for (int r = 0; r < kMostRows; ++r) {
    const std::vector<float> row = run(linear, &x[r * n_in], 1);
    alone.insert(alone.end(), row.begin(), row.end());
  }
  for (int rows = 1; rows <= kMostRows; ++rows) {
    const int rest = kMostRows - rows;
    CHECK(same_rows(run(linear, x.data(), rows), alone.data(), rows, n_out));
    CHECK(same_rows(run(linear, &x[rest * n_in], rows), &alone[rest * (n_out + 1)], rows, n_out));
  }
  if (kind.storage == Storage::kBfloat16) weight = rounded(std::move(weight));
  if (kind.compute == Compute::kBfloat16) x = rounded(std::move(x));
  check_values(shape, x, weight, bias, alone);
}

// More rows than one task takes.
void check_many_rows() {
  constexpr int kInputs = 33, kOutputs = 40, kRepeats = 12;
  const std::vector<float> weight = numbers(kOutputs * kInputs, 1);
  const std::vector<float> x = numbers(kMostRows * kInputs, 2);
  PackedLinear linear(kOutputs, kInputs, Storage::kFloat32, Compute::kFloat32, false);
  linear.load_rows(weight.data(), Storage::kFloat32, kInputs, 0, kOutputs);
  const std::vector<float> once = run(linear, x.data(), kMostRows);
  std::vector<float> many;
  for (int i = 0; i < kRepeats; ++i) many.insert(many.end(), x.begin(), x.end());
  const std::vector<float> y = run(linear, many.data(), kRepeats * kMostRows);
  for (int i = 0; i < kRepeats; ++i) {
    const size_t start = i * once.size();
    CHECK(same_rows(once, &y[start], kMostRows, kOutputs));
  }
}

}  // namespace
}  // namespace flipfast::test

int main() {
  using namespace flipfast::test;
  flipfast::cpu::set_threads(2);
  each_level([](const flipfast::cpu::Kernels& level) {
    for (const Kind& kind : kKinds) {
      for (const Shape& shape : kShapes) {
        subject = std::string(level.name) + ", " + kind.name + ", " + std::to_string(shape.n_out) +
                  " by " + std::to_string(shape.n_in);
        check_product(shape, kind);
      }
    }
    subject = std::string(level.name) + ", many rows";
    check_many_rows();
  });
  return report();
}
