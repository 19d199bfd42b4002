// Model-free drafter for speculative decoding: an output often repeats text that is known already.
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
  std::vector<float> chances;  // probability that a token and all before it are accepted
};

// Each next token of a draft comes from the source most likely to be right: one of those given for
// the output, the output itself, or finished outputs. These likelihoods are learned per kind of
// source and match length from whether earlier proposals were accepted. They affect only speed.
//
// Touches no Python object; calls from several threads are serialized. Every call checks all of its
// arguments before it changes anything, and throws std::invalid_argument.
class Drafter {
 public:
  explicit Drafter(int max_draft);

  // Registers an output and returns its handle. It may repeat `sources`, likeliest first, in which
  // kStart marks the start of an output; `start` is what it begins with.
  int64_t open(const std::vector<std::vector<int32_t>>& sources, const std::vector<int32_t>& start);

  // Appends tokens[i] to the output of handles[i].
  void extend(const std::vector<int64_t>& handles, const std::vector<std::vector<int32_t>>& tokens);

  // Drafts at most limits[i] tokens per output, while their chance is not below the threshold.
  std::vector<Proposal> propose(const std::vector<int64_t>& handles,
                                const std::vector<int32_t>& limits, float threshold);

  // Forgets an output; with `learn`, other outputs may be proposed its tokens.
  void close(int64_t handle, bool learn);

 private:
  static constexpr size_t kGivenKinds = 4;  // given sources from the fourth on share one kind

  // How often guesses of one kind were right, with older ones counting less and less.
  struct Rate {
    double right = 1.5;
    double tried = 3.0;
    double chance() const { return right / tried; }
    void learn(bool was_right);
  };
  struct Guess {
    int32_t token;
    Rate* rate;       // nullptr: no guess
    size_t source;    // the given ones, then the output itself, then finished outputs
    size_t length;    // of the match
    size_t position;  // of the token in its source
  };
  struct Output {
    std::vector<SuffixIndex> sources;  // the last one is the output itself
    std::vector<Guess> guesses;        // the last proposal, and the guess that would come next
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
  std::array<std::array<Rate, kMaxMatch>, kGivenKinds + 1> rates_;  // last: the output itself
  std::array<std::array<Rate, kEvidence>, kMaxContext> history_rates_;
  NgramModel history_;
  std::vector<int32_t> tail_;  // the latest tokens of the output and its draft
};

}  // namespace flipfast
