// Products of quantised weights: against float64, and the same bits at every level of instructions.
#include <algorithm>
#include <limits>

#include "check.h"
#include "cpu/pool.h"
#include "cpu/quantized.h"
#include "products.h"

namespace flipfast::test {
namespace {

using cpu::Format;
using cpu::Kind;
using cpu::QuantizedLinear;

constexpr int kMostRows = 70;
constexpr int kBlock = cpu::kQuantBlock;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr Kind kKinds[] = {Kind::kQ4_0, Kind::kQ4_1, Kind::kQ8_0, Kind::kQ4_K, Kind::kQ6_K};

struct Shape {
  int n_out, n_in;
};

// Parts of a panel, whole ones and several; less than is unpacked at once, as much, and more.
constexpr Shape kShapes[] = {{1, 32}, {5, 64}, {33, 256}, {32, 288}, {70, 512}, {131, 768}};

// float16 for scales: 1, -1.5, about 0.01, the largest, the least, the least normal one, 0.
constexpr uint16_t kScales[] = {0x3c00, 0xbe00, 0x2123, 0x7bff, 0x0001, 0x8400, 0x0000};

// What a weight's bytes are: a weight has the greatest and least of its kind in all places of
// these.
enum class Fill { kRandom, kZeros, kOnes, kLeastBytes };

// Where a kind has its scales.
std::vector<size_t> scale_places(Kind kind) {
  if (kind == Kind::kQ4_1 || kind == Kind::kQ4_K) return {0, 2};
  if (kind == Kind::kQ6_K) return {208};
  return {0};
}

std::vector<uint8_t> weight_bytes(const Format& format, int n_blocks, Fill fill, int n_scales) {
  std::mt19937 generator(5);
  std::vector<uint8_t> bytes(n_blocks * format.bytes);
  for (uint8_t& byte : bytes) {
    byte = fill == Fill::kRandom  ? static_cast<uint8_t>(generator())
           : fill == Fill::kZeros ? 0
           : fill == Fill::kOnes  ? 0xff
                                  : 0x80;
  }
  for (int i = 0; i < n_blocks; ++i) {
    for (const size_t place : scale_places(format.kind)) {
      const uint16_t scale = kScales[generator() % n_scales];
      std::memcpy(&bytes[i * format.bytes + place], &scale, sizeof(scale));
    }
  }
  return bytes;
}

// Rows of all sizes: numbers of one block that differ much, blocks that do, zeros, the least ones.
std::vector<float> inputs(int n_in) {
  std::vector<float> x = numbers(kMostRows * n_in, 2);
  for (int row = 0; row < kMostRows; ++row) {
    for (int k = 0; k < n_in; ++k) {
      float& value = x[row * n_in + k];
      if (row % 7 == 1) value = std::ldexp(value, 5 * (k / kBlock) - 40);
      if (row % 7 == 2) value = value < 0 ? -3.0f : 3.0f;
      if (row % 7 == 3) value = 3.0f;
      if (row % 7 == 4 && k / kBlock % 2 == 0) value = 0.0f;
      if (row % 7 == 5) value = k % 5 == 0 ? 1e-45f : 0.0f;
    }
  }
  return x;
}

QuantizedLinear load(const Shape& shape, const Format& format, const std::vector<uint8_t>& bytes,
                     const std::vector<float>& bias) {
  QuantizedLinear linear(shape.n_out, shape.n_in, true);
  const ptrdiff_t row_bytes = shape.n_in / format.numbers * format.bytes;
  linear.load_rows(bytes.data(), row_bytes, format, 0, shape.n_out);
  linear.load_bias(bias.data(), 0, shape.n_out);
  return linear;
}

std::vector<float> alone(const QuantizedLinear& linear, const std::vector<float>& x) {
  std::vector<float> all;
  for (int r = 0; r < kMostRows; ++r) {
    const std::vector<float> row = run(linear, &x[r * linear.n_in()], 1);
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

std::vector<float> dequantized(const QuantizedLinear& linear) {
  std::vector<int64_t> ids(linear.n_out());
  for (int i = 0; i < linear.n_out(); ++i) ids[i] = i;
  std::vector<float> weight(ids.size() * linear.n_in());
  linear.embed(ids.data(), linear.n_out(), 1.0f, weight.data(), linear.n_in());
  return weight;
}

// As the product takes its operand: in blocks, rounded to multiples of a scale.
std::vector<double> quantized(const float* x, int n) {
  std::vector<double> out(n);
  for (int begin = 0; begin < n; begin += kBlock) {
    float most = 0;
    for (int k = 0; k < kBlock; ++k) most = std::max(most, std::fabs(x[begin + k]));
    if (most < 0x1p-119f) continue;
    for (int k = 0; k < kBlock; ++k) {
      const float q = std::nearbyint(x[begin + k] * (127.0f / most));
      out[begin + k] = static_cast<double>(q) * (most / 127.0f);
    }
  }
  return out;
}

// The sizes of what a product adds up: a weight's part with a scale, and its minimum.
std::vector<double> sizes(const Shape& shape, const Format& format,
                          const std::vector<uint8_t>& bytes) {
  std::vector<double> out(shape.n_out * shape.n_in);
  const std::vector<size_t> places = scale_places(format.kind);
  for (const size_t kept : places) {
    std::vector<uint8_t> one = bytes;
    for (size_t block = 0; block < one.size(); block += format.bytes) {
      for (const size_t place : places) {
        if (place != kept) std::memset(&one[block + place], 0, 2);
      }
    }
    const std::vector<float> part = dequantized(load(shape, format, one, numbers(shape.n_out, 3)));
    for (size_t i = 0; i < out.size(); ++i) out[i] += std::fabs(part[i]);
  }
  return out;
}

void check_values(const QuantizedLinear& linear, const std::vector<double>& sizes,
                  const std::vector<float>& x, const std::vector<float>& bias,
                  const std::vector<float>& y) {
  const int n_in = linear.n_in();
  const std::vector<float> weight = dequantized(linear);
  for (int r = 0; r < kMostRows; ++r) {
    const std::vector<double> row = quantized(&x[r * n_in], n_in);
    for (int n = 0; n < linear.n_out(); ++n) {
      double expected = bias[n];
      double size = std::fabs(expected);
      for (int k = 0; k < n_in; ++k) {
        expected += row[k] * weight[n * n_in + k];
        size += std::fabs(row[k]) * sizes[n * n_in + k];
      }
      // Two multiply-adds for each block; before that two scales, or halves, at most are rounded.
      const double bound = gamma(2 * n_in / kBlock + 5) * size + n_in * FLT_MIN;
      CHECK(within(y[r * (linear.n_out() + 1) + n], expected, bound));
    }
  }
}

void check_batches(const QuantizedLinear& linear, const std::vector<float>& x,
                   const std::vector<float>& expected) {
  for (int rows = 1; rows <= kMostRows; rows += rows < 34 ? 1 : 12) {
    const int rest = kMostRows - rows;
    const int n_out = linear.n_out();
    CHECK(same_rows(run(linear, x.data(), rows), expected.data(), rows, n_out));
    CHECK(same_rows(run(linear, &x[rest * linear.n_in()], rows), &expected[rest * (n_out + 1)],
                    rows, n_out));
  }
}

const cpu::Kernels& generic() {
  const cpu::Kernels* const* level = cpu::levels();
  while (level[1] != nullptr) ++level;
  return **level;
}

template <class Body>
void each_case(const Body& body) {
  for (const Kind kind : kKinds) {
    const Format& format = cpu::format(kind);
    for (const Shape& shape : kShapes) {
      if (shape.n_in % format.numbers == 0) body(format, shape);
    }
  }
}

void check_product(const Format& format, const Shape& shape, Fill fill) {
  const auto [n_out, n_in] = shape;
  // Scales of 1 and thereabouts where values are checked: the extreme ones hide everything else.
  const int n_blocks = n_out * n_in / format.numbers;
  const std::vector<uint8_t> plain = weight_bytes(format, n_blocks, fill, 3);
  const std::vector<uint8_t> extreme = weight_bytes(format, n_blocks, fill, std::size(kScales));
  const std::vector<float> bias = numbers(n_out, 3);
  const std::vector<float> x = inputs(n_in);
  const std::string name = std::string(format.name) + ", " + std::to_string(n_out) + " by " +
                           std::to_string(n_in) + ", fill " +
                           std::to_string(static_cast<int>(fill));
  cpu::use(generic());
  subject = name;
  const QuantizedLinear twin = load(shape, format, plain, bias);
  const std::vector<float> expected = alone(twin, x);
  const std::vector<float> expected_extreme = alone(load(shape, format, extreme, bias), x);
  check_values(twin, sizes(shape, format, plain), x, bias, expected);
  each_level([&](const cpu::Kernels& level) {
    subject = std::string(level.name) + ", " + name;
    const QuantizedLinear linear = load(shape, format, plain, bias);
    CHECK(same_rows(alone(linear, x), expected.data(), kMostRows, n_out));
    if (fill == Fill::kRandom) check_batches(linear, x, expected);
    const QuantizedLinear other = load(shape, format, extreme, bias);
    CHECK(same_rows(run(other, x.data(), kMostRows), expected_extreme.data(), kMostRows, n_out));
  });
}

// Parts of several kinds, some rows never loaded, one part loaded twice.
void check_parts() {
  constexpr int kInputs = 512;
  constexpr int kStarts[] = {0, 40, 100, 137, 200, 233};  // the last part is not loaded
  const std::vector<float> x = inputs(kInputs);
  const std::vector<float> bias = numbers(250, 3);
  QuantizedLinear whole(250, kInputs, true);
  whole.load_bias(bias.data(), 0, 250);
  const std::vector<float> empty = run(whole, x.data(), 1);
  CHECK(same_bits(empty.data(), bias.data(), 250));
  const auto load_part = [&](int part, Fill fill) {
    const Format& format = cpu::format(kKinds[part]);
    const int n_rows = kStarts[part + 1] - kStarts[part];
    const std::vector<uint8_t> bytes =
        weight_bytes(format, n_rows * kInputs / format.numbers, fill, 3);
    whole.load_rows(bytes.data(), kInputs / format.numbers * format.bytes, format, kStarts[part],
                    n_rows);
    const std::vector<float> own(&bias[kStarts[part]], &bias[kStarts[part]] + n_rows);
    return run(load({n_rows, kInputs}, format, bytes, own), x.data(), kMostRows);
  };
  load_part(3, Fill::kZeros);
  const size_t bytes = whole.nbytes();
  std::vector<float> parts[5];
  for (const int part : {4, 3, 0, 2, 1}) parts[part] = load_part(part, Fill::kRandom);
  CHECK(whole.nbytes() > bytes);
  const std::vector<float> y = run(whole, x.data(), kMostRows);
  for (int r = 0; r < kMostRows; ++r) {
    for (int part = 0; part < 5; ++part) {
      const int n_rows = kStarts[part + 1] - kStarts[part];
      CHECK(same_bits(&y[r * 251 + kStarts[part]], &parts[part][r * (n_rows + 1)], n_rows));
    }
    CHECK(same_bits(&y[r * 251 + 233], &bias[233], 250 - 233));
  }
}

// A number that is none makes its row NaN, and leaves the rows beside it alone.
void check_broken_rows() {
  constexpr Shape kShape = {40, 64};
  const Format& format = cpu::format(Kind::kQ8_0);
  const std::vector<float> bias = numbers(40, 3);
  const QuantizedLinear linear =
      load(kShape, format, weight_bytes(format, 80, Fill::kRandom, 3), bias);
  std::vector<float> x = inputs(64);
  const std::vector<float> before = run(linear, x.data(), kMostRows);
  x[0] = kNan;
  x[21 * 64 + 63] = -std::numeric_limits<float>::infinity();
  const std::vector<float> after = run(linear, x.data(), kMostRows);
  for (int r = 0; r < kMostRows; ++r) {
    const bool broken = r == 0 || r == 21;
    for (int n = 0; n < 40 && broken; ++n) CHECK(std::isnan(after[r * 41 + n]));
    CHECK(broken || same_bits(&after[r * 41], &before[r * 41], 40));
  }
}

// More rows than one task takes.
void check_many_rows() {
  constexpr int kRepeats = 12;
  constexpr Shape kShape = {40, 64};
  const Format& format = cpu::format(Kind::kQ4_0);
  const std::vector<float> x = inputs(64);
  const QuantizedLinear linear =
      load(kShape, format, weight_bytes(format, 80, Fill::kRandom, 3), numbers(40, 3));
  const std::vector<float> once = run(linear, x.data(), kMostRows);
  std::vector<float> many;
  for (int i = 0; i < kRepeats; ++i) many.insert(many.end(), x.begin(), x.end());
  const std::vector<float> y = run(linear, many.data(), kRepeats * kMostRows);
  for (int i = 0; i < kRepeats; ++i) CHECK(same_rows(once, &y[i * once.size()], kMostRows, 40));
}

}  // namespace
}  // namespace flipfast::test

int main() {
  using namespace flipfast::test;
  flipfast::cpu::set_threads(2);
  each_case([](const Format& format, const Shape& shape) {
    for (const Fill fill : {Fill::kRandom, Fill::kZeros, Fill::kOnes, Fill::kLeastBytes}) {
      check_product(format, shape, fill);
    }
  });
  each_level([](const flipfast::cpu::Kernels& level) {
    subject = std::string(level.name) + ", parts";
    check_parts();
    subject = std::string(level.name) + ", broken rows";
    check_broken_rows();
    subject = std::string(level.name) + ", many rows";
    check_many_rows();
  });
  return report();
}
