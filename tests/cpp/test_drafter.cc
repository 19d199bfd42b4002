// The drafter against one without index and hashes, in random runs.
#include <algorithm>
#include <map>
#include <random>
#include <tuple>

#include "check.h"
#include "draft/drafter.h"

namespace flipfast::test {
namespace {

using Tokens = std::vector<int32_t>;

struct Rate {
  double right = 1.5, tried = 3.0;

  double chance() const { return right / tried; }
  void learn(bool was_right) {
    right = 0.995 * right + was_right;
    tried = 0.995 * tried + 1;
  }
};

struct Guess {
  int32_t token;
  Rate* rate;  // null for no guess
  int source;
  int length;
  int position;
};

struct Vote {
  int32_t token = 0;
  int votes = 0, total = 0;
};

class SlowDrafter {
 public:
  struct Output {
    std::vector<Tokens> sources;  // the last is the output itself
    std::vector<Guess> guesses;
  };

  Output open(std::vector<Tokens> sources, const Tokens& start) {
    sources.push_back({-1});
    sources.back().insert(sources.back().end(), start.begin(), start.end());
    return {std::move(sources), {}};
  }

  void extend(Output* output, const Tokens& tokens) {
    if (tokens.empty()) return;
    for (size_t i = 0; i < std::min(tokens.size(), output->guesses.size()); ++i) {
      const bool right = output->guesses[i].token == tokens[i];
      output->guesses[i].rate->learn(right);
      if (!right) break;
    }
    output->guesses.clear();
    Tokens& own = output->sources.back();
    own.insert(own.end(), tokens.begin(), tokens.end());
  }

  Proposal propose(Output* output, int limit, float threshold) {
    Tokens text = output->sources.back();
    output->guesses.clear();
    Proposal found;
    double chance = 1.0;
    Guess last = {};
    for (;;) {
      Guess best = {};
      for (int source = 0; source <= static_cast<int>(output->sources.size()); ++source) {
        const Guess guess = next(*output, source, text, last);
        if (guess.rate == nullptr) continue;
        if (best.rate == nullptr || guess.rate->chance() > best.rate->chance()) best = guess;
      }
      last = best;
      if (last.rate == nullptr) return found;
      output->guesses.push_back(last);
      chance *= last.rate->chance();
      if (static_cast<int>(found.tokens.size()) >= limit || chance < threshold) return found;
      found.tokens.push_back(last.token);
      found.chances.push_back(static_cast<float>(chance));
      text.push_back(last.token);
    }
  }

  void close(const Output& output, bool learn) {
    const Tokens& own = output.sources.back();
    for (size_t i = 1; learn && i < own.size(); ++i) {
      for (size_t m = 1; m <= std::min<size_t>(4, i); ++m) {
        Vote& vote = votes_[Tokens(own.begin() + (i - m), own.begin() + i)];
        ++vote.total;
        vote.votes += vote.token == own[i] ? 1 : -1;
        if (vote.votes <= 0) vote = {own[i], 1, vote.total};
      }
    }
  }

 private:
  Guess next(const Output& output, int source, const Tokens& text, const Guess& last) {
    if (source == static_cast<int>(output.sources.size())) return from_history(source, text);
    const Tokens& tokens = output.sources[source];
    const size_t behind = last.position + 1;
    Guess guess = {0, nullptr, source, 0, 0};
    if (last.rate != nullptr && last.source == source && behind < tokens.size() &&
        tokens[behind] != -1) {
      guess.length = std::min(8, last.length + 1);
      guess.position = static_cast<int>(behind);
    } else {
      look_up(tokens, text, &guess);
    }
    if (guess.length == 0) return {};
    const bool is_own = source + 1 == static_cast<int>(output.sources.size());
    guess.token = tokens[guess.position];
    guess.rate = &rates_[{is_own ? 4 : std::min(source, 3), guess.length, 0}];
    return guess;
  }

