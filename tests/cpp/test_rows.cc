// Operations on rows at every level of instructions, against float64.
#include <limits>

#include "check.h"
#include "cpu/bfloat16.h"
#include "numbers.h"

namespace flipfast::test {
namespace {

using cpu::Kernels;

constexpr int kRows = 5;
constexpr float kEps = 1e-6f;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// 1 / sqrt(mean of squares + eps) in float64. Its relative error is half that of the sum of squares
// and of the eps that is added, and one for each of the division, the root and the inverse.
double inverse_rms(const float* x, int d) {
  double total = 0;
  for (int i = 0; i < d; ++i) total += static_cast<double>(x[i]) * x[i];
  return 1 / std::sqrt(total / d + static_cast<double>(kEps));
}

double norm_error(int d) { return gamma(d + 5); }

void check_norm(const Kernels& level, int d) {
  std::vector<float> x = numbers(kRows * d, 1), residual = numbers(kRows * d, 2);
  const std::vector<float> weight = numbers(d, 3);
  std::vector<float> total(kRows * d), added = residual, out(kRows * d, kNan), again = out;
  for (size_t i = 0; i < total.size(); ++i) total[i] = residual[i] + x[i];
  level.rows.add({x.data(), d, added.data(), d, d}, 0, kRows);
  CHECK(same_bits(added.data(), total.data(), total.size()));
  level.rows.rms_norm({x.data(), d, residual.data(), d, weight.data(), kEps, d, out.data(), d}, 0,
                      kRows);
  CHECK(same_bits(residual.data(), total.data(), total.size()));
  level.rows.rms_norm({total.data(), d, nullptr, 0, weight.data(), kEps, d, again.data(), d}, 0,
                      kRows);
  CHECK(same_bits(again.data(), out.data(), out.size()));
  for (int i = 0; i < kRows * d; ++i) {
    const double expected = total[i] * inverse_rms(&total[i / d * d], d) * weight[i % d];
    CHECK(within(out[i], expected, norm_error(d) * std::fabs(expected) + FLT_MIN));
  }
}

struct Heads {
  int heads, head_dim, rotary;
  bool all;
};

void check_norm_rope(const Kernels& level, const Heads& h) {
  const int d = h.heads * h.head_dim, half = h.rotary / 2;
  const std::vector<float> x = numbers(kRows * d, 1), weight = numbers(d, 2);
  const std::vector<float> cos = numbers(8 * half, 3), sin = numbers(8 * half, 4);
  const std::vector<int64_t> positions = {3, 0, 7, 7, 1};
  std::vector<float> out = x;
  cpu::RopeArgs args = {};
  args.x = out.data();
  args.token_stride = d;
  args.head_stride = h.head_dim;
  args.heads = h.heads;
  args.head_dim = h.head_dim;
  args.positions = positions.data();
  args.cos = cos.data();
  args.sin = sin.data();
  args.table_stride = half;
  args.rotary_half = half;
  args.weight = weight.data();
  args.norm_all_heads = h.all;
  args.eps = kEps;
  level.rows.norm_rope(args, 0, kRows);
  for (int row = 0; row < kRows; ++row) {
    for (int head = 0; head < h.heads; ++head) {
      const int start = row * d + head * h.head_dim;
      const double factor =
          h.all ? inverse_rms(&x[row * d], d) : inverse_rms(&x[start], h.head_dim);
      const auto normal = [&](int i) {
        return x[start + i] * factor * weight[i + (h.all ? head * h.head_dim : 0)];
      };
      for (int i = 0; i < h.head_dim; ++i) {
        double expected = normal(i), size = std::fabs(expected);
        if (i < 2 * half) {
          const double c = cos[positions[row] * half + i % half];
          const double s = sin[positions[row] * half + i % half];
          const double turned = normal(i < half ? i + half : i - half) * (i < half ? -s : s);
          expected = expected * c + turned;
          size = std::fabs(normal(i) * c) + std::fabs(turned);
        }
        CHECK(within(out[start + i], expected, (norm_error(d) + gamma(3)) * size + FLT_MIN));
      }
    }
  }
}

void check_gated(const Kernels& level, int d) {
  const std::vector<float> x = numbers(kRows * 2 * d, 1, 2.0f);
  for (const cpu::Activation activation : {cpu::Activation::kSilu, cpu::Activation::kGeluTanh}) {
    std::vector<float> out(kRows * d, kNan);
    level.rows.gated({x.data(), 2 * d, d, activation, out.data(), d}, 0, kRows);
    for (int i = 0; i < kRows * d; ++i) {
      const double gate = x[i / d * 2 * d + i % d], up = x[i / d * 2 * d + d + i % d];
      const double root = 0.79788456080286536;  // sqrt(2 / pi)
      const bool silu = activation == cpu::Activation::kSilu;
      const double power = silu ? -gate : -2 * root * (gate + 0.044715 * gate * gate * gate);
      const double expected = gate / (1 + std::exp(power)) * up;
      // An error of the exponent is one of its power; constants are rounded, too.
      const double error = kFunctionError + std::fabs(power) * gamma(8) + gamma(4);
      CHECK(within(out[i], expected, error * std::fabs(expected) + FLT_MIN));
    }
  }
}

void check_far_gates(const Kernels& level) {
  const float x[] = {-1e30f, -200.0f, -0.0f, 200.0f, 1e30f, kNan, 1, 1, 1, 1, 1, 1};
  float out[6];
  level.rows.gated({x, 12, 6, cpu::Activation::kSilu, out, 6}, 0, 1);
  CHECK(within(out[0], 0, FLT_MIN) && within(out[1], 0, FLT_MIN) && out[2] == 0);
  CHECK(out[3] == 200.0f && out[4] == 1e30f && std::isnan(out[5]));
}

void check_embed(const Kernels& level, int d) {
  const std::vector<float> table = rounded(numbers(9 * d, 1));
  std::vector<uint16_t> words;
  for (const float x : table) words.push_back(cpu::to_bfloat16(x));
  const std::vector<int64_t> ids = {8, 0, 3, 3, 5};
  std::vector<float> expected, out(kRows * d, kNan);
  for (const int64_t id : ids) {
    for (int i = 0; i < d; ++i) expected.push_back(table[id * d + i] * 0.3f);
  }
  level.rows.embed({ids.data(), table.data(), cpu::Storage::kFloat32, d, d, 0.3f, out.data(), d}, 0,
                   kRows);
  CHECK(same_bits(out.data(), expected.data(), out.size()));
  out.assign(out.size(), kNan);
  level.rows.embed({ids.data(), words.data(), cpu::Storage::kBfloat16, d, d, 0.3f, out.data(), d},
                   0, kRows);
  CHECK(same_bits(out.data(), expected.data(), out.size()));
}

int64_t argmax(const Kernels& level, const std::vector<float>& logits) {
  int64_t best = -2;
  level.rows.argmax({logits.data(), 0, static_cast<int>(logits.size()), &best}, 0, 1);
  return best;
}

void check_logits(const Kernels& level, int n) {
  for (const float scale : {0.1f, 3.0f, 30.0f}) {
    const std::vector<float> logits = numbers(n, n, scale);
    int64_t first = 0;
    for (int i = 0; i < n; ++i) first = logits[i] > logits[first] ? i : first;
    CHECK(argmax(level, logits) == first);
    const double top = logits[first];
    double rest = 0, range = 0;
    for (int i = 0; i < n; ++i) {
      if (i != first) rest += std::exp(logits[i] - top);
      range = std::max(range, top - logits[i]);
    }
    const double share = kFunctionError + range * kUnit + gamma(n);
    for (const int64_t target : {int64_t{0}, first, int64_t{n} - 1}) {
      const double expected = logits[target] - top - std::log1p(rest);
      float found = kNan;
      level.rows.log_prob({logits.data(), 0, n, &first, &target, &found}, 0, 1);
      CHECK(within(found, expected, share * std::log1p(rest) + kUnit * std::fabs(expected)));
    }
  }
}

void check_odd_logits(const Kernels& level) {
  for (const int n : {1, 3, 4, 5, 16, 33, 100}) {
    for (const int at : {0, n / 2, n - 1}) {
      std::vector<float> logits(n, -1.0f);
      logits[at] = 2.0f;
      CHECK(argmax(level, logits) == at);
      logits[n - 1] = 2.0f;  // the first of equals
      CHECK(argmax(level, logits) == at);
      logits[at] = kNan;
      CHECK(argmax(level, logits) == -1);
      logits[at] = kInfinity;
      CHECK(argmax(level, logits) == -1);
    }
    CHECK(argmax(level, std::vector<float>(n, -kInfinity)) == -1);
  }
}

}  // namespace
}  // namespace flipfast::test

int main() {
  using namespace flipfast::test;
  each_level([](const flipfast::cpu::Kernels& level) {
    for (const int d : {1, 3, 7, 8, 15, 64, 100, 1024}) {
      subject = std::string(level.name) + ", rows of " + std::to_string(d);
      check_norm(level, d);
      check_gated(level, d);
      check_embed(level, d);
    }
    for (const Heads& heads :
         {Heads{1, 16, 16, false}, {3, 64, 64, false}, {2, 80, 32, false}, {3, 80, 10, true}}) {
      subject = std::string(level.name) + ", heads of " + std::to_string(heads.head_dim);
      check_norm_rope(level, heads);
    }
    for (const int n : {1, 2, 16, 33, 1023, 1025, 5000}) {
      subject = std::string(level.name) + ", logits of " + std::to_string(n);
      check_logits(level, n);
    }
    subject = std::string(level.name) + ", odd numbers";
    check_far_gates(level);
    check_odd_logits(level);
  });
  return report();
}
