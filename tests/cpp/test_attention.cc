// Attention over pages at every level of instructions, against float64.
#include <algorithm>
#include <climits>

#include "check.h"
#include "cpu/attention_call.h"
#include "cpu/pool.h"
#include "numbers.h"

namespace flipfast::test {
namespace {

using cpu::kPanel;
using cpu::Storage;

struct Model {
  int heads, kv_heads, head_dim;
  Storage storage;
  int window;
  float softcap;

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
};

// One sequence: (token, head, head_dim). All numbers are bfloat16, so that every level and storage
// has the same operands.
struct Sequence {
  int length;
  std::vector<float> q, k, v;

  Sequence(const Model& m, int n)
      : length(n),
        q(rounded(numbers(n * m.heads * m.head_dim, n))),
        k(rounded(numbers(n * m.kv_heads * m.head_dim, n + 1))),
        v(rounded(numbers(n * m.kv_heads * m.head_dim, n + 2))) {}
};

// The outputs of the last tokens[i] tokens of each sequence, in one step. Pages hold NaN where
// nothing has been written, and are handed out from the last to the first.
std::vector<float> run(const Model& m, const std::vector<Sequence>& sequences,
                       const std::vector<int>& tokens) {
  const auto pages_of = [](int length) { return (length + kPanel - 1) / kPanel; };
  int width = 0, next_page = 0;
  for (const Sequence& s : sequences) {
    width = std::max(width, pages_of(s.length));
    next_page += pages_of(s.length);
  }
  cpu::Cache cache = {nullptr, nullptr, next_page, m.storage, m.kv_heads, m.head_dim};
  std::vector<float> keys(cache.page_bytes() / 4 * cache.n_pages, NAN);
  std::vector<float> values = keys;
  std::memset(keys.data(), 0xff, keys.size() * 4);
  std::memset(values.data(), 0xff, values.size() * 4);
  cache.keys = keys.data();
  cache.values = values.data();

  const int token_size = m.heads * m.head_dim, kv_size = m.kv_heads * m.head_dim;
  std::vector<float> query;
  std::vector<int32_t> starts = {0}, lengths, tables(sequences.size() * width, INT_MAX);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& s = sequences[i];
    int32_t* const table = &tables[i * width];
    for (int page = 0; page < pages_of(s.length); ++page) table[page] = --next_page;
    std::vector<int64_t> slots;
    for (int t = 0; t < s.length; ++t) slots.push_back(table[t / kPanel] * kPanel + t % kPanel);
    cpu::write_cache(
        {s.k.data(), kv_size, m.head_dim, s.v.data(), kv_size, m.head_dim, slots.data(), s.length},
        cache);
    query.insert(query.end(), s.q.end() - tokens[i] * token_size, s.q.end());
    starts.push_back(starts.back() + tokens[i]);
    lengths.push_back(s.length);
  }
  std::vector<float> out(query.size(), NAN);
  cpu::Step step = {};
  step.query = query.data();
  step.query_token_stride = token_size;
  step.query_head_stride = m.head_dim;
  step.tokens = starts.back();
  step.out = out.data();
  step.heads = m.heads;
  step.sequences = static_cast<int>(sequences.size());
  step.cu_seqlens_q = starts.data();
  step.seq_lens = lengths.data();
  step.block_tables = tables.data();
  step.block_table_stride = width;
  step.block_table_width = width;
  step.window = m.window;
  step.scale = m.scale();
  step.softcap = m.softcap;
  cpu::check(step, cache);
  cpu::attend(step, cache);
  return out;
}

// One query of one head against what it sees, and how far off the output may be.
//
// A score has an error of its own, `score_error` at most. A weight e**(score - top) gets that as a
// relative error, with those of the subtraction, of exp and, once a block, of rescaling. Errors of
// the weights by a share r move a weighted mean by 2 r of the mean size of what is weighted.
void check_query(const Model& m, const Sequence& s, int t, int head, bool rounds_weights,
                 const float* out) {
  const int kv_head = head / (m.heads / m.kv_heads), d = m.head_dim;
  const float* const q = &s.q[(t * m.heads + head) * d];
  const auto at = [&](const std::vector<float>& x, int key) {
    return &x[(key * m.kv_heads + kv_head) * d];
  };
  const int first = m.window > t ? 0 : t - m.window + 1;
  std::vector<double> weights;
  double top = -INFINITY, least = INFINITY, score_error = 0;
  for (int key = first; key <= t; ++key) {
    double score = 0, size = 0;
    for (int i = 0; i < d; ++i) {
      const double term = static_cast<double>(q[i]) * at(s.k, key)[i];
      score += term;
      size += std::fabs(term);
    }
    score *= m.scale();
    double error = gamma(d + 1) * size * m.scale() + kUnit * std::fabs(score);
    if (m.softcap > 0) {
      score = m.softcap * std::tanh(score / m.softcap);
      error += (kFunctionError + 2 * kUnit) * std::fabs(score);
    }
    score_error = std::max(score_error, error);
    top = std::max(top, score);
    least = std::min(least, score);
    weights.push_back(score);
  }
  double total = 0;
  for (double& w : weights) total += w = std::exp(w - top);
  const int seen = t - first + 1, blocks = t / cpu::kKeyBlock - first / cpu::kKeyBlock + 1;
  double share = 2 * score_error + (blocks + 1) * (kFunctionError + (top - least + 2) * kUnit);
  if (rounds_weights) share += 0x1p-9;
  const double bound = 2 * share + 2 * gamma(seen + blocks) + 2 * kUnit;
  for (int i = 0; i < d; ++i) {
    double expected = 0, size = 0;
    for (int key = first; key <= t; ++key) {
      const double term = weights[key - first] / total * at(s.v, key)[i];
      expected += term;
      size += std::fabs(term);
    }
    // The second part stands for products of two such errors.
    CHECK(within(out[i], expected, bound * size * (1 + 4 * bound)));
  }
}

void check_attention(const Model& m, bool rounds_weights) {
  std::vector<Sequence> sequences;
  std::vector<std::vector<float>> whole;
  const std::vector<int> lengths = {1, 31, 65, 150, 290};
  const int token_size = m.heads * m.head_dim;
  for (const int length : lengths) {
    const Sequence& s = sequences.emplace_back(m, length);
    whole.push_back(run(m, {s}, {length}));
    for (int t = 0; t < length; t += 1 + length / 40) {
      for (int head = 0; head < m.heads; ++head) {
        check_query(m, s, t, head, rounds_weights,
                    &whole.back()[t * token_size + head * m.head_dim]);
      }
    }
  }
  // The same bits beside others, and cut into steps.
  for (const std::vector<int>& tokens :
       {lengths, std::vector<int>{1, 1, 1, 1, 1}, std::vector<int>{1, 7, 40, 2, 129}}) {
    const std::vector<float> out = run(m, sequences, tokens);
    size_t at = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const size_t n = static_cast<size_t>(tokens[i]) * token_size;
      CHECK(same_bits(&out[at], &whole[i][whole[i].size() - n], n));
      at += n;
    }
  }
}

}  // namespace
}  // namespace flipfast::test

int main() {
  using namespace flipfast::test;
  flipfast::cpu::set_threads(2);
  std::vector<Model> models;
  for (const Storage storage : {Storage::kFloat32, Storage::kBfloat16}) {
    for (const int head_dim : {8, 16, 40, 64, 80, 128, 256}) {
      models.push_back({2, 1, head_dim, storage, INT_MAX, 0.0f});
    }
    models.push_back({3, 3, 32, storage, 1, 0.0f});
    models.push_back({7, 1, 32, storage, 33, 0.0f});
    models.push_back({6, 2, 32, storage, 150, 3.0f});
  }
  each_level([&](const flipfast::cpu::Kernels& level) {
    for (const Model& m : models) {
      const bool small = m.storage == Storage::kBfloat16;
      subject = std::string(level.name) + (small ? ", bfloat16" : ", float32") + ", heads of " +
                std::to_string(m.head_dim) + ", window " + std::to_string(m.window);
      check_attention(m, small && is_amx(level));
    }
  });
  return report();
}