  // The longest match of the end of the text, the latest among equals, of the latest 64 positions.
  static void look_up(const Tokens& tokens, const Tokens& text, Guess* guess) {
    int visits = 0;
    for (int end = static_cast<int>(tokens.size()) - 2; end >= 0 && visits < 64; --end) {
      if (tokens[end] != text.back() || tokens[end + 1] == -1) continue;
      ++visits;
      const int most = std::min({8, static_cast<int>(text.size()), end + 1});
      int length = 1;
      while (length < most && tokens[end - length] == text[text.size() - 1 - length]) ++length;
      if (length > guess->length) {
        guess->length = length;
        guess->position = end + 1;
      }
    }
  }

  Guess from_history(int source, const Tokens& text) {
    for (int m = static_cast<int>(std::min<size_t>(4, text.size())); m > 0; --m) {
      const auto found = votes_.find(Tokens(text.end() - m, text.end()));
      if (found == votes_.end()) continue;
      const auto [token, votes, total] = found->second;
      const int grade = votes == total ? std::min(votes, 3) : 4 + 4 * votes / total;
      return {token, &rates_[{5, m, grade}], source, 0, 0};
    }
    return {};
  }

  std::map<std::tuple<int, int, int>, Rate> rates_;  // by kind of source, length and grade
  std::map<Tokens, Vote> votes_;                     // by context
};

// Numbers below n, the same with every standard library.
class Dice {
 public:
  explicit Dice(unsigned seed) : generator_(seed) {}
  int below(int n) { return static_cast<int>(generator_() % static_cast<unsigned>(n)); }
  template <class T>
  T any_of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int>(values.size()))];
  }
  Tokens tokens(int n) {
    Tokens out(n);
    for (int32_t& token : out) token = below(3);
    return out;
  }

 private:
  std::mt19937 generator_;
};

// Three tokens make too few contexts for two of them to meet in the history's tables.
void run(unsigned seed) {
  Dice dice(seed);
  const int max_draft = dice.any_of({1, 5, 16});
  Drafter fast(max_draft);
  SlowDrafter slow;
  std::vector<std::pair<int64_t, SlowDrafter::Output>> open;
  int n_drafted = 0;
  for (int turn = 0; turn < 1500; ++turn) {
    if (open.empty() || (open.size() < 6 && dice.below(10) == 0)) {
      std::vector<Tokens> sources(dice.below(6));
      for (Tokens& source : sources) {
        source = dice.tokens(dice.any_of({0, 1, 5, 40, 300}));
        if (dice.below(2) == 0) source.insert(source.begin(), -1);
      }
      const Tokens start = dice.tokens(dice.any_of({0, 0, 2}));
      open.emplace_back(fast.open(sources, start), slow.open(sources, start));
    }
    const int place = dice.below(static_cast<int>(open.size()));
    auto& [handle, twin] = open[place];
    const int limit = dice.any_of({0, 3, 16, 40});
    const float threshold = dice.any_of({0.0f, 0.05f, 0.4f, 2.0f});
    const Proposal draft = fast.propose({handle}, {limit}, threshold).front();
    const Proposal expected = slow.propose(&twin, std::min(limit, max_draft), threshold);
    CHECK(draft.tokens == expected.tokens);
    CHECK(draft.chances == expected.chances);
    const int n = static_cast<int>(draft.tokens.size());
    n_drafted += n;
    Tokens added(draft.tokens.begin(), draft.tokens.begin() + dice.below(n + 1));
    for (const int32_t token : dice.tokens(dice.any_of({0, 1, 1, 4}))) added.push_back(token);
    fast.extend({handle}, {added});
    slow.extend(&twin, added);
    if (dice.below(33) == 0) {
      const bool learn = dice.below(10) < 7;
      fast.close(handle, learn);
      slow.close(twin, learn);
      open.erase(open.begin() + place);
    }
  }
  CHECK(n_drafted > 500);
}

}  // namespace
}  // namespace flipfast::test

int main() {
  using namespace flipfast::test;
  for (unsigned seed = 0; seed < 6; ++seed) {
    subject = "seed " + std::to_string(seed);
    run(seed);
  }
  return report();
}
