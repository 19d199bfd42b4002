// What usually follows the last few tokens, learned from finished outputs, in bounded memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace flipfast {

constexpr size_t kMaxContext = 4;  // tokens that a prediction rests on
constexpr size_t kEvidence = 7;    // grades of how well a prediction is supported

struct Prediction {
  int32_t token;
  size_t context;   // tokens it rests on, at most kMaxContext; 0: none was found
  size_t evidence;  // 0 to 2: seen once, twice, more often, and nothing else; 3 to 6: in doubt, by
                    // the quarter of its share of all that was seen
};

// For each context the token with the majority, by Boyer and Moore's vote (1981).
class NgramModel {
 public:
  NgramModel();

  // `tokens` begins with kStart.
  void learn(const std::vector<int32_t>& tokens);

  // Of the longest known context at the end of `tail`.
  Prediction predict(const std::vector<int32_t>& tail) const;

 private:
  struct Entry {
    uint32_t check = 0;  // of its context
    int32_t token = 0;
    uint16_t votes = 0;  // for the token, less those against it
    uint16_t total = 0;  // 0: free
  };
  static void vote(Entry* entry, uint32_t check, int32_t token);

  std::array<std::vector<Entry>, kMaxContext> tables_;
};

}  // namespace flipfast
