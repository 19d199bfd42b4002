// The words of texts, their hashes and the overlap of two texts: all as Python has them.
#include <string_view>

#include "check.h"
#include "metrics/overlap.h"
#include "text/normalize.h"
#include "text/word_hash.h"

namespace flipfast::test {
namespace {

struct TextCase {
  std::u32string_view text;
  std::vector<std::string_view> words;
  std::vector<int64_t> hashes;  // of the distinct words, in rising order
  std::vector<int32_t> copies;
};

struct PairCase {
  std::u32string_view prediction, reference;
  double f1, precision, recall;
};

using namespace std::string_view_literals;
#include "cases/texts.inc"

// A text as Python holds it: as narrow as its widest character allows.
class Held {
 public:
  explicit Held(std::u32string_view text) {
    char32_t widest = 0;
    for (const char32_t c : text) widest = c > widest ? c : widest;
    const auto hold = [&](auto* values) {
      values->assign(text.begin(), text.end());
      view_ = {values->data(), text.size(), static_cast<int>(sizeof((*values)[0])), widest < 0x80};
    };
    if (widest < 0x100) {
      hold(&narrow_);
    } else if (widest < 0x10000) {
      hold(&middle_);
    } else {
      hold(&wide_);
    }
  }
  const Text& view() const { return view_; }

 private:
  std::vector<uint8_t> narrow_;
  std::vector<uint16_t> middle_;
  std::vector<uint32_t> wide_;
  Text view_;
};

void check_texts() {
  Normalizer normalizer;  // one for all, as it keeps its memory from text to text
  for (const TextCase& c : kTexts) {
    subject = "text " + std::to_string(&c - kTexts);
    const Held text(c.text);
    std::vector<std::string_view> words;
    for (const Word& word : normalizer.run(text.view())) words.emplace_back(word.data, word.size);
    CHECK(words == c.words);
    const WordHashes found = word_hashes({text.view()});
    CHECK(found.hashes == c.hashes);
    CHECK(found.copies == c.copies);
    CHECK(found.n_words == std::vector{static_cast<int32_t>(c.words.size())});
  }
}

void check_pairs() {
  std::vector<Held> texts;
  for (const PairCase& c : kPairs) {
    texts.emplace_back(c.prediction);
    texts.emplace_back(c.reference);
  }
  std::vector<Pair> pairs;
  for (size_t i = 0; i < texts.size(); i += 2)
    pairs.push_back({texts[i].view(), texts[i + 1].view()});
  for (const size_t threads : {1, 2, 3}) {
    std::vector<Score> scores(pairs.size());
    overlap_f1(pairs, threads, scores.data());
    for (size_t i = 0; i < scores.size(); ++i) {
      subject = "pair " + std::to_string(i);
      CHECK(scores[i].f1 == kPairs[i].f1);
      CHECK(scores[i].precision == kPairs[i].precision);
      CHECK(scores[i].recall == kPairs[i].recall);
    }
  }
}

void check_lower() {
  subject = "lower case that hangs on its neighbours";
  CHECK(needs_python_lower(Held(U"a\u03a3").view()));
  CHECK(needs_python_lower(Held(U"\u0130\U0001f600").view()));
  CHECK(!needs_python_lower(Held(U"A\u00c0").view()));
  CHECK(!needs_python_lower(Held(U"\u03c3\u0131\U0001f600").view()));
}

}  // namespace
}  // namespace flipfast::test

int main() {
  using namespace flipfast::test;
  check_texts();
  check_pairs();
  check_lower();
  return report();
}
