// Proposes the next tokens of growing outputs: an output often repeats what is at hand.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "draft/ngram.h"
#include "draft/suffix_index.h"

namespace flipfast {

struct Proposal {
  std::vector<int32_t> tokens;
  std::vector<float> chances;  // that a token and all before it are accepted
};

// Each next token of a draft comes from the source that is likeliest to be right: one of those that
// were given for the output, what the output has written itself, or what finished outputs have
// written. How likely, is learned for each kind of source and length of the match from what became
// of earlier proposals. Nothing but speed hangs on it.
//
// Touches no Python object; calls from several threads take turns. Every call checks all of its
// arguments before it changes anything, and throws std::invalid_argument.
class Drafter {
 public:
  explicit Drafter(int max_draft);

  // `sources` that the output may repeat, likeliest first, where kStart stands for its start;
  // `start` is what it begins with.
  int64_t open(const std::vector<std::vector<int32_t>>& sources, const std::vector<int32_t>& start);

  // tokens[i] have been added to the output of handles[i].
  void extend(const std::vector<int64_t>& handles, const std::vector<std::vector<int32_t>>& tokens);

  // Tokens are drafted as long as their chance is not below the threshold.
  std::vector<Proposal> propose(const std::vector<int64_t>& handles,
                                const std::vector<int32_t>& limits, float threshold);

  // Forgets an output; `learn`: other outputs may repeat it.
  void close(int64_t handle, bool learn);

 private:
  static constexpr size_t kGivenKinds = 4;  // given sources from the fourth on count as alike

  // How often guesses of a sort were right, with the older ones counting less and less.
  struct Rate {
    double right = 1.5;
    double tried = 3.0;
    double chance() const { return right / tried; }
    void learn(bool was_right);
  };
  struct Guess {
    int32_t token;
    Rate* rate;       // nullptr: no guess
    size_t source;    // those given, then the output itself, then finished outputs
    size_t length;    // of the match
    size_t position;  // of the token in its source
  };
  struct Output {
    std::vector<SuffixIndex> sources;  // the last one is the output itself
    std::vector<Guess> guesses;        // the last proposal, and what would have come next
  };

  std::vector<Output*> find(const std::vector<int64_t>& handles) const;
  Guess guess(const Output& output, const Guess& last);
  Guess guess_from(const Output& output, size_t source, const Guess& last);
  Guess guess_from_history(size_t source);
  Proposal propose(Output* output, int32_t limit, float threshold);
  static void learn(Output* output, const std::vector<int32_t>& tokens);

  const int max_draft_;
  std::mutex mutex_;
  std::unordered_map<int64_t, std::unique_ptr<Output>> outputs_;
  int64_t next_handle_ = 0;
  std::array<std::array<Rate, kMaxMatch>, kGivenKinds + 1> rates_;  // the last: the output itself
  std::array<std::array<Rate, kEvidence>, kMaxContext> history_rates_;
  NgramModel history_;
  std::vector<int32_t> tail_;  // of the output and its draft
};

}  // namespace flipfast
