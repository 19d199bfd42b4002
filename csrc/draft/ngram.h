// N-gram model of what usually follows the last few tokens, learned from finished outputs, in
// bounded memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace flipfast {

constexpr size_t kMaxContext = 4;  // largest number of context tokens
constexpr size_t kEvidence = 7;    // number of evidence grades of a prediction

struct Prediction {
  int32_t token;
  size_t context;   // number of context tokens, at most kMaxContext; 0: no prediction
  size_t evidence;  // 0 to 2: seen once, twice, more often, and never another token; 3 to 6:
                    // contested, by the quarter in which votes / total falls
};

// Keeps the majority token of each context, by the Boyer-Moore majority vote (1981).
class NgramModel {
 public:
  NgramModel();

  // `tokens` begins with kStart.
  void learn(const std::vector<int32_t>& tokens);

  // The prediction of the longest known context at the end of `tail`.
  Prediction predict(const std::vector<int32_t>& tail) const;

 private:
  struct Entry {
    uint32_t check = 0;  // hash bits of its context
    int32_t token = 0;
    uint16_t votes = 0;  // for the token, minus those against it
    uint16_t total = 0;  // 0: free
  };
  static void vote(Entry* entry, uint32_t check, int32_t token);

  std::array<std::vector<Entry>, kMaxContext> tables_;
};

}  // namespace flipfast
